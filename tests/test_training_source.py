"""How the training code is written: PPO is one function to read, and a trainer's attributes are declared."""

import ast

import pytest
from command import ROOT

TRAINING = ROOT / "alignlab" / "training"
CLASSES = [
    pytest.param(node, id=f"{file.relative_to(TRAINING)}:{node.name}")
    for file in sorted(TRAINING.rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
]


def assigned(function):
    """The names x of every `self.x = …` in a function."""
    targets = (target for node in ast.walk(function) for target in targets_of(node))
    return {target.attr for target in targets if isinstance(target, ast.Attribute) and is_self(target.value)}


def targets_of(node):
    if isinstance(node, ast.Assign):
        return [inner for target in node.targets for inner in ast.walk(target)]
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def is_self(node):
    return isinstance(node, ast.Name) and node.id == "self"


@pytest.mark.parametrize("node", CLASSES)
def test_an_attribute_is_declared_in_init_or_in_the_class(node):
    functions = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
    declared = {inner.target.id for inner in node.body if isinstance(inner, ast.AnnAssign)}
    declared |= {name.id for inner in node.body if isinstance(inner, ast.Assign) for name in inner.targets}
    for function in functions:
        if function.name == "__init__":
            declared |= assigned(function)
    inherited = {
        "_signature_columns",
        "_metrics",
        "_total_train_tokens",
        "args",
        "precompute_ref_logps",
        "model",
        "data_collator",
        "loss_weights",
    }  # attributes of the trainers of transformers and TRL
    for function in functions:
        assert assigned(function) - declared - inherited == set(), function.name


def test_ppo_collects_scores_measures_and_learns_in_one_function_of_forty_lines():
    tree = ast.parse((TRAINING / "ppo" / "trainer.py").read_text(encoding="utf-8"))
    (rollout,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "rollout")
    assert rollout.end_lineno - rollout.lineno < 40
    calls = [
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in sorted(
            (node for node in ast.walk(rollout) if isinstance(node, ast.Call)), key=lambda call: call.lineno
        )
    ]
    steps = ["collect", "score", "measure", "build_experience", "MicroBatch"]
    assert [call for call in calls if call in steps] == steps


def test_files_are_under_300_lines_and_functions_under_40():
    package = TRAINING.parent
    for file in (*TRAINING.rglob("*.py"), *(package / "models").rglob("*.py"), *(package / "methods").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        assert source.count("\n") < 300, file
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, (file, node.name)
