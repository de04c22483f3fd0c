"""A reward model: learn from pairs which completion people prefer (Ouyang et al. 2022, section 3.5).

It runs TRL's RewardTrainer on rows that are tokenised here. A pair is one row whose prompt is computed once, where the
model allows it (see `alignlab.models.prompt_layout`), and a batch has rows of similar length. A conversation that is
too long loses its oldest turns. The reward is read at the last token that the chat template writes, as transformers
reads it. A pair's `label` is the probability that the chosen completion is the better one; its `weight` multiplies its
loss.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from alignlab.config.method import Training
from alignlab.config.settings import NotNegative
from alignlab.errors import Fault
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

VIEW = "pairs"
ROLES = ("policy",)
MAKES = "reward_model"


class Config(Training):
    """Settings of `conf/method/rm.yaml`."""

    head: Literal["last", "pooled"]
    center_rewards_coefficient: NotNegative

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.policy == "auto":
            yield Fault("policy", "rm has no stage before it to take a model from", "use base or a path")


def train(run: Run[Config]) -> None:
    """Train a reward model that starts from `run.inputs["policy"]`."""
    from trl import RewardConfig

    from alignlab.models.load import adapter
    from alignlab.training.reward_trainer import PairRewardTrainer, load_with_head
    from alignlab.training.token_trainers import TokenRewardTrainer
    from alignlab.training.trainer import common_arguments, fit, token_budget

    method = run.method
    model, tokenizer = load_with_head(run)
    rows = tokenise_pairs(run, tokenizer)
    budget = token_budget(run, model, max(rows["train"]["length"]))
    settings = RewardConfig(
        **common_arguments(run, budget=budget),
        max_length=None,
        center_rewards_coefficient=method.center_rewards_coefficient,
        disable_dropout=method.dropout == 0,
    )
    lora = adapter(run.config, model, task_type="SEQ_CLS", modules_to_save=["score"])
    trainer_class = TokenRewardTrainer if budget else PairRewardTrainer
    fit(run, trainer_class, model, tokenizer, settings, rows, attributes={"budget": budget}, peft_config=lora)


def tokenise_pairs(run: Run[Config], tokenizer: Any) -> "dict[str, Dataset]":
    """Return the pairs of both splits as columns of token ids; `length` counts the prompt once."""
    from alignlab.models.truncation import cut_before_end, encode_within
    from alignlab.training.tokenised_rows import Row, distinct_pairs, tokenise

    method = run.method

    def row(pair: Row) -> dict[str, Any]:
        completions, limits = (pair["chosen"], pair["rejected"]), (method.max_length, method.prompt_share)
        _, (chosen, rejected) = encode_within(tokenizer, pair["prompt"], completions, *limits, tail=True)
        prompt, both = cut_before_end(chosen.prompt, (chosen.completion, rejected.completion), *limits)
        ids = {"prompt_ids": prompt, "completion_ids": both, "length": len(prompt) + sum(map(len, both))}
        return ids | {"label": float(pair.get("label", 1.0)), "weight": float(pair.get("weight", 1.0))}

    return {
        split: distinct_pairs(tokenise(run, VIEW, split, row), lambda pair: pair["completion_ids"])
        for split in ("train", "validation")
    }
