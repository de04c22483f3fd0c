"""Direct preference optimisation: learn from pairs, without a reward model (Rafailov et al. 2023).

It runs TRL's DPOTrainer on rows that are tokenised here. The reference is the model that the stage starts from: a
frozen copy, or the policy with its adapter off. `nll_weight` adds the mean negative log-likelihood of the chosen
completions (Pang et al. 2024, eq. 1), which keeps their probability from falling.

A pair's `label` is the probability that the chosen completion is the better one: the loss is the mean of both orders,
weighted by it. `label_smoothing` does the same for all pairs. A pair's `weight` multiplies its loss. A completion that
was cut off (`chosen_finished`, `rejected_finished`) has no end token.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from alignlab.config.method import Training
from alignlab.config.settings import NotNegative, Positive, Share
from alignlab.errors import Fault, failure
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOConfig

VIEW = "pairs"
NEEDS = {"policy": "sft"}
ROLES = ("policy", "reference")
ENCODER_DECODERS = False  # TRL's trainer has no path for them


class Config(Training):
    """Settings of `conf/method/dpo.yaml`."""

    beta: Positive
    loss_type: Literal["sigmoid", "ipo", "hinge"]
    label_smoothing: Share
    nll_weight: NotNegative

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.label_smoothing and self.loss_type != "sigmoid":
            yield Fault("label_smoothing", f"has no meaning with loss_type={self.loss_type}", "use loss_type=sigmoid")
        if self.label_smoothing >= 0.5:
            what = f"{self.label_smoothing:g} makes the labels carry no information"
            yield Fault("label_smoothing", what, "use less than 0.5")


def train(run: Run[Config]) -> None:
    """Optimise `run.inputs["policy"]` on the pairs, with itself as the reference."""
    from alignlab.models.packed_log_probs import log_prob_sums
    from alignlab.models.prompt_layout import choose_layout, say_plain
    from alignlab.training.dpo_trainer import SoftLabelDPOTrainer
    from alignlab.training.reference_model import load_with_reference
    from alignlab.training.reference_table import reference_table
    from alignlab.training.step_weights import lengths
    from alignlab.training.token_trainers import TokenDPOTrainer
    from alignlab.training.trainer import fit, token_budget

    model, tokenizer, lora, reference = load_with_reference(run)
    rows = tokenise_pairs(run, tokenizer)
    budget = token_budget(run, model, max(lengths(rows["train"])))
    attributes: dict[str, Any] = {"budget": budget}
    settings = training_arguments(run, rows["train"], budget)
    if budget:
        choose_layout(model, log_prob_sums)
        say_plain(run.method.name, model)
        if reference is not None:
            reference.packing_limit = model.packing_limit
        attributes["reference_table"] = reference_table(run, rows["train"], budget)
        rows["train"] = rows["train"].add_column("number", range(len(rows["train"])))  # type: ignore[call-arg]
    trainer_class = TokenDPOTrainer if budget else SoftLabelDPOTrainer
    networks: dict[str, Any] = {"ref_model": reference, "peft_config": lora, "attributes": attributes}
    fit(run, trainer_class, model, tokenizer, settings, rows, **networks)


def tokenise_pairs(run: Run[Config], tokenizer: Any) -> "dict[str, Dataset]":
    """Return the pairs of both splits as columns of token ids; both completions of a pair see the same prompt."""
    from alignlab.models.truncation import encode_pair
    from alignlab.training.tokenised_rows import Row, distinct_pairs, tokenise

    method = run.method

    def row(pair: Row) -> dict[str, Any]:
        prompt, chosen, rejected = encode_pair(tokenizer, pair, method.max_length, method.prompt_share)
        ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        return ids | label_and_weight(pair, method.label_smoothing)

    rows = {
        split: distinct_pairs(tokenise(run, VIEW, split, row), lambda pair: (pair["chosen_ids"], pair["rejected_ids"]))
        for split in ("train", "validation")
    }
    if method.loss_type != "sigmoid" and any(min(split["label"]) < 1 for split in rows.values() if has_labels(split)):
        what = f"{method.loss_type} has no meaning for pairs whose labels are soft"
        raise failure("method.loss_type", what, "use sigmoid, or leave the column label out of the data")
    return rows


def training_arguments(run: Run[Config], rows: "Dataset", budget: int | None) -> "DPOConfig":
    """Return TRL's arguments; the NLL of the chosen completions is TRL's loss `sft`."""
    from trl import DPOConfig

    from alignlab.training.trainer import common_arguments

    method, with_nll = run.method, run.method.nll_weight > 0
    return DPOConfig(
        **common_arguments(run, rows, budget=budget),
        max_length=None,
        beta=method.beta,
        loss_type=[method.loss_type, *(["sft"] if with_nll else [])],
        loss_weights=[1.0, method.nll_weight] if with_nll else None,
        disable_dropout=method.dropout == 0,
    )


def has_labels(rows: "Dataset") -> bool:
    """Return whether rows have a column of labels, and a row."""
    return len(rows) > 0 and "label" in rows.column_names


def label_and_weight(pair: dict[str, Any], smoothing: float) -> dict[str, float]:
    """Return the columns `label`, the probability that the chosen completion is better, and `weight`.

    There are none where each would be 1 in every row: TRL's own loss is used then.
    """
    if not smoothing and "label" not in pair and "weight" not in pair:
        return {}
    label = float(pair.get("label", 1.0))
    return {"label": label * (1 - smoothing) + (1 - label) * smoothing, "weight": float(pair.get("weight", 1.0))}
