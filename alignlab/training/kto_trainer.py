"""TRL's KTOTrainer on rows of token ids, with one KL term for each optimizer step, on any hardware.

The KL term is estimated from mismatched rows: each prompt with the completion of another row, drawn anew in every epoch
(Ethayarajh et al. 2024, section 4.1). The weights are the same in all micro-batches of a step, so the mean over the
step is computed before the first of them. In evaluation it is the mean over all validation rows.
"""

from typing import Any

import torch
from torch import Tensor
from trl import KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from alignlab import losses
from alignlab.models.log_probs import fused_log_probs
from alignlab.runtime import distributed
from alignlab.training.batching import Buckets, RealRows
from alignlab.training.reference_model import WithReference
from alignlab.training.step_weights import StepWeights

INPUTS = ("input_ids", "attention_mask")


class MismatchedRows(RealRows):
    """Rows, each with the completion of another row as `KL_completion_ids`; see `partners`."""

    def __init__(self, rows: Any, order: Buckets) -> None:
        super().__init__(rows)
        self.order = order
        self.epoch, self.partner = -1, torch.empty(0)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], bool]:
        if self.epoch != self.order.epoch:
            self.epoch, self.partner = self.order.epoch, partners(len(self), self.order.generator())
        values, is_real = super().__getitem__(row)
        other = self.rows[int(self.partner[row if row >= 0 else -1 - row])]
        return {**values, "KL_completion_ids": other["completion_ids"]}, is_real


def partners(count: int, generator: torch.Generator) -> Tensor:  # [count]
    """Return another row for each row: the next one in a random order, so that each row is once a partner."""
    order = torch.randperm(count, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


class StepKTOTrainer(StepWeights, WithReference, KTOTrainer):  # type: ignore[misc]
    """The loss is eq. 8 of the paper; its KL term is a mean over all rows of the optimizer step."""

    eval_dataset: Any
    kl_of_evaluation = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, data_collator=self.collate)
        if self.eval_dataset is not None:
            order = partners(len(self.eval_dataset), torch.Generator().manual_seed(self.args.seed))
            others = [self.eval_dataset[int(row)]["completion_ids"] for row in order]
            self.eval_dataset = self.eval_dataset.add_column("KL_completion_ids", others)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = DataCollatorForUnpairedPreference(self.processing_class.pad_token_id)(rows)
        return batch | {"weight": torch.tensor([row["weight"] for row in rows])}

    def real_rows(self, rows: Any, order: Buckets) -> RealRows:
        return MismatchedRows(rows, order)

    def counts(self, batches: list[Any]) -> list[list[float]]:
        """Return the sum of each micro-batch's log-ratios of mismatched rows; the KL term is their mean."""
        self.model.eval()  # a resumed run has its random state only after this, so there is no dropout here
        rows = zip(batches, self.waiting, strict=True)
        sums = [self.mismatched(batch)[:count].sum().item() for batch, count in rows]
        self.model.train()
        return [sums]

    def mismatched(self, batch: Any) -> Tensor:  # [rows]
        """Return the log-ratios of policy and reference on prompts with the completions of other rows."""
        batch = self._prepare_inputs(batch)
        inputs = {name: batch[f"KL_{name}"] for name in INPUTS}
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.log_ratios(self.model, inputs, batch["KL_completion_mask"])[0].double()

    def log_ratios(self, model: Any, inputs: dict[str, Tensor], mask: Tensor) -> tuple[Tensor, Any]:
        """Return log(policy / reference) of each completion, [rows], and the policy's output."""
        policy, outputs = fused_log_probs(model, inputs, mask)
        return policy - self.reference_log_probs(inputs, mask), outputs

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        kl = max(0.0, self.in_step[0] / self.rows_in_step if self.model.training else self.kl_of_evaluation)
        ratios, outputs = self.log_ratios(model, {name: inputs[name] for name in INPUTS}, inputs["completion_mask"])
        desirable = inputs["label"].bool()
        loss = self.row_losses(ratios, desirable, kl, inputs["weight"]).mean() * self.weight()
        self.log_rewards(reward_sums(self.beta * ratios.detach(), desirable), kl)
        return (loss, outputs) if return_outputs else loss

    def row_losses(self, ratios: Tensor, desirable: Tensor, kl: float, weight: Tensor) -> Tensor:  # [rows]
        """Return the weighted loss of each row."""
        classes = torch.where(desirable, self.desirable_weight, self.undesirable_weight)
        return losses.kto(ratios, desirable, kl, self.beta) * classes * weight

    def evaluation_loop(self, dataloader: Any, *args: Any, **options: Any) -> Any:
        """Evaluate with the KL term of all validation rows."""
        self.model.eval()
        ratios = torch.cat([self.mismatched(batch) for batch in dataloader])
        total, count = distributed.all_reduce_sum([ratios.sum().item(), float(len(ratios))])
        self.kl_of_evaluation = total / count
        return super().evaluation_loop(dataloader, *args, **options)

    def log_rewards(self, sums: list[float], kl: float) -> None:
        """Log the KL term and the mean rewards of good and bad completions under TRL's names; see `reward_sums`."""
        good, goods, bad, bads = distributed.all_reduce_sum(sums)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["kl"].append(kl)
        if goods:
            metrics["rewards/chosen"].append(good / goods)
        if bads:
            metrics["rewards/rejected"].append(bad / bads)
        if goods and bads:
            metrics["rewards/margins"].append(good / goods - bad / bads)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # the rows are token ids

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt_ids", "completion_ids", "KL_completion_ids", "label", "weight"]


def reward_sums(rewards: Tensor, desirable: Tensor) -> list[float]:
    """Return the sum and the number of the rewards of good completions, then of bad ones."""
    kinds = rewards[desirable], rewards[~desirable]
    return [value for kind in kinds for value in (kind.sum().item(), float(len(kind)))]
