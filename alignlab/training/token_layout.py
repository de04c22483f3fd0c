"""Optimizer steps laid out by tokens: rows of similar length share a micro-batch, and padding costs what it costs.

The rows of a step are those of the layout by rows. Each row's part of the step's loss is the same, whatever
micro-batch it is in: a micro-batch's loss is a sum over its rows, divided by the rows or tokens of the whole step.
Losses and gradients differ from those of the layout by rows only by rounding. `hardware.layout=rows` turns it off.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.config.hardware import Hardware
from alignlab.runtime import distributed
from alignlab.training.step_weights import StepWeights

OVERHEAD = {"cpu": 96, "cuda": 4096}  # tokens that could be computed in the time that one more micro-batch takes

Sums = dict[str, tuple[Tensor, int]]  # a metric's sum over a micro-batch, and the count


def applies(hardware: Hardware, model: Any) -> bool:
    """Return whether steps are laid out by tokens: not by several processes, sharded models, or losses of routers."""
    is_plain = distributed.world_size() == 1 and not hardware.deepspeed and not hardware.fsdp
    routes = getattr(model.config.get_text_config(), "output_router_logits", False)
    return hardware.layout == "tokens" and is_plain and not routes


def lay_out(sizes: Sequence[int], budget: int, overhead: int) -> list[list[int]]:
    """Return the rows of each micro-batch, which has at most `budget` tokens with its padding, or one row.

    Among all ways to cut the rows, sorted by size, it is the one with the fewest tokens, padding included, where each
    micro-batch counts as `overhead` tokens more.
    """
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    best: list[tuple[int, int]] = [(0, 0)]  # the cost of the first n rows, and where their last micro-batch begins
    for end in range(1, len(order) + 1):
        longest = sizes[order[end - 1]]
        starts = (start for start in range(end) if start == end - 1 or longest * (end - start) <= budget)
        best.append(min((best[start][0] + longest * (end - start) + overhead, start) for start in starts))
    parts, end = [], len(order)
    while end:
        parts.append(order[best[end][1] : end])
        end = best[end][1]
    return parts  # the longest rows first, so that memory runs out early or never


class TokenLayout(StepWeights):
    """A trainer whose batch is a whole step, which it computes in micro-batches of `budget` tokens.

    A trainer has `size` of a row, `stack` of rows, `totals` of a step, and `sums` of a micro-batch.
    """

    budget: int  # tokens of a micro-batch

    def use_layout(self: Any) -> None:
        """Collate whole steps; call it at the end of `__init__`."""
        self.data_collator = self.collate_step

    def collate_step(self: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the micro-batches of a step and its totals."""
        rows = self.split(rows)
        parts = lay_out([self.size(row) for row in rows], self.budget, OVERHEAD[self.args.device.type])
        micro_batches = [self.stack([rows[row] for row in part]) for part in parts]
        return {"rows": torch.arange(len(rows)), "totals": self.totals(rows), "micro_batches": micro_batches}

    def counts(self, batches: list[Any]) -> list[list[float]]:
        """Return nothing: a step's `totals` are counted where it is collated."""
        return []

    def split(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows that a micro-batch is made of."""
        return rows

    def training_step(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        return self.compute_step(model, inputs, self.accelerator.backward)

    def prediction_step(self: Any, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return self.compute_step(model, inputs, lambda _: None), None, None

    def compute_step(self: Any, model: Any, inputs: Any, backward: Any) -> Tensor:  # []
        """Compute the loss of a step and log its metrics; `backward` receives the loss of each micro-batch."""
        inputs = self._prepare_inputs(inputs)
        results: list[Sums] = []
        loss: Any = 0.0
        for batch in inputs["micro_batches"]:
            part, sums = self.sums(model, batch, inputs["totals"])
            backward(part)
            loss = loss + part.detach()
            results.append(sums)
        self.log_sums(results)
        self.count_tokens(inputs["totals"]["tokens"])
        return loss  # type: ignore[no-any-return]

    def log_sums(self: Any, results: list[Sums]) -> None:
        """Log each metric's mean over a step, under TRL's names."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in results[0]:
            total, count = (sum(float(sums[name][i]) for sums in results) for i in (0, 1))
            metrics[name].append(total / max(count, 1))

    def count_tokens(self: Any, tokens: int) -> None:
        """Add to the tokens that were trained on, which TRL logs as `num_tokens`."""
        self._total_train_tokens += tokens * self.model.training
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [self._total_train_tokens]
