"""Dependencies: every import is declared, every range holds the version that CI tests and has a lower end to test."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from command import ROOT
from lowest_versions import lowest_versions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED_EXTRAS = EXTRAS.keys() - {"ray", "qlora"}
COMES_WITH = {"pydantic_core": "pydantic"}  # pydantic requires one version of it and documents its ErrorDetails


def by_name(lines):
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


DECLARED = by_name(PROJECT["dependencies"])
OPTIONAL = {name: extra for extra, lines in EXTRAS.items() for name in by_name(lines)}
LOCKED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
LOCKED = {canonicalize_name(name): version for name, version in LOCKED.items()}


def imports(source: str) -> set[str]:
    """Return the top-level names that a module imports."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    chosen = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | chosen} - sys.stdlib_module_names - {"alignlab"}


def test_every_import_is_declared_or_an_extra_that_the_code_names():
    distributions = packages_distributions()
    sources = {path: path.read_text() for path in (ROOT / "alignlab").rglob("*.py")}
    everything = "".join(sources.values())
    for path, source in sources.items():
        for name in imports(source):
            names = {canonicalize_name(found) for found in distributions.get(COMES_WITH.get(name, name), [name])}
            extras = {OPTIONAL[found] for found in names & OPTIONAL.keys()}
            named = any(f"alignlab[{extra}]" in everything for extra in extras)
            assert names & DECLARED.keys() or named, f"{path.relative_to(ROOT)} imports {name}, which is not declared"


@pytest.mark.parametrize("lines", [PROJECT["dependencies"], *(EXTRAS[extra] for extra in sorted(LOCKED_EXTRAS))])
def test_the_locked_version_lies_in_the_range(lines):
    for name, requirement in by_name(lines).items():
        assert LOCKED[name] in requirement.specifier, requirement


def test_a_range_has_two_ends():
    for requirement in DECLARED.values():
        assert {part.operator for part in requirement.specifier} == {">=", "<"}, requirement


def test_the_lowest_versions_are_the_lower_ends():
    lowest = lowest_versions()
    assert DECLARED.keys() <= lowest.keys()
    assert lowest["torch"] in DECLARED["torch"].specifier
    assert all(f">={lowest[name]}," in f"{PROJECT['dependencies']}" for name in DECLARED)


def test_the_image_installs_the_locked_versions_by_hash():
    text = (ROOT / "deploy" / "requirements.txt").read_text()
    pinned = re.findall(
        r"^([\w.-]+)==([^\s;]+)[^\\\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    assert len(pinned) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE))
    versions = {canonicalize_name(name): version for name, version, _ in pinned}
    assert DECLARED.keys() | {"deepspeed", "setuptools"} <= versions.keys()
    assert {name: version for name, version in versions.items() if LOCKED.get(name, version) != version} == {}
    assert not re.search(r"://|--index|--find", text)
