"""Measure what a model does on prompts that no stage has trained on.

`evaluate` completes the held-out prompts once, and every measurement of the config (see `protocol`) scores the
completions, or the model itself. `measurements` compares a model's scores with those of the models that it came from,
in the form of `result.json`. All models of a run complete the same prompts from the same random streams, so that they
are compared prompt by prompt.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.schema import Config
from alignlab.evaluation.protocol import Sample, Subject, measurements_with_rows
from alignlab.evaluation.scores import Scores as Scores
from alignlab.evaluation.scores import measurements as measurements
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Evaluated(NamedTuple):
    """The measurements of one policy, by name, and its completions.

    `samples` complete the held-out prompts, and `own_samples` the prompts that a measurement brought along.
    """

    scores: dict[str, Scores]
    samples: list[Sample]
    own_samples: list[Sample]

    @property
    def all_samples(self) -> list[Sample]:
        """Return the completions of both kinds of prompts."""
        return [*self.samples, *self.own_samples]


def evaluate(policy: Path, config: Config, reward_model: Path | None, seed: int) -> Evaluated:
    """Complete the held-out prompts with the model in a folder, and measure it."""
    from alignlab.models.load import load_policy

    model, tokenizer = load_policy(policy, config.hardware)
    samples = draw_samples(model, tokenizer, config, seed)
    subject = Subject(model, tokenizer, samples, config, reward_model)
    chosen = measurements_with_rows(config, "policy")
    measured = [item for one in chosen for item in one.measure(subject._replace(settings=one.settings))]
    scores = {item.name: item for item in measured if isinstance(item, Scores)}
    return Evaluated(scores, samples, [item for item in measured if isinstance(item, Sample)])


def draw_samples(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", config: Config, seed: int
) -> list[Sample]:
    """Sample one completion for each held-out prompt that is measured."""
    from alignlab.data import view
    from alignlab.evaluation.protocol import count_rows
    from alignlab.models.sampling import Sampling, sample

    held_out = view(config.dataset, "prompts", config.evaluation.split) if count_rows(config, "prompts") else []
    rows = select_per_kind(list(held_out), config.evaluation.prompts)
    if not rows:
        return []
    settings = config.evaluation
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, settings.batch_size)
    completions = sample(model, tokenizer, [row["prompt"] for row in rows], sampling, seed)
    return [
        Sample(row["id"], row["kind"], row["prompt"], completion.text, completion.finished, len(completion.tokens))
        for row, completion in zip(rows, completions, strict=True)
    ]


def select_per_kind(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Select at most `count` rows of each kind by the hash of their ids, so that their order does not matter.

    Rows get the kind and the id that they may lack: no kind is "", and the id is the hash of the row's fields.
    """
    named = [{**row, "kind": row.get("kind") or "", "id": row.get("id") or digest(row)} for row in rows]
    unique = {row["id"]: row for row in named}.values()
    taken: Counter[str] = Counter()
    selected = []
    for row in sorted(unique, key=lambda row: digest(row["id"])):
        taken[row["kind"]] += 1
        if taken[row["kind"]] <= count:
            selected.append(row)
    return sorted(selected, key=lambda row: row["kind"])
