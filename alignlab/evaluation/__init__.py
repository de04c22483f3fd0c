"""What a model does on prompts that no stage has trained on.

`evaluate` answers the held-out prompts once, and each file of this package that holds `measure` makes scores of
the answers (or of the model itself). `measurements` sets a model's scores beside those of the models it came from,
in the form of `result.json`. The prompts and the luck of sampling are the same for every model of a run, so that
models are compared prompt by prompt.

A measure has a name, its file's. `applies` says why it does not go with a config, or nothing; `evaluation.measures`
left at null takes every one that applies, and a reward is measured where there is a reward model.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.evaluation.scores import Scores as Scores
from alignlab.evaluation.scores import measurements as measurements
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MEASURES = ("gold", "toxicity", "reward", "rouge", "perplexity", "length")  # in the order in which reports show them


class Sample(NamedTuple):
    """A held-out prompt and what a model answered."""

    id: str
    kind: str
    prompt: list[Turn]
    completion: str
    finished: bool
    tokens: int


class Subject(NamedTuple):
    """What a measurement is handed: a model and its answers, and what they may be held against."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    samples: list[Sample]
    config: Config
    reward_model: Path | None


class Evaluated(NamedTuple):
    """All that was found out about one model."""

    scores: dict[str, Scores]
    samples: list[Sample]


def evaluate(policy: Path, config: Config, reward_model: Path | None, seed: int) -> Evaluated:
    """Answer the held-out prompts with the model in a folder, and measure it."""
    from alignlab.models.load import load_policy

    model, tokenizer = load_policy(policy, config.hardware)
    samples = answers(model, tokenizer, config, seed)
    subject = Subject(model, tokenizer, samples, config, reward_model)
    scores = [score for name in chosen(config, reward_model) for score in measure(name).measure(subject)]
    return Evaluated({score.name: score for score in scores}, samples)


def answers(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", config: Config, seed: int) -> list[Sample]:
    """One completion for each held-out prompt that is looked at."""
    from alignlab.data import view
    from alignlab.models.sampling import Sampling, sample

    rows = spread(list(view(config.dataset, "prompts", config.evaluation.split)), config.evaluation.prompts)
    settings = config.evaluation
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, settings.batch_size)
    completions = sample(model, tokenizer, [row["prompt"] for row in rows], sampling, seed)
    return [
        Sample(row["id"], row["kind"], row["prompt"], answer.text, answer.finished, len(answer.tokens))
        for row, answer in zip(rows, completions, strict=True)
    ]


def spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Take at most `count` rows of each kind, by lot: which ones depends on the rows alone, not on their order.

    Rows get the kind and the id that they may lack: no kind is "", and the id is the hash of what the row says.
    """
    named = [{**row, "kind": row.get("kind") or "", "id": row.get("id") or digest(row)} for row in rows]
    unique = {row["id"]: row for row in named}.values()
    taken: dict[str, int] = {}
    chosen = []
    for row in sorted(unique, key=lambda row: digest(row["id"])):
        taken[row["kind"]] = taken.get(row["kind"], 0) + 1
        if taken[row["kind"]] <= count:
            chosen.append(row)
    return sorted(chosen, key=lambda row: row["kind"])


def chosen(config: Config, reward_model: Path | None) -> list[str]:
    """The measures to take: those that were asked for, or all that apply."""
    wanted = config.evaluation.measures if config.evaluation.measures is not None else MEASURES
    fit = [name for name in MEASURES if name in wanted and not measure(name).applies(config)]
    return [name for name in fit if name != "reward" or reward_model is not None]


def measure(name: str) -> Any:
    """The module of a measure."""
    return import_module(f"alignlab.evaluation.measures.{name}")
