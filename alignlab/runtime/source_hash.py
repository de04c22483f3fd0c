"""Hash the code that decides a result: the syntax of modules, without docstrings, comments and layout.

A finished stage is reused while this hash is the same: a changed statement retrains it, and a changed comment does
not. Two kinds of code decide no weight and are left out: the fields of settings classes, whose values are hashed with
the config, and the packages that only measure.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import alignlab

ROOT = Path(alignlab.__file__).parent
# Packages and modules that report, measure or stop a run; `alignlab.training.gate_monitor` asks the gates.
MEASURING = (
    "alignlab.evaluation",
    "alignlab.reports",
    "alignlab.training.gate_monitor",
    "alignlab.config.evaluation",
    "alignlab.config.sweep",
    "alignlab.config.task",
    "alignlab.config.tracking",
)
SETTINGS = ROOT / "config"  # every class in here holds settings, and so does the `Config` of a method


def hash_modules(*modules: str) -> str:
    """Hash modules of this package by their dotted names, to 16 hexadecimal digits."""
    seen = hashlib.sha256()
    for module in modules:
        seen.update(syntax(file_of(module)).encode())
    return seen.hexdigest()[:16]


@cache
def hash_with_imports(module: str) -> str:
    """Hash a module and every module of this package that it imports, at any depth, less those that only measure."""
    return hash_modules(*imported(module))


def imported(module: str) -> list[str]:
    """List a module and the modules of this package that it imports, at any depth, in sorted order."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and not is_measuring(name) and file_of(name).exists():
            seen.add(name)
            waiting += imports(file_of(name))
    return sorted(seen)


def is_measuring(module: str) -> bool:
    """Return whether a module decides no weight."""
    return any(module == other or module.startswith(f"{other}.") for other in MEASURING)


def file_of(module: str) -> Path:
    """Return the file of a module of this package; it may not exist."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def imports(file: Path) -> Iterator[str]:
    """Yield the names of this package that a file imports, modules and what they hold alike."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("alignlab"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignlab"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tree_of(file: Path) -> ast.Module:
    """Parse a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def syntax(file: Path) -> str:
    """Return the syntax of a file as text, without positions, docstrings and the fields of settings classes."""
    return ast.dump(Stripped(all_classes=file.is_relative_to(SETTINGS)).visit(tree_of(file)))


class Stripped(ast.NodeTransformer):
    """Remove docstrings, and from settings classes their fields and their checks (`faults`)."""

    def __init__(self, all_classes: bool) -> None:
        self.all_classes = all_classes  # every class of the file holds settings

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [one for one in node.body if not is_docstring(one)]
        if isinstance(node, ast.ClassDef) and (self.all_classes or node.name == "Config"):
            node.body = [one for one in node.body if not is_field_or_check(one)]
        return node


def is_docstring(node: ast.stmt) -> bool:
    """Return whether a statement is a string alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_field_or_check(node: ast.stmt) -> bool:
    """Return whether a statement of a settings class declares a field, or is its method `faults`."""
    return isinstance(node, ast.AnnAssign) or (isinstance(node, ast.FunctionDef) and node.name == "faults")
