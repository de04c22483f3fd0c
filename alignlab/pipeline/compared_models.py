"""Measure several finished models on the same held-out prompts, each of them once.

Replies that an earlier run has recorded are taken from the cache (`alignlab.evaluation.replies`): a model that was
measured on these prompts before is not loaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.models import references
from alignlab.models.references import Source
from alignlab.pipeline.language_models import language_model
from alignlab.pipeline.measure_stage import record_lines
from alignlab.pipeline.prepare_inputs import prepare_data
from alignlab.pipeline.provenance import record
from alignlab.pipeline.run_folder import (
    COMPARISON_PAGE,
    FLIPPED,
    PROVENANCE,
    RECORDS,
    Result,
    write_json,
    write_lines,
    write_plan,
    write_result,
)

if TYPE_CHECKING:
    from alignlab.evaluation import Evaluated
    from alignlab.evaluation.metrics import Scores
    from alignlab.evaluation.scores import Measurement


class ComparedModel(NamedTuple):
    """A model that was measured: its short name, where it lies, the hash of its files, and its scores."""

    name: str
    source: Source
    fingerprint: str
    evaluated: "Evaluated"


class Flipped(TypedDict):
    """A record whose value differs between two models; `gain` is positive where the later one is better."""

    measure: str
    id: str
    kind: str
    before: float
    after: float
    gain: float
    prompt: list[Turn]
    shown_before: str
    shown_after: str


def measure_models(config: Config, named: Sequence[tuple[str, str]], names: Sequence[str]) -> list[ComparedModel]:
    """Measure models, which pairs of a setting and its value name, by every measurement of the config.

    `names` are what they are called, and the names of their folders.
    """
    from alignlab.evaluation import evaluate
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.subjects import LanguageModel

    prepare_data(config)
    scorer = config.evaluation.reward_model
    reward_model = references.scorer_source(config, "evaluation.reward_model", scorer).path if scorer else None
    measured = []
    sources = [language_model(config, setting, value) for setting, value in named]
    for name, source in zip(names, sources, strict=True):
        subject = LanguageModel(source.path, config.hardware)
        evaluated = evaluate(Context(config, subject, reward_model))
        measured.append(ComparedModel(name, source, subject.fingerprint, evaluated))
    return measured


def short_names(values: Sequence[str]) -> list[str]:
    """Return a name for each model that is short, different from the others, and the name of a folder."""
    names: list[str] = []
    for value in values:
        path = Path(value).resolve() if Path(value).is_symlink() else Path(value)
        parts = [part for part in path.parts if part not in {"model", "/"}]
        last = "-".join(parts[-2:] if parts and parts[-1].isdigit() else parts[-1:])
        name = re.sub(r"[^\w.-]", "-", last).strip(".-") or "model"
        numbered = (f"{name}-{number}" for number in count(2))
        names.append(next(one for one in chain([name], numbered) if one not in names))
    return names


def write_comparison(
    config: Config, models: Sequence[ComparedModel], seconds: float, folder: Path, page: str = COMPARISON_PAGE
) -> None:
    """Write a folder for each model: its measurements beside the first model's, its records, and what has changed."""
    from alignlab.evaluation.subjects import code_hash

    for model, rows in zip(models, compare(config, models), strict=True):
        place = folder / model.name
        write_lines(place / RECORDS, record_lines(model.evaluated))
        write_lines(place / FLIPPED, flipped(models[0], model))
        facts = record(config, model.name, model.fingerprint, {"model": model.source}, code_hash(), round(seconds, 1))
        write_json(place / PROVENANCE, facts)
        result: Result = {
            "stage": model.name,
            "seed": config.seed,
            "measurements": rows,
            "seconds": round(seconds, 1),
            "model": str(model.source.path),
            "report": str(folder / page),
        }
        write_result(result, place)
    write_result(result, folder)
    write_plan(folder, [{"stage": model.name, "action": "ran"} for model in models])


def compare(config: Config, models: "Sequence[ComparedModel]") -> "list[list[Measurement]]":
    """Return the measurements of each model, with the paired differences to the first one.

    The p-values are corrected for the primary differences of all models together (Holm).
    """
    from alignlab.evaluation.scores import correct, measurement

    first = models[0].evaluated.scores
    rows = [
        [
            measurement(scores, first.get(name) if number else None, None, config.evaluation)
            for name, scores in model.evaluated.scores.items()
        ]
        for number, model in enumerate(models)
    ]
    correct([row for of_model in rows for row in of_model], config.evaluation)
    return rows


def flipped(before: ComparedModel, after: ComparedModel) -> Iterator[Flipped]:
    """Yield the records whose value of a measure with a direction has changed, the largest changes first."""
    texts = [{row.id: row for rows in model.evaluated.records.values() for row in rows} for model in (before, after)]
    prompts = {sample.id: sample.prompt for sample in after.evaluated.samples}
    earlier = before.evaluated.scores
    for name, now in counted(after.evaluated.scores).items():
        if name not in earlier:  # a measure that only one model has
            continue
        then = earlier[name]
        sign = 1 if now.metric.better == "higher" else -1
        rows = zip(now.ids, then.values, now.values, strict=True)
        changed = [(sign * (new - old), key, old, new) for key, old, new in rows if new != old]
        for gain, key, old, new in sorted(changed, key=lambda row: (-abs(row[0]), row[1])):
            yield {
                "measure": name,
                "id": key,
                "kind": texts[1][key].kind,
                "before": float(old),
                "after": float(new),
                "gain": float(gain),
                "prompt": prompts.get(key, []),
                "shown_before": texts[0][key].shown,
                "shown_after": texts[1][key].shown,
            }


def counted(scores: "Mapping[str, Scores]") -> "dict[str, Scores]":
    """Return the measures with a direction that are a mean of their first column; those by kind repeat others."""
    return {
        name: one
        for name, one in scores.items()
        if one.metric.better != "neither" and name == one.metric.name and one.metric.columns[0] == name
    }
