"""Judges at work: makes the judge that a config names, and writes its labels down one by one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.config import extensions
from alignlab.config.judge import AnnotatorsJudge, HumanJudge, LocalJudge, OpenaiJudge, RewardJudge
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.judges.protocol import Judge, Labelled, Reading
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import LABELS, PREFERENCES


def load_judge(config: Config, settings: Preferences, inputs: Mapping[str, Path]) -> Judge:
    """Make the judge of a config; `inputs` holds the folders of the models that it reads, by their places."""
    judge: Judge
    match settings.judge:
        case RewardJudge():
            from alignlab.judges.by_reward import ByReward
            from alignlab.rewards import load_reward

            reward = load_reward(config.reward, inputs, config.hardware, dataset=config.dataset)
            return ByReward(settings.judge.name, reward, settings.judge.batch_size)
        case AnnotatorsJudge():
            from alignlab.judges.pocket_annotators import Annotators

            seed = config.seed if settings.judge.seed is None else settings.judge.seed
            return Annotators(settings.judge.model_copy(update={"seed": seed}))
        case HumanJudge():
            from alignlab.judges.human_tables import Human

            return Human(settings.judge.path, settings.judge.criteria)
        case OpenaiJudge():
            from alignlab.judges.chat_server import Openai

            return Openai(settings.judge, config.seed)
        case LocalJudge():
            from alignlab.judges.pairwise_model import Compared
            from alignlab.models.load import load_policy

            model, tokenizer = load_policy(inputs["preferences.judge_model"], config.hardware)
            return Compared(model, tokenizer, settings.constitution, settings.judge, config.seed)
        case _:
            judge = extensions.load("judges", settings.judge.kind).load(settings.judge, config.seed)
            return judge


def joined(own: Sequence[Labelled], folders: Sequence[Path], mark: str) -> list[Labelled]:
    """Labels with the readings that runs in other folders have of the same answers, in the order of the items.

    `mark` is what the answers are known by. A labeler who is among them already is heard once.
    """
    found = {labels.id: labels for labels in own}
    for folder in folders:
        if (others := read_json(folder / PREFERENCES)["answers_mark"]) != mark:
            raise failure(
                "preferences.panel", f"{folder} is about other answers ({others}, not {mark})", "leave it out"
            )
        heard = {reading.labeler for labels in found.values() for reading in labels.readings}
        for row in read_lines(folder / LABELS):
            new = [Reading(**one) for one in row["readings"] if one["labeler"] not in heard]
            known = found.get(row["id"], Labelled(row["id"], []))
            if new:
                found[row["id"]] = known._replace(readings=[*known.readings, *new])
    return [found[name] for name in sorted(found)]


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def told(labels: Labelled) -> str:
    """A label as it is handed on: what was said, without what it took, which differs from run to run."""
    row: dict[str, Any] = labels.row()
    del row["spent"]
    return json.dumps(row, ensure_ascii=False) + "\n"
