"""`__all__` of every public module is sorted, exists, and holds what other modules import from it."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("reports", "search_spaces", "tuner")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in FILES}
PUBLIC = [name for name in MODULES if not any(part.startswith("_") for part in name.split("."))]


@functools.cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def defined_names(tree: ast.Module) -> list[str]:
    """Names that a module binds itself at its top level, in order; imported ones are not its own."""
    names: list[str] = []
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=targets):
                names += [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return names


def imported_names(tree: ast.Module) -> list[str]:
    """Names that a module takes from others at its top level."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def exported_names(tree: ast.Module) -> list[str] | None:
    """The strings in `__all__`, or None if the module has none."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return list(ast.literal_eval(value))
    return None


def natural_order(name: str) -> tuple[int, str]:
    """The order of ruff's RUF022: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def imports_between_modules(folders: tuple[str, ...]) -> list[tuple[Path, int, str, str]]:
    """Each `from MODULE import NAME` where MODULE is one of ours: file, line, module, name."""
    found = []
    for file in sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                found += [(file, node.lineno, node.module, alias.name) for alias in node.names]
    return found


def private_attributes(tree: ast.Module) -> list[tuple[int, str]]:
    """Uses of `module._name` where `module` was imported: line and name."""
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (node.module if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0] in PACKAGES
    }
    return [
        (node.lineno, f"{node.value.id}.{node.attr}")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in imported
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    ]


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_sorted_and_holds_names_that_exist(module: str) -> None:
    tree = parse(MODULES[module])
    exported = exported_names(tree)
    public = [name for name in defined_names(tree) if not name.startswith("_")]
    if exported is None:
        assert MODULES[module].name == "__init__.py", f"{module} has no __all__"
        assert not public, f"{module} defines {public}, but has no __all__"
        return
    assert exported == sorted(set(exported), key=natural_order)
    assert [name for name in exported if name.startswith("_") and name != "__version__"] == []
    if MODULES[module].name != "__init__.py":
        assert [name for name in exported if name not in public + imported_names(tree)] == []


@pytest.mark.parametrize("module", [name for name in PUBLIC if MODULES[name].name == "__init__.py"])
def test_a_package_gives_the_names_it_exports(module: str) -> None:
    """A package may get its names from elsewhere, or only when they are asked for; so they are asked for."""
    package = importlib.import_module(module)
    assert [name for name in exported_names(parse(MODULES[module])) or [] if not hasattr(package, name)] == []


def test_modules_import_from_each_other_only_what_is_exported() -> None:
    offences = [
        f"{file.relative_to(ROOT)}:{line}: {module}.{name} is not in __all__ of {module}"
        for file, line, module, name in imports_between_modules(PACKAGES)
        if f"{module}.{name}" not in MODULES and name not in (exported_names(parse(MODULES[module])) or [])
    ]
    assert offences == [], "\n" + "\n".join(offences)


def test_nobody_imports_a_private_name() -> None:
    folders = (*PACKAGES, "tests", "benchmarks")
    offences = [
        f"{file.relative_to(ROOT)}:{line}: {module}.{name}"
        for file, line, module, name in imports_between_modules(folders)
        if name.startswith("_") and name != "__version__"
    ]
    offences += [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line, name in private_attributes(parse(file))
    ]
    assert offences == [], "\n" + "\n".join(offences)


def test_the_checks_find_what_they_look_for() -> None:
    source = "from tuner import store\nimport numpy as np\nA, (b, C) = 1, (2, 3)\nd: int = 4\nstore._x\nnp._y\n"
    tree = ast.parse(source + "class E: ...\n__all__ = ['E', 'b']\n")
    assert defined_names(tree) == ["A", "b", "C", "d", "E", "__all__"]
    assert exported_names(tree) == ["E", "b"]
    assert private_attributes(tree) == [(5, "store._x")]
    assert sorted(["load", "Trace", "MAX"], key=natural_order) == ["MAX", "Trace", "load"]
