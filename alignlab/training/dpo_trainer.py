"""TRL's DPOTrainer on rows of token ids, with soft labels, weights and steps that any hardware repeats."""

from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer

from alignlab import losses
from alignlab.models.log_probs import fused_log_probs
from alignlab.training.reference_model import WithReference
from alignlab.training.step_weights import StepWeights


class SoftLabelDPOTrainer(StepWeights, WithReference, DPOTrainer):  # type: ignore[misc]
    """The loss is TRL's where pairs have neither labels nor weights."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.collate_pairs: Any = self.data_collator  # TRL's, which knows no labels and no weights
        self.data_collator: Any = self.collate
        self.configured_weights: list[float] = self.loss_weights  # of the preference loss and, if used, of the NLL

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collate_pairs(rows)
        columns = [name for name in ("label", "weight") if name in rows[0]]
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in columns}

    def counts(self, batches: list[Any]) -> list[list[float]]:
        """Return each micro-batch's number of chosen tokens; the NLL is the mean over those of the whole step."""
        rows = zip(batches, self.waiting, strict=True)
        return [[chosen_tokens(batch["completion_mask"]) * bool(count) for batch, count in rows]]

    def weights(self, mask: Tensor) -> list[float]:
        """Return the weights of preference loss and NLL for one micro-batch."""
        if not self.model.training:
            return self.configured_weights
        tokens = self.share(chosen_tokens(mask) * bool(self.rows_now), self.in_step[0])
        shares = self.weight(), tokens
        return [weight * share for weight, share in zip(self.configured_weights, shares, strict=False)]

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        self.loss_weights = self.weights(inputs["completion_mask"])
        if "label" not in inputs:
            return self.trl_loss(model, inputs, return_outputs)
        label, weight, mask = inputs.pop("label"), inputs.pop("weight"), inputs.pop("completion_mask")
        policy, outputs = fused_log_probs(model, inputs, mask)
        reference = self.reference_log_probs(inputs, mask)
        log_ratios = policy - reference
        chosen, rejected = (self.beta * log_ratios).chunk(2)
        preference_weight, nll_weight = [*self.loss_weights, 0.0][:2]
        nll = -policy.chunk(2)[0] * (2 * label - 1).clamp(min=0) * weight
        sizes = mask[:, 1:].sum(1)
        tokens = sizes.chunk(2)[0].sum()
        preference = (self.pair_losses(log_ratios, sizes, label) * weight).mean()
        loss = preference_weight * preference + nll_weight * nll.sum() / tokens
        self.log_pairs(policy, chosen, rejected)
        return (loss, outputs) if return_outputs else loss

    def trl_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        """Return TRL's loss; the reference is computed here, since TRL leaves the dropout of an adapter's base on."""
        mask = inputs["completion_mask"]
        reference = self.reference_log_probs({k: v for k, v in inputs.items() if k != "completion_mask"}, mask)
        names = ("ref_chosen_logps", "ref_rejected_logps")
        self.precompute_ref_logps = True  # TRL reads both columns then
        try:
            return super()._compute_loss(
                model, {**inputs, **dict(zip(names, reference.chunk(2), strict=True))}, return_outputs
            )
        finally:
            self.precompute_ref_logps = False

    def pair_losses(self, log_ratios: Tensor, sizes: Tensor, label: Tensor) -> Tensor:  # [batch]
        """Return the loss of each pair; log_ratios and sizes (in tokens) are [2 * batch], the chosen ones first."""
        if self.loss_types[0] == "ipo":
            chosen, rejected = (log_ratios / sizes).chunk(2)
            return losses.ipo(chosen - rejected, self.beta)
        chosen, rejected = (self.beta * log_ratios).chunk(2)
        if self.loss_types[0] == "hinge":
            return losses.hinge(chosen - rejected)
        return losses.preference(chosen - rejected, label)

    def log_pairs(self, policy: Tensor, chosen: Tensor, rejected: Tensor) -> None:
        """Log rewards, margins and log-probabilities under TRL's names."""
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
        return dataset  # the rows are token ids

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt_ids", "chosen_ids", "rejected_ids", "label", "weight"]


def chosen_tokens(mask: Tensor) -> int:
    """Return the number of tokens of the chosen completions, the first half of a mask [2 * batch, length]."""
    return int(mask.chunk(2)[0].sum())
