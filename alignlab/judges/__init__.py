"""Judges: which of several answers to a prompt is better.

Each kind of `conf/judge/` is a module of this package with a function `load(settings, context)`, which returns a judge
as `alignlab.judges.protocol` defines it.
"""

from typing import Any

from alignlab.config import extensions
from alignlab.config.judge import JudgeSettings
from alignlab.errors import failure
from alignlab.judges.protocol import Context, Judge, PairJudge


def load(settings: JudgeSettings, context: Context) -> Judge:
    """Load a judge by the module of its kind."""
    module: Any = extensions.load("judges", settings.kind)
    judge: Judge = module.load(settings, context)
    return judge


def load_pair_judge(settings: JudgeSettings, context: Context) -> PairJudge:
    """Load a judge that compares two answers under a principle; raises a `Failure` for one that cannot."""
    judge: Any = load(settings, context)
    if not hasattr(judge, "compare"):
        what = f"{settings.kind} does not compare two answers under a principle"
        raise failure("judge", what, "use judge=choice, critique, both or openai")
    pair_judge: PairJudge = judge
    return pair_judge
