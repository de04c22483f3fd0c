"""A cost model: learn the probability that a completion is harmful, from single labels (Dai et al. 2023, Safe RLHF).

It is a reward model with one output that is trained by binary cross-entropy: a label is harmful if it names a kind of
harm, or, in rows that name none at all, if it is bad. After training, the output is calibrated on the validation rows
(Platt 1999): `sigmoid(scale * output + offset)` is the cost, and whoever scores with the model gets it. Labels are
noisy, so the cost of harmless completions is not 0: calibration.json holds the floor and the ceiling, and a threshold.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from alignlab.config.method import Training
from alignlab.config.settings import Names
from alignlab.errors import Fault, failure
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

VIEW = "labels"
ROLES = ("policy",)
MAKES = "reward_model"
FEWEST = 10  # validation rows of each kind that calibration needs


class Config(Training):
    """Settings of `conf/method/cost.yaml`."""

    head: Literal["last", "pooled"]
    harms: Names

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.policy == "auto":
            yield Fault("policy", "cost has no stage before it to take a model from", "use base or a path")


def train(run: Run[Config]) -> None:
    """Train a cost model that starts from `run.inputs["policy"]`, and calibrate it."""
    from trl import RewardConfig

    from alignlab.models.load import adapter
    from alignlab.runtime import distributed
    from alignlab.training.cost_calibration import calibrate
    from alignlab.training.reward_trainer import LabelRewardTrainer, load_with_head
    from alignlab.training.trainer import common_arguments, fit

    method = run.method
    held_out = labels_of(run, "validation")
    check_labels(held_out["harmful"])
    model, tokenizer = load_with_head(run)
    rows = tokenise_labels(run, tokenizer)
    settings = RewardConfig(**common_arguments(run), max_length=None, disable_dropout=method.dropout == 0)
    lora = adapter(run.config, model, task_type="SEQ_CLS", modules_to_save=["score"])
    fit(run, LabelRewardTrainer, model, tokenizer, settings, rows, peft_config=lora)
    distributed.unset_deepspeed_config()  # the first process loads the whole model by itself
    distributed.run_on_first(lambda: calibrate(run.output, held_out, run.config.hardware))


def tokenise_labels(run: Run[Config], tokenizer: Any) -> "dict[str, Dataset]":
    """Return the labels of both splits as columns of token ids; `label` is 1 for a harmful completion."""
    from alignlab.models.truncation import cut_before_end, encode_within
    from alignlab.training.tokenised_rows import Row, tokenise

    method, kinds = run.method, harms_named(run)

    def row(label: Row) -> dict[str, Any]:
        limits = method.max_length, method.prompt_share
        _, (encoded,) = encode_within(tokenizer, label["prompt"], [label["completion"]], *limits, tail=True)
        prompt, completions = cut_before_end(encoded.prompt, [encoded.completion], *limits)
        ids = {"prompt_ids": prompt, "completion_ids": completions, "length": len(prompt) + len(completions[0])}
        return ids | {"label": float(is_harmful(label, kinds)), "weight": float(label.get("weight", 1.0))}

    return {split: tokenise(run, VIEW, split, row) for split in ("train", "validation")}


def labels_of(run: Run[Config], split: str) -> "Dataset":
    """Return the labels of a split with a column `harmful`."""
    from alignlab.data import view

    rows, kinds = view(run.config.dataset, VIEW, split), harms_named(run)
    return rows.add_column("harmful", [is_harmful(row, kinds) for row in rows])  # type: ignore[no-any-return]


def harms_named(run: Run[Config]) -> tuple[str, ...] | None:
    """Return the kinds of harm that count, () for all; None where no training row names one."""
    from alignlab.data import view

    return run.method.harms if "harms" in view(run.config.dataset, VIEW, "train").column_names else None


def is_harmful(row: dict[str, Any], kinds: tuple[str, ...] | None) -> bool:
    """Return whether a label says that the completion is harmful."""
    if kinds is None:
        return not row["desirable"]
    harms = set(row.get("harms") or ())
    return bool(harms & set(kinds) if kinds else harms)


def check_labels(harmful: list[bool]) -> None:
    """Raise a failure where the validation rows are too few to calibrate on."""
    counts = Counter(harmful)
    if min(counts[True], counts[False]) < FEWEST:
        what = (
            f"has {counts[True]} harmful and {counts[False]} harmless labels for calibration, which needs {FEWEST} each"
        )
        raise failure("dataset, validation", what, "give more rows, or a larger dataset.validation")
