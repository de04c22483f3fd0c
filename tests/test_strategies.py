"""Strategies of hardware are found by name and asked by their records; no other code compares their names."""

import re
import sys
from pathlib import Path

import pytest
from command import ROOT, config

from alignlab.config import strategies
from alignlab.config.compose import compose
from alignlab.config.strategy import Strategy, load_strategy
from alignlab.errors import Mistake
from alignlab.pipeline.memory_per_role import trained

NAMED = re.compile(r'"(single|ddp|zero2|zero3|fsdp2)"')

ZERO1 = '''"""DeepSpeed ZeRO-1: each process has the whole model and its gradients, and a share of the optimizer."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(deepspeed_stage=1, shards_optimizer=True)
'''
ZERO1_YAML = """# DeepSpeed ZeRO-1
defaults:
  - zero2
  - _self_

strategy: zero1
deepspeed: {zero_optimization: {stage: 1}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder with a strategy of its own, from which commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name, text in {"hardware/zero1.py": ZERO1, "conf/hardware/zero1.yaml": ZERO1_YAML}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in ("hardware", "hardware.zero1"):
        sys.modules.pop(name, None)


def test_only_the_records_know_the_names():
    files = (ROOT / "alignlab").rglob("*.py")
    named = {str(file.relative_to(ROOT)) for file in files if NAMED.search(file.read_text(encoding="utf-8"))}
    assert named == {"alignlab/config/strategies/__init__.py", "alignlab/config/strategies/ddp.py"}


def test_every_strategy_of_conf_has_a_record():
    assert set(strategies.NAMES) == {"single", "ddp", "zero2", "zero3", "fsdp2"}
    assert [name for name in strategies.NAMES if load_strategy(name).deepspeed_stage] == ["zero2", "zero3"]
    options = {file.stem for file in Path(ROOT, "conf", "hardware").glob("[!_]*.yaml")}
    assert {config(f"hardware={option}").hardware.strategy for option in options} == set(strategies.NAMES)


def test_an_unknown_strategy_is_named_with_a_suggestion():
    with pytest.raises(Mistake, match=r"strategy: 'zero33' is none of 'ddp', .* or 'zero3'; did you mean 'zero3'\?"):
        config("hardware.strategy=zero33")


def test_a_strategy_of_a_users_own_is_checked_and_planned(project):
    bound = compose("hardware=zero1", "hardware.device=cpu", "hardware.processes=2", config_dir="conf")
    assert bound.hardware.strategy_record == Strategy(deepspeed_stage=1, shards_optimizer=True)
    assert trained(1000, bound.hardware, 2) == 1000 * (4 + 4) + 1000 * (8 + 4) // 2  # float32, on two devices
    with pytest.raises(Mistake, match="2 is not hardware=zero1's; use 1"):
        compose("hardware=zero1", "hardware.deepspeed.zero_optimization.stage=2", config_dir="conf")


def test_a_file_without_a_record_is_one_sentence(project):
    (project / "hardware" / "zero1.py").write_text("")
    with pytest.raises(Mistake, match=r"hardware.zero1 declares no STRATEGY; see docs/extending.md"):
        compose("hardware=zero1", config_dir="conf")
