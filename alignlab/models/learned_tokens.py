"""Which tokens of a conversation are learned by supervised fine-tuning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignlab.chat import Turn, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def earlier_answers(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], prompt: Sequence[int], context: Sequence[int] = ()
) -> list[int]:  # [tokens of the prompt]
    """Return 1 for each token of a prompt that an assistant's turn in it wrote, its end-of-turn token included, else 0.

    A turn that the chat template writes differently once others follow is not learned, nor is an empty one, nor are
    those at the places of `context`, which are counted from the end (-1 is the last turn).
    """
    mask = [0] * len(prompt)
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant" or not turn["content"].strip() or place - len(turns) in context:
            continue
        before, answer = encode(tokenizer, turns[:place], turn["content"])
        start, end = len(before), len(before) + len(answer)
        if list(prompt[start:end]) != answer:  # a template without an end-of-turn token gets one in `encode`
            answer, end = answer[:-1], end - 1
        if list(prompt[:end]) == before + answer:
            mask[start:end] = [1] * len(answer)
    return mask
