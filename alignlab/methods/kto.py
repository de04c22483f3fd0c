"""Kahneman-Tversky optimisation: learn from single labels, good or bad (Ethayarajh et al. 2024).

It runs TRL's KTOTrainer on rows that are tokenised here. The reference is the model that the stage starts from: a
frozen copy, or the policy with its adapter off. The KL term, the point from which gains and losses count, is one mean
over the whole optimizer step, so micro-batches and processes do not change it.

Where good and bad labels are not equally many, the rarer kind weighs more: see `class_weights`. A label's `weight`
multiplies its loss. A completion that was cut off (`finished`) has no end token.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.method import Training
from alignlab.config.settings import Positive
from alignlab.errors import failure
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

VIEW = "labels"
NEEDS = {"policy": "sft"}
ROLES = ("policy", "reference")
ENCODER_DECODERS = False  # TRL's trainer has no path for them


class Config(Training):
    """Settings of `conf/method/kto.yaml`."""

    beta: Positive
    desirable_ratio: Positive


class ClassWeights(NamedTuple):
    """The weights of the losses of good and of bad completions."""

    desirable: float
    undesirable: float


def train(run: Run[Config]) -> None:
    """Optimise `run.inputs["policy"]` on the labels, with itself as the reference."""
    from trl import KTOConfig

    from alignlab.models.packed_log_probs import log_prob_sums
    from alignlab.models.prompt_layout import choose_layout, say_plain
    from alignlab.training.kto_trainer import StepKTOTrainer
    from alignlab.training.reference_model import load_with_reference
    from alignlab.training.step_weights import lengths
    from alignlab.training.token_trainers import TokenKTOTrainer
    from alignlab.training.trainer import common_arguments, fit, token_budget

    method = run.method
    model, tokenizer, lora, reference = load_with_reference(run)
    rows = tokenise_labels(run, tokenizer)
    budget = token_budget(run, model, max(lengths(rows["train"])))
    if budget:
        choose_layout(model, log_prob_sums)
        say_plain(method.name, model)
        if reference is not None:
            reference.packing_limit = model.packing_limit
    weights = class_weights(Counter(rows["train"]["label"]), method.desirable_ratio)
    settings = KTOConfig(
        **common_arguments(run, rows["train"], budget=budget),
        max_length=None,
        beta=method.beta,
        desirable_weight=weights.desirable,
        undesirable_weight=weights.undesirable,
        loss_type="apo_zero_unpaired",  # the KL term is ours; with its own, TRL refuses micro-batches of one row
        disable_dropout=method.dropout == 0,
    )
    trainer_class = TokenKTOTrainer if budget else StepKTOTrainer
    networks: dict[str, Any] = {"ref_model": reference, "peft_config": lora, "attributes": {"budget": budget}}
    fit(run, trainer_class, model, tokenizer, settings, rows, **networks)


def tokenise_labels(run: Run[Config], tokenizer: Any) -> "dict[str, Dataset]":
    """Return the labelled completions of both splits as columns of token ids."""
    from alignlab.models.truncation import cut_row, encode_within
    from alignlab.training.tokenised_rows import Row, tokenise

    limits = run.method.max_length, run.method.prompt_share

    def row(label: Row) -> dict[str, Any]:
        ends = [label.get("finished", True)]
        _, (encoded,) = encode_within(tokenizer, label["prompt"], [label["completion"]], *limits, ends)
        cut = cut_row(encoded, *limits)
        ids = {"prompt_ids": cut.prompt, "completion_ids": cut.completion}
        return ids | {"label": label["desirable"], "weight": float(label.get("weight", 1.0))}

    return {split: tokenise(run, VIEW, split, row) for split in ("train", "validation")}


def class_weights(counts: Mapping[bool, int], ratio: float) -> ClassWeights:
    """Return weights with (desirable weight x good) / (undesirable weight x bad) = `ratio`; the smaller weight is 1.

    Ethayarajh et al. 2024, eq. 9: the ratio should be from 1 to 4/3. Raises a `Failure` where all labels are alike.
    """
    good, bad = counts.get(True, 0), counts.get(False, 0)
    if not good or not bad:
        what = f"all {good + bad:,} labels are {'good' if good else 'bad'}"
        raise failure("dataset", what, "give labels of both kinds; kto learns from their difference")
    desirable = ratio * bad / good
    return ClassWeights(max(1.0, desirable), max(1.0, 1 / desirable))


def plan_lines(config: Any, settings: Config) -> Iterator[str]:
    """Yield what the plan says of the labels: how many are good and bad, and the weights that follow."""
    from alignlab.data import view

    counts = Counter(view(config.dataset, VIEW, "train")["desirable"])
    weights = class_weights(counts, settings.desirable_ratio)
    yield (
        f"labels: {counts[True]:,} good, {counts[False]:,} bad; a good one weighs {weights.desirable:.3g}, "
        f"a bad one {weights.undesirable:.3g} (desirable_ratio {settings.desirable_ratio:g})"
    )
