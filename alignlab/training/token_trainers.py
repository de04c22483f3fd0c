"""TRL's trainers of SFT, DPO, KTO and reward models, with steps laid out by tokens; see `token_layout`."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import SFTTrainer

from alignlab import losses
from alignlab.models import reward_heads
from alignlab.models.log_probs import log_probs_entropy_and_greedy
from alignlab.models.output_head import has_known_head, run_body, score_tokens
from alignlab.models.packed_log_probs import log_prob_sums
from alignlab.models.prompt_layout import Packed, counts, pack, reads_packed, unwrapped
from alignlab.training.dpo_trainer import SoftLabelDPOTrainer
from alignlab.training.kto_trainer import StepKTOTrainer
from alignlab.training.reference_table import FILE, ReferenceTable
from alignlab.training.reward_trainer import PairRewardTrainer
from alignlab.training.token_layout import Sums, TokenLayout

IGNORED = -100  # the label of a token without loss


class TokenSFTTrainer(TokenLayout, SFTTrainer):  # type: ignore[misc]
    """Reads each document of a packed row in a row of its own, and computes the logits of learned tokens alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.use_layout()
        has_known_head(unwrapped(self.model))  # the probe is no part of the first step

    def split(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [document for row in rows for document in documents(row)]

    def size(self, row: dict[str, Any]) -> int:
        return len(row["input_ids"])

    def totals(self, rows: list[dict[str, Any]]) -> dict[str, int]:
        learned = sum(label != IGNORED for row in rows for label in row["labels"][1:])
        return {"learned": max(learned, 1), "tokens": sum(map(self.size, rows))}

    def stack(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {
            "input_ids": pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }

    def sums(self, model: Any, batch: Any, totals: Any) -> tuple[Tensor, Sums]:
        hidden = run_body(model, input_ids=batch["input_ids"], use_cache=False)
        labels = batch["labels"][:, 1:].flatten()
        learned = (labels != IGNORED).nonzero()[:, 0]
        length = batch["input_ids"].shape[1]
        places = learned + learned // (length - 1)  # each row has one more token than predictions
        logps, entropy, correct = score_tokens(hidden.select(places), log_probs_entropy_and_greedy, labels[learned])
        count = len(learned)
        sums = {"entropy": (entropy.detach().sum(), count), "mean_token_accuracy": (correct.sum(), count)}
        return -logps.sum() / totals["learned"], sums


class TokenDPOTrainer(TokenLayout, SoftLabelDPOTrainer):
    """Computes the prompt of a pair once, and the logits of completions alone; the reference once for each pair."""

    reference_table: ReferenceTable  # of the training rows

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.use_layout()

    def size(self, row: dict[str, Any]) -> int:
        prompt, chosen, rejected = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        packed = prompt + chosen + rejected
        return packed if reads_packed(self.model, packed) else 2 * (prompt + max(chosen, rejected))

    def totals(self, rows: list[dict[str, Any]]) -> dict[str, int]:
        chosen = sum(len(row["chosen_ids"]) for row in rows)
        tokens = sum(2 * len(row["prompt_ids"]) + len(row["rejected_ids"]) for row in rows)
        return {"rows": len(rows), "chosen": chosen, "tokens": tokens + chosen}

    def stack(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [(row["chosen_ids"], row["rejected_ids"]) for row in rows]
        packed = pack([row["prompt_ids"] for row in rows], pairs, self.processing_class.pad_token_id)
        columns = {name: torch.tensor([row.get(name, 1.0) for row in rows]) for name in ("label", "weight")}
        return {"packed": packed._asdict(), "numbers": [row["number"] for row in rows if "number" in row], **columns}

    def sums(self, model: Any, batch: Any, totals: Any) -> tuple[Tensor, Sums]:
        packed, label, weight = Packed(**batch["packed"]), batch["label"], batch["weight"]
        reference = self.reference_sums(packed, batch["numbers"])
        policy = log_prob_sums(model, packed)
        log_ratios = policy - reference
        sizes = counts(packed.segments)[:, 1:]
        pairs = self.pair_losses(log_ratios.T.flatten(), sizes.T.flatten(), label)
        preference_weight, nll_weight = [*self.configured_weights, 0.0][:2]
        loss = preference_weight * (pairs * weight).sum() / totals["rows"]
        if nll_weight:
            nll = -policy[:, 0] * (2 * label - 1).clamp(min=0) * weight
            loss = loss + nll_weight * nll.sum() / totals["chosen"]
        return loss, self.pair_metrics(policy.detach(), self.beta * log_ratios.detach())

    def reference_sums(self, packed: Packed, numbers: list[int]) -> Tensor:  # [batch, 2]
        """Return the reference's log-probabilities of pairs, from the table where it has them."""
        if (known := self.reference_table.get(numbers)) is not None:
            return known.to(packed.input_ids.device)
        with torch.no_grad(), self.reference() as reference_model:
            sums = log_prob_sums(reference_model, packed)
        self.reference_table.put(numbers, sums)
        return sums

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # a resumed run has the values of an uninterrupted one
        torch.save(self.reference_table.values, Path(output_dir) / FILE)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint and (file := Path(checkpoint) / FILE).exists():
            self.reference_table.values = torch.load(file, weights_only=True)

    def pair_metrics(self, policy: Tensor, rewards: Tensor) -> Sums:
        """Return sums of rewards, margins and log-probabilities, each [batch, 2], under TRL's names."""
        count = len(policy)
        margins = rewards[:, 0] - rewards[:, 1]
        columns = {"rewards/chosen": rewards[:, 0], "rewards/rejected": rewards[:, 1], "rewards/margins": margins}
        columns |= {"rewards/accuracies": (margins > 0).float()}
        columns |= {"logps/chosen": policy[:, 0], "logps/rejected": policy[:, 1]}
        return {name: (column.sum(), count) for name, column in columns.items()}

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*self._signature_columns, "number"]


class TokenKTOTrainer(TokenLayout, StepKTOTrainer):
    """Computes the logits of completions alone, and the reference of both completions of a row after one prompt."""

    kl_of_step = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.use_layout()

    def size(self, row: dict[str, Any]) -> int:
        return len(row["prompt_ids"]) + max(len(row["completion_ids"]), len(row["KL_completion_ids"]))

    def totals(self, rows: list[dict[str, Any]]) -> dict[str, int]:
        tokens = sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
        return {"rows": len(rows), "tokens": tokens}

    def stack(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        prompts, pad = [row["prompt_ids"] for row in rows], self.processing_class.pad_token_id
        learned, mismatched = ([[row[name]] for row in rows] for name in ("completion_ids", "KL_completion_ids"))
        both = [[*ours, *others] for ours, others in zip(learned, mismatched, strict=True)]
        completions = {"both": both, "learned": learned, "mismatched": mismatched}
        packed = {name: pack(prompts, several, pad)._asdict() for name, several in completions.items()}
        return packed | {name: torch.tensor([row[name] for row in rows]) for name in ("label", "weight")}

    def compute_step(self, model: Any, inputs: Any, backward: Any) -> Tensor:  # []
        """Compute the KL term of the step before its losses; in evaluation it is that of all rows."""
        kl = self.mismatched(inputs).mean().item() if self.model.training else self.kl_of_evaluation
        self.kl_of_step = max(0.0, kl)
        return super().compute_step(model, inputs, backward)

    def mismatched(self, batch: Any) -> Tensor:  # [rows]
        """Return the log-ratios of mismatched rows, and put the reference of the learned ones into `batch`."""
        batch.update(self._prepare_inputs(batch))
        training, ratios = self.model.training, []
        self.model.eval()
        for part in batch["micro_batches"]:
            part["reference"], reference = self.reference_sums(part["both"]).unbind(1)
            with torch.no_grad():
                ratios.append(log_prob_sums(self.model, Packed(**part["mismatched"]))[:, 0] - reference)
        self.model.train(training)
        return torch.cat(ratios).double()

    def reference_sums(self, packed: dict[str, Tensor]) -> Tensor:  # [rows, completions]
        """Return the reference's log-probabilities of completions."""
        with torch.no_grad(), self.reference() as model:
            return log_prob_sums(model, Packed(**packed))

    def sums(self, model: Any, batch: Any, totals: Any) -> tuple[Tensor, Sums]:
        reference = batch["reference"] if "reference" in batch else self.reference_sums(batch["learned"])[:, 0]
        ratios, desirable = log_prob_sums(model, Packed(**batch["learned"]))[:, 0] - reference, batch["label"].bool()
        loss = self.row_losses(ratios, desirable, self.kl_of_step, batch["weight"]).sum() / totals["rows"]
        good, bad = (self.beta * ratios.detach()[kind] for kind in (desirable, ~desirable))
        return loss, {"good": (good.sum(), len(good)), "bad": (bad.sum(), len(bad))}

    def log_sums(self, results: list[Sums]) -> None:
        sums = [sum(float(part[kind][i]) for part in results) for kind in ("good", "bad") for i in (0, 1)]
        self.log_rewards(sums, self.kl_of_step)


class TokenRewardTrainer(TokenLayout, PairRewardTrainer):
    """Lays out the pairs of a step by tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.use_layout()

    def size(self, row: dict[str, Any]) -> int:
        return int(row["length"])

    def totals(self, rows: list[dict[str, Any]]) -> dict[str, int]:
        tokens = sum(row["length"] + len(row["prompt_ids"]) for row in rows)
        return {"rows": len(rows), "tokens": tokens}

    def stack(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collate(rows)

    def sums(self, model: Any, batch: Any, totals: Any) -> tuple[Tensor, Sums]:
        label, weight, packed = batch["label"], batch["weight"], Packed(batch["input_ids"], batch["segments"])
        rewards = reward_heads.scores(model, packed).float()
        chosen, rejected = rewards.unbind(1)
        pairs = losses.reward(chosen, rejected, self.args.center_rewards_coefficient, label) * weight
        margins, rewards = (chosen - rejected).detach(), rewards.detach()
        sums: Sums = {
            "accuracy": ((margins > 0).sum(), len(margins)),
            "margin": (margins.sum(), len(margins)),
            "mean_reward": (rewards.sum(), rewards.numel()),
        }
        return pairs.sum() / totals["rows"], sums


def documents(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the documents of a packed row, which `seq_lengths` counts; a plain row is one document."""
    starts = [0]
    for length in row.get("seq_lengths") or [len(row["input_ids"])]:
        starts.append(starts[-1] + length)
    names = ("input_ids", "labels")
    return [{name: row[name][start:end] for name in names} for start, end in pairwise(starts)]
