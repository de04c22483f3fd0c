"""Find functions that a config names (`package.module:function`) by reading their source, without importing it.

Importing a user's module may import torch or have side effects, so the check of a command reads the source instead. A
stage's fingerprint also covers that source, and the user's other modules that it imports.
"""

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple


class FunctionName(NamedTuple):
    """The dotted name of a module, and the name of a function in it."""

    module: str
    function: str


def parse(name: str) -> FunctionName:
    """Split `package.module:function`, or the same with a dot, into module and function."""
    module, _, function = name.partition(":") if ":" in name else name.rpartition(".")
    return FunctionName(module, function)


def fault_in(name: str) -> str:
    """Return why there is no function of this name, or an empty text."""
    module, function = parse(name)
    if not module or not all(part.isidentifier() for part in [*module.split("."), function]):
        return f"{name!r} is not a dotted name"
    if module in sys.modules:
        return "" if hasattr(sys.modules[module], function) else f"{module} defines no {function!r}"
    spec = find(module)
    if spec is None:
        return f"there is no module {module!r} (searched in this folder and in Python's path)"
    defined = names(spec)
    return f"{module} defines no {function!r}" if defined is not None and function not in defined else ""


def find(module: str) -> ModuleSpec | None:
    """Find a module in the current folder or where Python looks, without importing its packages."""
    where: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for part in module.split("."):  # alone: under its full name, a folder without __init__.py needs its parent imported
        if where is None:
            return None
        spec = PathFinder.find_spec(part, where)
        if spec is None:
            return None
        where = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return spec


def is_library(package: str) -> bool:
    """Return whether a top-level package is Python's own or an installed one."""
    return package in sys.builtin_module_names or _is_installed(package, (str(Path.cwd()), *sys.path))


@lru_cache(maxsize=1024)
def _is_installed(package: str, where: tuple[str, ...]) -> bool:
    spec = PathFinder.find_spec(package, where)
    return spec is not None and spec.origin is not None and installed(Path(spec.origin))


def source(spec: ModuleSpec) -> Path | None:
    """Return the source file of a module; None for a compiled or a namespace module."""
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def names(spec: ModuleSpec) -> set[str] | None:
    """Return the names that a module's source defines; None where only importing it can tell (`import *`)."""
    file = source(spec)
    if file is None:
        return None
    tree = tree_of(file)
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return None if "*" in imported else defined | imported


def tree_of(file: Path) -> ast.Module:
    """Parse a file; return an empty tree for invalid Python, for which the later import reports the error."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def load(name: str) -> Any:
    """Import the module of a function and return the function."""
    module, function = parse(name)
    import_from_here()
    return getattr(import_module(module), function)


def import_from_here() -> None:
    """Put the current folder on Python's path, as `python -m` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def sources(name: str) -> list[Path]:
    """Return the files that decide what a function does: its module's, and the user's own modules that it imports."""
    files: dict[str, Path] = {}
    waiting = [parse(name).module]
    while waiting:
        module = waiting.pop()
        spec = find(module) if module not in files else None
        file = source(spec) if spec else None
        if file and not installed(file):
            files[module] = file
            waiting += imports(file, module)
    return [files[module] for module in sorted(files)]


class ImportStatement(NamedTuple):
    """An import of a file: `from module import names`, `level` packages up, or `import module`, without names."""

    level: int
    module: str
    names: list[str]


def imports(file: Path, module: str) -> Iterator[str]:
    """Yield the full names of the modules that a file may import."""
    return full_names(import_statements(tree_of(file)), file, module)


def import_statements(tree: ast.AST) -> Iterator[ImportStatement]:
    """Yield the imports of a file, less those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (ImportStatement(0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ImportStatement(node.level, node.module or "", [alias.name for alias in node.names])
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from import_statements(ast.Module(node.orelse, []))
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from import_statements(node)


def full_names(statements: Iterable[ImportStatement], file: Path, module: str) -> Iterator[str]:
    """Yield the full names of what a file may import: modules, and what `from … import` names."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for level, name, names in statements:
        above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        start = ".".join(filter(None, [*above, name]))
        yield start
        yield from (f"{start}.{imported}" for imported in names)


def place_of(error: BaseException) -> str:
    """Return the file and line of the user's own code that raised an error, ` (rewards.py:12)`; empty for no such."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({shown_path(error.filename)}:{error.lineno})"
    frames = extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    of_user = [
        frame
        for frame in frames
        if (file := Path(frame.filename)).suffix == ".py" and not file.is_relative_to(package) and not installed(file)
    ]
    return f" ({shown_path(of_user[-1].filename)}:{of_user[-1].lineno})" if of_user else ""


def shown_path(file: str) -> str:
    """Return a path relative to the current folder where it lies in it."""
    return str(Path(file).relative_to(Path.cwd()) if Path(file).is_relative_to(Path.cwd()) else file)


def installed(file: Path) -> bool:
    """Return whether a file belongs to Python or to an installed package, whose version identifies it."""
    elsewhere = {"site-packages", "dist-packages"} & {*file.parts}  # of an environment that this one builds on
    return bool(elsewhere) or any(file.is_relative_to(folder) for folder in installed_folders())


@cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of Python's own modules and of installed packages."""
    return tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
