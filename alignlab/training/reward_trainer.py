"""TRL's RewardTrainer on pairs in the layout of `prompt_layout.pack`, in batches of similar length."""

from typing import Any

import torch
from trl import RewardTrainer

from alignlab import losses
from alignlab.models import four_bit, prompt_layout, reward_heads
from alignlab.models.load import trained_precision
from alignlab.runtime.stage_run import Run
from alignlab.training.batching import Buckets
from alignlab.training.step_weights import StepWeights


def load_with_head(run: Run[Any]) -> tuple[Any, Any]:
    """Return the model that the stage starts from with a new head, and its tokenizer."""
    method, path = run.method, run.inputs["policy"]
    is_automatic = any(place.endswith(".head") for place in run.config.origins)
    head = reward_heads.choose_head(method.name, method.head, path, is_automatic)
    precision = trained_precision(run.config.hardware)
    options = {"attn_implementation": run.config.model.attention, **four_bit.load_options(run.config, precision)}
    model, tokenizer = reward_heads.new_reward_model(path, head, method.dropout, precision, **options)
    tokenizer.model_max_length = method.max_length
    model.config.prompt_share = method.prompt_share  # whoever scores with the model cuts as it was trained
    return model, tokenizer


class PairRewardTrainer(StepWeights, RewardTrainer):  # type: ignore[misc]
    """Scores both completions of a pair in one row, so that their prompt is computed once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, data_collator=self.collate)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        pad = self.processing_class.pad_token_id
        packed = prompt_layout.pack([row["prompt_ids"] for row in rows], [row["completion_ids"] for row in rows], pad)
        columns = {name: torch.tensor([row.get(name, 1.0) for row in rows]) for name in ("label", "weight")}
        return packed._asdict() | columns

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        label, weight = inputs.pop("label"), inputs.pop("weight")
        rewards = reward_heads.scores(model, prompt_layout.Packed(**inputs)).float()
        chosen, rejected = rewards.unbind(1)
        loss = (losses.reward(chosen, rejected, self.args.center_rewards_coefficient, label) * weight).mean()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in (
            ("accuracy", chosen > rejected),
            ("margin", chosen - rejected),
            ("mean_reward", rewards),
        ):
            metrics[name].append(self.accelerator.gather(value.detach().float().mean()).mean().item())
        loss = loss * self.weight()
        return (loss, {"logits": rewards}) if return_outputs else loss

    def order(self, lengths: list[int], batch_size: int) -> Buckets:
        return Buckets(self.train_dataset["length"], batch_size, self.args.seed)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # the rows are token ids

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt_ids", "completion_ids", "length", "label", "weight"]


class LabelRewardTrainer(PairRewardTrainer):
    """Scores one completion in each row, and learns the probability of its label."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        label, weight = inputs.pop("label"), inputs.pop("weight")
        scores = reward_heads.scores(model, prompt_layout.Packed(**inputs)).float()[:, 0]
        loss = (losses.preference(scores, label) * weight).mean() * self.weight()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in (("accuracy", (scores > 0) == (label > 0.5)), ("mean_cost", scores.sigmoid())):
            metrics[name].append(self.accelerator.gather(value.detach().float().mean()).mean().item())
        return (loss, {"logits": scores}) if return_outputs else loss
