"""The contracts of the code's structure, each as a test that fails where one is broken."""

import ast
import re
import tomllib

import pytest
from command import ROOT, config

from alignlab.config.groups import Groups
from alignlab.config.method_protocol import load_method
from alignlab.errors import Mistake
from alignlab.pipeline import workers

SOURCES = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in (ROOT / "alignlab").rglob("*.py")}
SMALL = ["model=pocket_small", "dataset=pocket_small"]


def functions():
    """Yield every function of the package with its file."""
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_files_stay_under_300_lines_and_functions_under_50():
    assert {path: count for path, text in SOURCES.items() if (count := text.count("\n")) > 300} == {}
    long = [(path, node.name) for path, node in functions() if node.end_lineno - node.lineno >= 50]
    assert long == []


def test_a_functions_docstring_begins_with_a_verb():
    noun = re.compile(r"(What|Whether|How|Which|Where|Who|Why|The|A|An|One|All|Every|So|No|Of)\b")
    assert [(str(path), node.name) for path, node in functions() if noun.match(ast.get_docstring(node) or "")] == []


def imports(text, known):
    """Return the modules of the package that a module imports, also within functions, but not for types alone."""

    class Imports(ast.NodeVisitor):
        seen: set[str] = set()

        def visit_If(self, node):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                self.generic_visit(node)

        def visit_ImportFrom(self, node):
            for alias in node.names if (node.module or "").startswith("alignlab") else ():
                inner = f"{node.module}.{alias.name}"
                self.seen = self.seen | {inner if inner in known else node.module}

    visitor = Imports()
    visitor.visit(ast.parse(text))
    return visitor.seen


def test_no_module_imports_itself_by_way_of_others():
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): text for path, text in SOURCES.items()}
    graph = {name: imports(text, modules) & {*modules} for name, text in modules.items()}
    while leaves := [name for name, others in graph.items() if not others & {*graph}]:
        for name in leaves:
            del graph[name]
    assert {*graph} == set()


def test_there_are_19_packages_and_at_most_15_layers():
    top = [path for path in (ROOT / "alignlab").iterdir() if (path / "__init__.py").exists()]
    assert len(top) <= 19
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert len(layers) <= 15


@pytest.mark.parametrize("name", Groups().options["method"])
def test_every_method_declares_what_the_protocol_names(name):
    method = load_method(name)
    assert method.config.model_fields["name"]
    assert method.makes == ("reward_model" if name in {"rm", "cai_rm", "cost"} else "policy")
    assert method.generates == (name in {"ppo", "grpo", "cai_ppo"})


@pytest.mark.parametrize("method", ["ppo", "grpo", "cai_ppo"])
def test_what_samples_while_it_trains_is_refused_under_fsdp2_whatever_its_name(method, monkeypatch):
    from alignlab.runtime import distributed

    monkeypatch.setattr(distributed, "check", lambda hardware: None)
    bound = config(f"method={method}", "hardware=fsdp2", *SMALL)
    with pytest.raises(Mistake, match=f"hardware: {method} does not run under fsdp2; use hardware=zero3"):
        workers.check(bound)


def test_no_method_measures_itself():
    names = {"measure", "measure_data"}
    methods = {path: text for path, text in SOURCES.items() if path.parts[1] == "methods"}
    assert [
        path for path, text in methods.items() if names & {n.name for n in ast.parse(text).body if hasattr(n, "name")}
    ] == []


def test_no_stage_is_known_by_its_name_outside_its_method():
    """What code does with a stage follows from what its method declares."""
    names = re.compile(r"""\.name (?:==|!=|in) [("{']*(?:sft|rm|ppo|dpo|cai)""")
    assert [str(path) for path, text in SOURCES.items() if path.parts[1] != "methods" and names.search(text)] == []


def test_no_code_asks_of_which_kind_a_judge_or_a_reward_is():
    """The settings of a kind answer for it, and its module is found by its name."""
    settings = [
        SOURCES[path] for path in SOURCES if path.name in {"judge.py", "reward.py"} and path.parts[1] == "config"
    ]
    kinds = "|".join(re.findall(r"class (\w+(?:Judge|Reward))\(", "".join(settings)))
    asked = re.compile(rf"isinstance\([^)]*\b(?:{kinds})\b|case (?:{kinds})\(")
    assert [str(path) for path, text in SOURCES.items() if asked.search(text)] == []
