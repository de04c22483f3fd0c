"""Judges at work: makes the judge that a config names, and writes its labels down one by one."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.config import Config
from alignlab.errors import failure
from alignlab.factory.journal import Journal
from alignlab.factory.settings import Config as Settings
from alignlab.files import read_lines
from alignlab.judge_settings import AnnotatorsJudge, HumanJudge, OpenaiJudge, RewardJudge
from alignlab.judges.local import Judge as LocalJudge
from alignlab.judges.protocol import Item, Judge, Labelled, Reading, Unlabelled, labelled

log = logging.getLogger("alignlab")
UNTOLD = 3  # reasons for missing labels that are told one by one


def load_judge(config: Config, settings: Settings, inputs: Mapping[str, Path]) -> Judge:
    """Make the judge of a config; `inputs` holds the folders of the models that it reads, by their places."""
    match settings.judge:
        case RewardJudge():
            from alignlab.judges.scored import Scored
            from alignlab.rewards import load_reward

            reward = load_reward(config.reward, inputs, config.hardware, dataset=config.dataset)
            return Scored(settings.judge.name, reward, settings.judge.batch_size)
        case AnnotatorsJudge():
            from alignlab.judges.annotators import Annotators

            seed = config.seed if settings.judge.seed is None else settings.judge.seed
            return Annotators(settings.judge.model_copy(update={"seed": seed}))
        case HumanJudge():
            from alignlab.judges.human import Human

            return Human(settings.judge.path, settings.judge.criteria)
        case OpenaiJudge():
            from alignlab.judges.openai import Openai

            return Openai(settings.judge, config.seed)
        case LocalJudge():
            from alignlab.judges.compared import Compared
            from alignlab.models import load_policy

            model, tokenizer = load_policy(inputs["preferences.judge_model"], config.hardware)
            return Compared(model, tokenizer, settings.constitution, settings.judge, config.seed)


def label_all(judge: Judge, items: Sequence[Item], journal: Journal) -> list[Unlabelled]:
    """Label what the journal does not hold yet; gives the items that could not be labelled."""
    from alignlab.progress import progress

    missing: list[Unlabelled] = []
    with progress(len(items), "judging", "prompts") as advance:
        advance(sum(item.id in journal.rows for item in items))
        for one in judge.label(items, journal.rows):
            if isinstance(one, Unlabelled):
                missing.append(one)
            elif one.id not in journal.rows:
                journal.add([one.row()])
                advance(1)
    for one in missing[:UNTOLD]:
        log.warning("no label for the answers to prompt %s: %s", one.id, one.why)
    return missing


def joined(own: Sequence[Labelled], folders: Sequence[Path], mark: str) -> list[Labelled]:
    """Labels with the readings that runs in other folders have of the same answers, in the order of the items.

    `mark` is what the answers are known by. A labeler who is among them already is heard once.
    """
    found = {labels.id: labels for labels in own}
    for folder in folders:
        if (others := read_json(folder / "preferences.json")["answers_mark"]) != mark:
            raise failure(
                "preferences.panel", f"{folder} is about other answers ({others}, not {mark})", "leave it out"
            )
        heard = {reading.labeler for labels in found.values() for reading in labels.readings}
        for row in read_lines(folder / "labels.jsonl"):
            new = [Reading(**one) for one in row["readings"] if one["labeler"] not in heard]
            known = found.get(row["id"], Labelled(row["id"], []))
            if new:
                found[row["id"]] = known._replace(readings=[*known.readings, *new])
    return [found[name] for name in sorted(found)]


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def found(journal: Journal, items: Sequence[Item]) -> list[Labelled]:
    """The labels of a journal, in the order of the items."""
    return [labelled(journal.rows[item.id]) for item in items if item.id in journal.rows]


def told(labels: Labelled) -> str:
    """A label as it is handed on: what was said, without what it took, which differs from run to run."""
    row: dict[str, Any] = labels.row()
    del row["spent"]
    return json.dumps(row, ensure_ascii=False) + "\n"
