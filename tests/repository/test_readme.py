"""Commands, links and file names in the documents are true, and their Python examples run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest

from tuner.cli import cli
from tuner.config import SearchConfig, resolve
from tuner.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
PROGRAMS = ("make ", "python ", "tuner ")
SHELLS = ("", "bash", "console", "sh", "shell")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
INLINE_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command line in a document."""

    document: Path
    words: tuple[str, ...]
    is_mention: bool

    def __str__(self) -> str:
        return f"{self.document.name}: {shlex.join(self.words)}"


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language and body of each fenced block."""
    return [(match["language"], match["body"]) for match in FENCE.finditer(text)]


def shell_text(text: str) -> str:
    """The shell blocks of a document, a command on each line."""
    return "\n".join(body.replace("\\\n", " ") for language, body in code_blocks(text) if language in SHELLS)


def mentions(text: str) -> str:
    """The inline code of a document that is a command, one on each line; its arguments may be left out."""
    return "\n".join(code for code in INLINE_CODE.findall(FENCE.sub("", text)) if code.startswith(PROGRAMS))


def command_lines(text: str) -> list[list[str]]:
    """The words of each command in shell text, without prompt, comment and variables set before it."""
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(re.sub(r"^\s*\$ ", "", line), posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:
            continue  # Output of a program that is shown, with a quotation mark in it.
        words: list[str] = []
        for token in [*tokens, ";"]:
            if set(token) <= set(";&|<>"):
                found += [words] if words else []
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", token):
                words.append(token)
    return found


def commands(*, program: str) -> list[Command]:
    """All commands in the documents that start this program."""
    return [
        Command(document, tuple(words), is_mention=part is mentions)
        for document in DOCUMENTS
        for part in (shell_text, mentions)
        for words in command_lines(part(document.read_text(encoding="utf-8")))
        if Path(words[0]).name == program
    ]


def tuner_commands() -> list[Command]:
    """`python -m tuner ...` and `tuner ...`, as what follows the program's name."""
    by_module = [found for found in commands(program="python") if found.words[1:3] == ("-m", "tuner")]
    cut = [(found, 3) for found in by_module] + [(found, 1) for found in commands(program="tuner")]
    # `COMMAND` stands for any.
    found_words = [dataclasses.replace(found, words=found.words[start:]) for found, start in cut]
    return [found for found in found_words if found.words[:1] != ("COMMAND",)]


def parse(words: tuple[str, ...]) -> None:
    """Check a command line against the program: command, options, arguments and values, but not that paths exist.

    Raises:
        click.UsageError: The program would refuse its form.
        ConfigError: The program would refuse a value.
    """
    command: click.Command = cli
    # With the settings: click keeps the help option of the first context that asks for one.
    context = click.Context(command, info_name="tuner", **command.context_settings)
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        if not rest:
            return
        name, found, remaining = command.resolve_command(context, rest)
        assert found is not None
        command, words = found, tuple(remaining)
        context = click.Context(command, info_name=name, parent=context)
    if "--help" in words:
        return
    values, extra, _ = command.make_parser(context).parse_args(list(words))
    if extra:
        raise click.UsageError(f"Got unexpected extra arguments: {' '.join(extra)}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if parameter.required and parameter.value_is_missing(value):
            raise click.MissingParameter(param=parameter)
        if isinstance(value, str | list | tuple) and not isinstance(parameter.type, click.Path | click.File):
            values[parameter.name or ""] = parameter.type_cast_value(context, value)
    resolve(configuration(values), None)


def configuration(values: dict[str, Any]) -> dict[str, Any]:
    """What a command line sets of the configuration; `NAME=VALUE` texts as a mapping."""
    given = {name: value for name, value in values.items() if name in SearchConfig.model_fields and value is not None}
    return {
        name: dict(text.split("=", 1) for text in value) if isinstance(value, list | tuple) else value
        for name, value in given.items()
    }


def slugs(document: Path) -> set[str]:
    """The anchors that a renderer makes of the headings of a document."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(document: Path) -> list[str]:
    text = INLINE_CODE.sub("", FENCE.sub("", document.read_text(encoding="utf-8")))
    return [match["target"] for match in LINK.finditer(text) if not re.match(r"[a-z]+:", match["target"])]


def named_files(document: Path) -> list[str]:
    """Inline code that looks like a path below one of our folders, or a file with one of our extensions there."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs", "build", "dist", ".venv", ".git"}
    candidates = [code for code in INLINE_CODE.findall(text) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", code)]
    return [name for name in candidates if "/" in name and name.split("/")[0] in folders]


def test_readme_shows_the_first_commands() -> None:
    shown = {word for command in tuner_commands() for word in command.words}
    targets = {word for command in commands(program="make") for word in command.words[1:]}
    assert {"search", "status", "report", "export", "predict"} <= shown
    assert {"search", "test"} <= targets


@pytest.mark.parametrize("command", tuner_commands(), ids=str)
def test_command_is_one_that_the_program_takes(command: Command) -> None:
    with contextlib.suppress(*([click.MissingParameter] if command.is_mention else [])):
        parse(command.words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serach",), "No such command"),
        (("search", "--no-such-option"), "No such option"),
        (("search", "--trials"), "requires an argument"),
        (("search", "--trials", "many"), "not a valid integer"),
        (("search", "--trials", "0"), "trials: "),
        (("search", "--fix", "optimizer=adam", "--epochs", "0"), "epochs: "),
        (("search", "a", "b"), "unexpected extra argument"),
        (("status",), "Missing parameter"),
    ],
)
def test_a_wrong_command_is_found(words: tuple[str, ...], message: str) -> None:
    with pytest.raises((click.UsageError, ConfigError), match=message):
        parse(words)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = [(command, word) for command in commands(program="make") for word in command.words[1:] if "=" not in word]
    assert [str(command) for command, word in named if word not in targets] == []


def test_extras_exist(setup_cfg: ConfigParser) -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = {extra for extras in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in extras.split(",")}
    assert named
    assert named <= set(setup_cfg["options.extras_require"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in slugs(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_named_files_exist(document: Path) -> None:
    assert [name for name in named_files(document) if not (ROOT / name).exists()] == []


def test_scripts_exist() -> None:
    named = [
        (command, word) for command in commands(program="python") for word in command.words[1:2] if word.endswith(".py")
    ]
    in_a_bundle = "train.py"
    assert [
        str(command) for command, word in named if not (ROOT / word).is_file() and Path(word).name != in_a_bundle
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if any(lang == "python" for lang, _ in code_blocks(document.read_text()))],
    ids=lambda document: document.name,
)
def test_python_examples_run(document: Path, tmp_path: Path) -> None:
    """The Python blocks of a document are one program, read from top to bottom."""
    blocks = [body for language, body in code_blocks(document.read_text(encoding="utf-8")) if language == "python"]
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def sides(diff: str) -> tuple[str, str]:
    """A script before and after the change that a diff shows; every line of both is in it."""
    lines = diff.splitlines()
    before, after = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
    return before, after


@pytest.mark.slow
def test_two_changed_lines_make_a_keras_tuner_script_ours(tmp_path: Path) -> None:
    """The script that the README changes runs as it was with Keras Tuner, and as it is then."""
    (diff,) = [body for language, body in code_blocks((ROOT / "README.md").read_text()) if language == "diff"]
    assert [sum(line.startswith(sign) for line in diff.splitlines()) for sign in "-+"] == [2, 2]
    for name, script in zip(("before", "after"), sides(diff), strict=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "script.py").write_text(script, encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "script.py"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "learning_rate" in result.stdout.splitlines()[-1]
    assert list((tmp_path / "after/runs/digits/trials").glob("*/seed_0/record.json"))


def test_the_reader_of_documents() -> None:
    shell = "```bash\n$ CI=true make x # why\ntuner search \\\n  --json | tee f && cd ..\n```\n"
    text = f"# A b: `c`!\n{shell}```python\nx = 1\n```\n`tuner x` or `tuner`\n"
    assert code_blocks(text)[1] == ("python", "x = 1\n")
    in_block = [["make", "x"], ["tuner", "search", "--json"], ["tee", "f"], ["cd", ".."]]
    assert command_lines(shell_text(text)) == in_block
    assert command_lines(mentions(text)) == [["tuner", "x"]]
    assert sides(" a\n-b\n+c\n\n") == ("a\nb\n", "a\nc\n")
