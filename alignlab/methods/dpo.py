"""Direct preference optimisation: learn from pairs, without a reward model (Rafailov et al. 2023).

TRL's DPOTrainer on rows that are tokenised here. The reference is the model that the stage starts from: a frozen
copy, or the same weights with the adapter off where an adapter is trained. `nll_weight` adds the chosen answers'
mean negative log-likelihood (Pang et al. 2024, eq. 1), which keeps them from becoming unlikely too.

Where pairs have a `label`, it is the probability that the chosen answer is the better one, and the loss that of
both orders, weighted by it. `label_smoothing` is the same for all pairs alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from alignlab.config.method import Training
from alignlab.config.settings import NotNegative, Positive, Share
from alignlab.errors import Fault, failure
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from trl import DPOTrainer

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
            yield Fault(
                "label_smoothing", f"{self.label_smoothing:g} says that the labels tell nothing", "use less than 0.5"
            )


def train(run: Run[Config]) -> None:
    """Optimise `run.inputs["policy"]` on the pairs, with itself as the reference."""
    from trl import DPOConfig

    from alignlab.chat import encode
    from alignlab.models.load import adapter, attention, load_trainable
    from alignlab.training.trainer import Row, arguments, fit, shorten, tokenised

    method = run.method
    model, tokenizer = load_trainable(run.inputs["policy"], method.dropout, attention(run.config))
    if model.config.is_encoder_decoder:
        raise failure(str(run.inputs["policy"]), "dpo does not train encoder-decoders", "use method=sft or method=rm")
    lora = adapter(run.config)
    reference = None if lora else load_trainable(run.inputs["policy"], 0.0, attention(run.config))[0]

    def row(pair: Row) -> dict[str, Any]:
        chosen, rejected = (encode(tokenizer, pair["prompt"], pair[side]) for side in ("chosen", "rejected"))
        longest = max(chosen, rejected, key=lambda encoded: len(encoded.completion))
        prompt = shorten(longest, method.max_length).prompt
        room = method.max_length - len(prompt)
        return {
            "prompt_ids": prompt,
            "chosen_ids": chosen.completion[:room],
            "rejected_ids": rejected.completion[:room],
            **soft_label(pair, method.label_smoothing),
        }

    rows = {split: tokenised(run, VIEW, split, row) for split in ("train", "validation")}
    if method.loss_type != "sigmoid" and any("label" in split.column_names for split in rows.values()):
        what = f"{method.loss_type} has no meaning for pairs whose labels are soft"
        raise failure("method.loss_type", what, "use sigmoid, or leave the column label out of the data")
    with_nll = method.nll_weight > 0
    settings = DPOConfig(
        **arguments(run, rows["train"]),
        max_length=None,
        beta=method.beta,
        loss_type=[method.loss_type, *(["sft"] if with_nll else [])],
        loss_weights=[1.0, method.nll_weight] if with_nll else None,
        disable_dropout=method.dropout == 0,
    )
    fit(run, soft_trainer(), model, tokenizer, settings, rows, ref_model=reference, peft_config=lora)


def soft_label(pair: dict[str, Any], smoothing: float) -> dict[str, float]:
    """The probability that the chosen answer is the better one, where it is not 1."""
    if "label" not in pair and not smoothing:
        return {}
    label = float(pair.get("label", 1.0))
    return {"label": label * (1 - smoothing) + (1 - label) * smoothing}


def soft_trainer() -> "type[DPOTrainer]":
    """Make TRL's DPOTrainer take rows that are token ids already, and soft labels."""
    import torch
    from trl import DPOTrainer

    from alignlab import losses
    from alignlab.training.step_weights import Steps

    class SoftTrainer(Steps, DPOTrainer):  # type: ignore[misc]
        """The loss is TRL's where pairs have no label."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.plain_collator: Any = self.data_collator
            self.data_collator: Any = self.collate
            self.own_weights: list[float] = self.loss_weights

        def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = self.plain_collator(rows)
            labels = {"label": torch.tensor([row["label"] for row in rows])} if "label" in rows[0] else {}
            return batch | labels

        def counts(self, batches: list[Any]) -> list[list[float]]:
            """The chosen answers' tokens: the mean of their likelihoods is over all that are in the step."""
            rows = zip(batches, self.waiting, strict=True)
            return [[chosen_tokens(batch["completion_mask"]) * bool(count) for batch, count in rows]]

        def weights(self, mask: Any) -> list[float]:
            """What the preference and the likelihood of a piece count."""
            if not self.model.training:
                return self.own_weights
            tokens = self.part(chosen_tokens(mask) * bool(self.rows_now), self.in_step[0])
            return [own * part for own, part in zip(self.own_weights, (self.weight(), tokens), strict=False)]

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            self.loss_weights = self.weights(inputs["completion_mask"])
            if "label" not in inputs:
                return super()._compute_loss(model, inputs, return_outputs)
            label = inputs.pop("label")
            mask = inputs.pop("completion_mask")
            policy, outputs = answer_logps(model, inputs, mask)
            with torch.no_grad(), self.as_reference() as reference:
                fixed = answer_logps(reference, inputs, mask)[0]
            chosen, rejected = (self.beta * (policy - fixed)).chunk(2)
            preferred, likely = [*self.loss_weights, 0.0][:2]
            unlikely = -policy.chunk(2)[0] * (2 * label - 1).clamp(min=0)
            tokens = mask[:, 1:].sum(1).chunk(2)[0].sum()
            loss = preferred * losses.preference(chosen - rejected, label).mean() + likely * unlikely.sum() / tokens
            self.note(policy, chosen, rejected)
            return (loss, outputs) if return_outputs else loss

        @contextmanager
        def as_reference(self) -> Iterator[Any]:
            """The model that the stage started from: the frozen copy, or this one with its adapter off."""
            if self.ref_model is not None:
                yield self.ref_model
                return
            inner = self.accelerator.unwrap_model(self.model)
            with inner.disable_adapter():
                yield self.model

        def note(self, policy: Any, chosen: Any, rejected: Any) -> None:
            """Put aside what the curves show."""
            metrics = self._metrics["train" if self.model.training else "eval"]
            logps = policy.detach().chunk(2)
            for name, value in (
                ("rewards/chosen", chosen),
                ("rewards/rejected", rejected),
                ("rewards/margins", chosen - rejected),
                ("rewards/accuracies", (chosen > rejected).float()),
                ("logps/chosen", logps[0]),
                ("logps/rejected", logps[1]),
            ):
                metrics[name].append(self.accelerator.gather(value.detach().mean()).mean().item())

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["prompt_ids", "chosen_ids", "rejected_ids", "label"]

    return SoftTrainer


def chosen_tokens(mask: Any) -> int:
    """Count the chosen answers' tokens; they stand in the first half of a mask [2 * batch, length]."""
    return int(mask.chunk(2)[0].sum())


def answer_logps(model: Any, inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Log-probabilities of the completions, [2 * batch], chosen ones first; and what the model put out."""
    outputs = model(
        **inputs, use_cache=False, labels=inputs["input_ids"].masked_fill(mask == 0, -100), fused_lm_head=True
    )
    return outputs.log_probs[:, -(mask.shape[1] - 1) :].sum(1), outputs
