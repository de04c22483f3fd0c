"""Hash the code that decides a result: the syntax of modules, without docstrings, comments and layout.

A finished stage is reused while this hash is the same: a changed statement retrains it, and a changed comment does
not. Two kinds of code decide no weight and are left out: the fields of settings classes, whose values are hashed with
the config, and the packages that only measure.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from alignlab.config import user_function
from alignlab.runtime import known_sources
from alignlab.runtime.known_sources import Source

ROOT = Path(__file__).parent.parent  # of the package; importing it by name would make every module a part of this one
# Packages and modules that report, measure or stop a run.
MEASURING = (
    "alignlab.evaluation",
    "alignlab.reports",
    "alignlab.training.gate_monitor",
    "alignlab.config.evaluation",
    "alignlab.config.sweep",
    "alignlab.config.task",
    "alignlab.config.tracking",
)
SETTINGS = ROOT / "config"  # every class below this folder holds settings, and so does the `Config` of a method


def hash_modules(*modules: str) -> str:
    """Hash modules by their dotted names, to 16 hexadecimal digits."""
    combined = hashlib.sha256()
    for module in modules:
        if file := file_of(module, root=module):
            combined.update(read_source(file).syntax.encode())
    known_sources.save()
    return combined.hexdigest()[:16]


def hash_with_imports(module: str) -> str:
    """Hash a module and the modules that it imports, at any depth: of this package, and of the user's own.

    Modules that only measure are left out, and so are other installed packages, whose versions stand for them.
    """
    return hash_modules(*imported(module))


def imported(module: str) -> list[str]:
    """List a module and those that it imports, as `hash_with_imports` follows them, in sorted order."""
    members: list[str] = []
    seen: set[str] = set()  # with names of other packages, which many files import
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if not is_measuring(name) and file_of(name, root=module):
            members.append(name)
            waiting += imports_of(name, module)
    return sorted(members)


def is_measuring(module: str) -> bool:
    """Return whether a module decides no weight."""
    return any(module == other or module.startswith(f"{other}.") for other in MEASURING)


def file_of(module: str, root: str = "") -> Path | None:
    """Return the file of a module of this package, of the user's own, or of the package of `root`; None for others."""
    if module == "alignlab" or module.startswith("alignlab."):
        return file_below(ROOT, module)
    package = module.split(".")[0]
    if package != root.split(".")[0] and user_function.is_library(package):
        return None
    spec = user_function.find(module)
    source = user_function.source(spec) if spec else None
    is_wanted = source and (package == root.split(".")[0] or not user_function.installed(source))
    return source if is_wanted else None


@cache
def file_below(root: Path, module: str) -> Path | None:
    """Return the file of a module of the package in a folder; None for a name that is no module."""
    path = root.joinpath(*module.split(".")[1:])
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return file if file.exists() else None


def imports_of(module: str, root: str) -> list[str]:
    """List the names that a module imports, modules and what they hold alike."""
    file = file_of(module, root)
    return list(user_function.full_names(read_source(file).imports, file, module)) if file else []


def read_source(file: Path) -> Source:
    """Return the syntax of a file, without docstrings and the fields of settings classes, and its imports."""
    content, all_classes = file.read_bytes(), file.is_relative_to(SETTINGS)

    def parse() -> Source:
        tree = ast.parse(content)
        imports = list(user_function.import_statements(tree))
        syntax = ast.dump(Stripped(all_classes).visit(tree))  # without positions
        return Source(hashlib.sha256(syntax.encode()).hexdigest(), imports)

    return known_sources.get(hashlib.sha256(content + bytes([all_classes])).hexdigest(), parse)


class Stripped(ast.NodeTransformer):
    """Remove docstrings, and from settings classes their fields and their checks (`faults`)."""

    def __init__(self, all_classes: bool) -> None:
        self.all_classes = all_classes  # every class of the file holds settings

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [statement for statement in node.body if not is_docstring(statement)]
        if isinstance(node, ast.ClassDef) and (self.all_classes or node.name == "Config"):
            node.body = [statement for statement in node.body if not is_field_or_check(statement)]
        return node


def is_docstring(node: ast.stmt) -> bool:
    """Return whether a statement is only a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_field_or_check(node: ast.stmt) -> bool:
    """Return whether a statement of a settings class declares a field, or is its method `faults`."""
    return isinstance(node, ast.AnnAssign) or (isinstance(node, ast.FunctionDef) and node.name == "faults")
