"""Functions that a config names by dots (`package.module:function`), found and read without being run.

Importing a user's module may import torch, or worse; so a name is looked up in the source, which costs nothing, and
what a stage's fingerprint needs is the sources too: of the module, and of the user's other modules that it imports.
"""

import ast
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple


class Dotted(NamedTuple):
    """A function's name, in its two parts."""

    module: str
    function: str


def parse(name: str) -> Dotted:
    """Part `package.module:function`, or the same with a dot."""
    module, _, function = name.partition(":") if ":" in name else name.rpartition(".")
    return Dotted(module, function)


def wrong(name: str) -> str:
    """Why there is no such function, or nothing."""
    module, function = parse(name)
    if not module or not all(part.isidentifier() for part in [*module.split("."), function]):
        return f"{name!r} is no dotted name"
    if module in sys.modules:
        return "" if hasattr(sys.modules[module], function) else f"{module} defines no {function!r}"
    spec = find(module)
    if spec is None:
        return f"there is no module {module!r} (looked for from this folder on)"
    defined = names(spec)
    return f"{module} defines no {function!r}" if defined is not None and function not in defined else ""


def find(module: str) -> ModuleSpec | None:
    """Find a module in the current folder or where Python looks, without importing its packages."""
    where: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for depth, _ in enumerate(parts := module.split(".")):
        if where is None:
            return None
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), where)
        if spec is None:
            return None
        where = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return spec


def source(spec: ModuleSpec) -> Path | None:
    """The file of a module that is written in Python."""
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def names(spec: ModuleSpec) -> set[str] | None:
    """The names that a module's source gives to things; None where that cannot be told without running it."""
    file = source(spec)
    if file is None:
        return None
    tree = tree_of(file)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return None if "*" in imported else bound | imported


def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file; an empty one where it is no Python, which importing it will say better."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def load(name: str) -> Any:
    """Import the function."""
    module, function = parse(name)
    import_from_here()
    return getattr(import_module(module), function)


def import_from_here() -> None:
    """Let Python import modules of the current folder, as `python -m` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def sources(name: str) -> list[Path]:
    """The files that a function's behaviour stands in: its module's, and those of the user's own that it imports."""
    seen: dict[str, Path] = {}
    waiting = [parse(name).module]
    while waiting:
        module = waiting.pop()
        spec = find(module) if module not in seen else None
        file = source(spec) if spec else None
        if file and not installed(file):
            seen[module] = file
            waiting += imports(file, module)
    return [seen[module] for module in sorted(seen)]


def imports(file: Path, module: str) -> Iterator[str]:
    """The modules that a file may import, by their full names."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join(filter(None, [*above, node.module or ""]))
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def installed(file: Path) -> bool:
    """Whether a file belongs to Python or to a package: its version stands for it."""
    return any(file.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))
