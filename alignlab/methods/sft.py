"""Supervised fine-tuning: learn the completions of demonstrations.

It runs TRL's SFTTrainer on rows that are tokenised here, so that every stage sees the same ids for the same text. The
loss is the mean negative log-likelihood of the completions' tokens, end-of-turn token included, and with
`dataset.learn=all` of the assistant's earlier turns. TRL does not train encoder-decoders: they use transformers'
Seq2SeqTrainer, where the encoder reads the prompt and the decoder learns the last turn.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignlab.chat import encode
from alignlab.config.method import Training
from alignlab.errors import Fault, failure
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

VIEW = "demonstrations"
ROLES = ("policy",)


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
    from alignlab.models.load import load_options, load_trainable

    model, tokenizer = load_trainable(
        run.inputs["policy"], run.config.hardware, run.method.dropout, **load_options(run.config)
    )
    (train_encoder_decoder if model.config.is_encoder_decoder else train_decoder)(run, model, tokenizer)


def train_decoder(run: Run[Config], model: Any, tokenizer: Any) -> None:
    """Fine-tune a decoder on rows of prompt and completion."""
    from trl import SFTConfig, SFTTrainer

    from alignlab.models.load import adapter
    from alignlab.training.packing import check_packing
    from alignlab.training.step_weights import lengths, with_step_weights
    from alignlab.training.token_trainers import TokenSFTTrainer
    from alignlab.training.trainer import common_arguments, fit, token_budget

    method, rows = run.method, tokenise_demonstrations(run, tokenizer)
    longest = method.max_length if method.packing else max(lengths(rows["train"].select_columns("input_ids")))
    budget = token_budget(run, model, longest)
    if method.packing and not budget:
        check_packing(model)
    trainer_class = TokenSFTTrainer if budget else with_step_weights(SFTTrainer)
    settings = SFTConfig(
        **common_arguments(run, rows["train"], budget=budget),
        packing=method.packing,
        max_length=method.max_length,
        completion_only_loss=method.completion_only_loss,
    )
    lora = adapter(run.config, model)
    fit(run, trainer_class, model, tokenizer, settings, rows, attributes={"budget": budget}, peft_config=lora)


def tokenise_demonstrations(run: Run[Config], tokenizer: Any) -> "dict[str, Dataset]":
    """Return the demonstrations of both splits as token ids, with a mask that is 1 at those of learned turns."""
    from alignlab.models.learned_tokens import earlier_answers
    from alignlab.models.truncation import cut_row, encode_within
    from alignlab.training.tokenised_rows import Row, tokenise

    method, every_turn = run.method, getattr(run.config.dataset, "learn", "last") == "all"

    def row(demonstration: Row) -> dict[str, list[int]]:
        limits = method.max_length, method.prompt_share
        finished = [demonstration.get("finished", True)]
        completions = [demonstration["completion"]]
        turns, (whole,) = encode_within(tokenizer, demonstration["prompt"], completions, *limits, finished)
        prompt, completion = cut_row(whole, *limits)
        context = demonstration.get("context", ())
        learned = earlier_answers(tokenizer, turns, whole.prompt, context) if every_turn else [0] * len(whole.prompt)
        return {
            "input_ids": prompt + completion,
            "completion_mask": learned[len(learned) - len(prompt) :] + [1] * len(completion),
        }

    return {split: tokenise(run, VIEW, split, row) for split in ("train", "validation")}


def train_encoder_decoder(run: Run[Config], model: Any, tokenizer: Any) -> None:
    """Fine-tune an encoder-decoder: the encoder reads the prompt, the decoder learns the completion."""
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    from alignlab.losses import language
    from alignlab.models.load import adapter
    from alignlab.models.truncation import cut_sides, cut_turns, without_end
    from alignlab.training.step_weights import with_step_weights
    from alignlab.training.tokenised_rows import Row, tokenise
    from alignlab.training.trainer import common_arguments, fit

    method = run.method
    if method.packing:
        raise failure("method.packing", "an encoder-decoder reads one prompt at a time", "use method.packing=false")
    tokenizer.padding_side = "right"  # the decoder begins with the first token of the completion in every row
    if lora := adapter(run.config, model):
        model = get_peft_model(model, lora)

    def row(demonstration: Row) -> dict[str, list[int]]:
        turns = cut_turns(tokenizer, demonstration["prompt"], method.max_length)
        whole = encode(tokenizer, turns, demonstration["completion"])
        whole = whole if demonstration.get("finished", True) else without_end(whole, tokenizer)
        prompt, completion = cut_sides(whole, method.max_length)
        return {"input_ids": prompt, "labels": completion}

    rows = {split: tokenise(run, VIEW, split, row) for split in ("train", "validation")}
    settings = Seq2SeqTrainingArguments(**common_arguments(run, rows["train"]))
    fit(
        run,
        with_step_weights(Seq2SeqTrainer),
        model,
        tokenizer,
        settings,
        rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: language(
            outputs.logits, labels, num_items_in_batch
        ),
    )
