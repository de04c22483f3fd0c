"""Supervised fine-tuning: learn the answers of demonstrations.

TRL's SFTTrainer on rows that are tokenised here, so that every stage sees the same ids for the same words.
The loss is the mean negative log-likelihood of the completions' tokens, end-of-turn token included.
"""

from collections.abc import Iterator

from alignlab.config import Training
from alignlab.errors import Fault
from alignlab.run import Run

VIEW = "demonstrations"
NEEDS: dict[str, str] = {}


class Config(Training):
    """Settings of `conf/method/sft.yaml`."""

    packing: bool
    completion_only_loss: bool

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.policy == "auto":
            yield Fault("policy", "sft is the first stage, so there is no stage to take it from", "use base or a path")


def train(run: Run[Config]) -> None:
    """Fine-tune `run.inputs["policy"]` on the demonstrations."""
    from trl import SFTConfig, SFTTrainer

    from alignlab.chat import encode
    from alignlab.models import adapter, attention, load_trainable
    from alignlab.training import Row, arguments, fit, shorten, tokenised

    method = run.method
    model, tokenizer = load_trainable(run.inputs["policy"], method.dropout, attention(run.config))

    def row(demonstration: Row) -> dict[str, list[int]]:
        prompt, completion = shorten(
            encode(tokenizer, demonstration["prompt"], demonstration["completion"]), method.max_length
        )
        return {
            "input_ids": prompt + completion,
            "completion_mask": [0] * len(prompt) + [1] * len(completion),
        }

    rows = {split: tokenised(run, VIEW, split, row) for split in ("train", "validation")}
    settings = SFTConfig(
        **arguments(run),
        packing=method.packing,
        max_length=method.max_length,
        completion_only_loss=method.completion_only_loss,
    )
    fit(run, SFTTrainer, model, tokenizer, settings, rows, peft_config=adapter(run.config))
