"""What setup.cfg says is what the code needs, and what was tested."""

from __future__ import annotations

import ast
import re
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = ("reports", "search_spaces", "tuner")
# Used without an import of our own: by pandas for Parquet and Excel, by keras-tuner, by Keras as its backend.
NOT_IMPORTED = {"openpyxl", "pyarrow", "six", "tensorflow"}


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("#")]


@pytest.fixture(scope="session")
def needed(setup_cfg: ConfigParser) -> dict[str, Requirement]:
    """What a plain installation asks for, by canonical name."""
    requirements = [Requirement(line) for line in lines(setup_cfg["options"]["install_requires"])]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.fixture(scope="session")
def extras(setup_cfg: ConfigParser) -> dict[str, list[Requirement]]:
    section = setup_cfg["options.extras_require"]
    return {extra: [Requirement(line) for line in lines(section[extra])] for extra in section}


@pytest.fixture(scope="session")
def tested(root: Path) -> dict[str, str]:
    """The version that constraints.txt pins, by canonical name."""
    pins = [line.split("==") for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(name): version for name, version in pins}


def test_every_package_is_listed(root: Path, setup_cfg: ConfigParser) -> None:
    folders = {file.parent for package in PACKAGES for file in (root / package).rglob("*.py")}
    found = sorted(".".join(folder.relative_to(root).parts) for folder in folders)
    assert lines(setup_cfg["options"]["packages"]) == found


def test_every_package_has_an_init(root: Path, setup_cfg: ConfigParser) -> None:
    names = lines(setup_cfg["options"]["packages"])
    assert [name for name in names if not root.joinpath(*name.split("."), "__init__.py").is_file()] == []


def test_other_files_of_a_package_are_installed(root: Path, setup_cfg: ConfigParser) -> None:
    patterns = lines(setup_cfg["options.package_data"]["*"])
    others = [
        file.relative_to(root / package)
        for package in PACKAGES
        for file in (root / package).rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    ]
    assert [str(file) for file in others if not any(file.match(pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("extra", ["gpu", "tensorboard", "test", "bench"])
def test_extra_exists(extras: dict[str, list[Requirement]], extra: str) -> None:
    assert extra in extras


def test_every_import_is_declared(
    root: Path, needed: dict[str, Requirement], extras: dict[str, list[Requirement]]
) -> None:
    declared = needed.keys() | {canonicalize_name(requirement.name) for requirement in extras["tensorboard"]}
    distributions = metadata.packages_distributions()
    undeclared = set()
    for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules = [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    continue
            for module in {module.partition(".")[0] for module in modules} - {*sys.stdlib_module_names, *PACKAGES}:
                providers = {canonicalize_name(name) for name in distributions.get(module, [module])}
                if not providers & declared:
                    undeclared.add(f"{file.relative_to(root)} imports {module}")
    assert sorted(undeclared) == []


def test_every_dependency_is_used(root: Path, needed: dict[str, Requirement]) -> None:
    text = "\n".join(
        file.read_text(encoding="utf-8") for package in PACKAGES for file in (root / package).rglob("*.py")
    )
    imported = set(re.findall(r"^\s*(?:import|from) ([\w]+)", text, flags=re.MULTILINE))
    used = {canonicalize_name(n) for module in imported for n in metadata.packages_distributions().get(module, [])}
    assert needed.keys() - used <= NOT_IMPORTED


def test_tested_versions_satisfy_every_requirement(
    needed: dict[str, Requirement], extras: dict[str, list[Requirement]], tested: dict[str, str]
) -> None:
    wanted = [*needed.values(), *extras["test"]]
    assert [str(req) for req in wanted if canonicalize_name(req.name) not in tested] == []
    assert [str(req) for req in wanted if not req.specifier.contains(tested[canonicalize_name(req.name)])] == []


def test_tested_versions_cover_what_is_pulled_in(tested: dict[str, str], needed: dict[str, Requirement]) -> None:
    """Every distribution that the requirements lead to here is pinned; setuptools comes with the environment."""
    reached: set[str] = set()
    waiting = [str(name) for name in needed]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    assert sorted(reached - tested.keys() - {"setuptools"}) == []


def test_constraints_are_sorted_exact_pins(root: Path) -> None:
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", pin)] == []
    names = [canonicalize_name(pin.partition("==")[0]) for pin in pins]
    assert names == sorted(set(names))


def test_every_dependency_is_explained(
    root: Path, needed: dict[str, Requirement], extras: dict[str, list[Requirement]]
) -> None:
    table = (root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {canonicalize_name(name) for name in re.findall(r"^\| `([\w.-]+)` \|", table, flags=re.MULTILINE)}
    declared = needed.keys() | {canonicalize_name(req.name) for listed in extras.values() for req in listed}
    assert explained == declared


def test_version_is_the_installed_one(setup_cfg: ConfigParser) -> None:
    metadata_section = setup_cfg["metadata"]
    assert metadata.version(metadata_section["name"]) == metadata_section["version"]


def test_console_script_exists(setup_cfg: ConfigParser) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="tuner")
    assert script.value == "tuner.__main__:run"
    assert callable(script.load())
