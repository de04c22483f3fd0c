"""Sample five completions a prompt beside transformers' `generate(num_return_sequences=5)`: CPU time, alternating.

    python benchmarks/sampling.py            # a Llama of 5M weights with random weights
    python benchmarks/sampling.py FOLDER     # a model in a folder, such as SmolLM2

Both sides sample at temperature 1 without filters, from the same prompts, sorted by length, each at its fastest batch.
`long` never ends before the limit. In `ended`, some tokens of the vocabulary end a completion, so that lengths differ;
both sides then sample about as many tokens. The last lines show how the cost of a token grows with the work.
"""

import os
import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from alignlab.models import sampling
from alignlab.models.answers import draw_several
from alignlab.models.sampling import Sampling
from alignlab.runtime import matmul

VOCABULARY, COUNT = 4096, 5
ROUNDS = 3


class Work(NamedTuple):
    """What is sampled: the prompts as token ids, the most new tokens, and the tokens that end a completion."""

    prompts: list[list[int]]
    new_tokens: int
    ends: list[int]


class Rate(NamedTuple):
    """New tokens, and the CPU seconds that they took."""

    tokens: int
    seconds: float


class Words:
    """A tokenizer that writes token ids as text: decoding is no part of what is compared."""

    pad_token_id, bos_token_id, eos_token_id = 0, 0, 0
    added_tokens_decoder: Mapping[int, Any] = MappingProxyType({})

    def decode(self, ids: list[int], **_: Any) -> str:
        """Return the ids as text."""
        return " ".join(map(str, ids))

    def __len__(self) -> int:
        return VOCABULARY


def llama(scale: int = 1) -> Any:
    """Return a Llama of 5M weights, or of about `scale` times as many, with random weights."""
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=5 * scale,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def prompts(count: int, longest: int = 128) -> list[list[int]]:
    """Return prompts of random tokens, from an eighth of the longest length on, the shortest first."""
    random = Random(0)
    lengths = sorted(random.randint(longest // 8, longest) for _ in range(count))
    return [[random.randrange(100, VOCABULARY) for _ in range(length)] for length in lengths]


def cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(model: Any, work: Work, batch: int) -> Rate:
    """Sample by `draw_several`, as evaluation and the preference factory do."""
    started = cpu()
    how = Sampling(1.0, 1.0, work.new_tokens, max(1, batch // COUNT))
    with matmul.using("auto"):  # as each run does; `generate` multiplies as torch comes
        drawn = draw_several(model, Words(), work.prompts, COUNT, how, lambda row, number: (0, row * COUNT + number))  # type: ignore[arg-type]
        tokens = sum(len(one.tokens) for part in drawn for row in part.values() for one in row)
    return Rate(tokens, cpu() - started)


def theirs(model: Any, work: Work, batch: int) -> Rate:
    """Sample by `generate`, the prompts sorted by length."""
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=work.new_tokens, pad_token_id=0,
        eos_token_id=work.ends or None, num_return_sequences=COUNT,
    )  # fmt: skip
    started, tokens, size = cpu(), 0, max(1, batch // COUNT)
    ends = torch.tensor(work.ends or [-1])
    for start in range(0, len(work.prompts), size):
        rows = work.prompts[start : start + size]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        with torch.inference_mode():
            new = model.generate(ids, attention_mask=(ids != 0).long(), generation_config=settings)[:, width:]
        ended = torch.isin(new, ends)
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])
        tokens += int(lengths.sum())
    return Rate(tokens, cpu() - started)


def fastest(side: Callable[..., Rate], model: Any, work: Work, sizes: tuple[int, ...]) -> int:
    """Return the batch size with the most tokens per CPU second."""
    rates = {size: side(model, work, size) for size in sizes}
    return max(rates, key=lambda size: rates[size].tokens / rates[size].seconds)


def compared(name: str, model: Any, work: Work, sizes: tuple[int, ...]) -> str:
    """Return a row of the table: the rates of both sides, their ratio and its spread over the rounds."""
    sampling.special_tokens = lambda *_: (0, set(work.ends))  # type: ignore[assignment]
    best = [fastest(side, model, work, sizes) for side in (ours, theirs)]
    pairs = [(ours(model, work, best[0]), theirs(model, work, best[1])) for _ in range(ROUNDS)]
    rates = [[rate.tokens / rate.seconds for rate in column] for column in zip(*pairs, strict=True)]
    ratios = [mine / other for mine, other in zip(*rates, strict=True)]
    mine, other = map(statistics.median, rates)
    tokens = f"{pairs[0][0].tokens:,} / {pairs[0][1].tokens:,}"
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {tokens} | {best[0]} / {best[1]} | {mine:,.0f} | {other:,.0f} | {ratio} |"


def growth() -> Iterator[str]:
    """Yield how the CPU time of a sampled token changes with the rows, the prompts' length and the weights."""
    sampling.special_tokens = lambda *_: (0, set())  # type: ignore[assignment]
    plain = Work(prompts(6), 16, [])
    cases = {
        "6 prompts of at most 128 tokens": (llama(), plain),
        "10 times the prompts": (llama(), plain._replace(prompts=prompts(60))),
        "4 times the length": (llama(), plain._replace(prompts=prompts(6, 512))),
        "4 times the weights of the layers": (llama(4), plain),
    }
    yield "| 16 new tokens, batch 30 | CPU ms a token | ratio |"
    yield "|---|---|---|"
    first = 0.0
    for name, (model, work) in cases.items():
        ours(model, work, 30)
        tries = [ours(model, work, 30) for _ in range(ROUNDS)]
        each = min(rate.seconds / rate.tokens for rate in tries)
        first = first or each
        yield f"| {name} | {1000 * each:.3f} | {each / first:.2f} |"


def smollm2() -> Iterator[str]:
    """Compare both sides on SmolLM2-135M-Instruct, whose folder ALIGNLAB_SMOLLM2 names."""
    yield from folder(os.environ["ALIGNLAB_SMOLLM2"])


def folder(path: str) -> Iterator[str]:
    """Compare both sides on the model in a folder: 8 prompts, five completions of at most 32 tokens."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()
    yield f"{model.num_parameters() / 1e6:.0f}M weights, 8 prompts of 16 to 128 tokens, five completions of at most 32"
    yield f"tokens each; medians of {ROUNDS} alternating rounds."
    yield ""
    yield HEAD
    yield RULE
    sizes, rows = (20, 40), prompts(8)
    yield compared("long", model, Work(rows, 32, []), sizes)
    yield compared("ended", model, Work(rows, 32, ends(model.config.vocab_size)), sizes)


def ends(vocabulary: int) -> list[int]:
    """Draw the tokens that end a completion: one in 24 of the vocabulary."""
    return [int(token) for token in np.random.default_rng(0).integers(100, vocabulary, vocabulary // 24)]


HEAD = "| completions | tokens, ours / theirs | batch | ours, tokens a CPU second | `generate` | ratio (spread) |"
RULE = "|---|---|---|---|---|---|"


def small() -> Iterator[str]:
    """Compare both sides on the small Llama."""
    model, rows = llama(), prompts(24)
    weights = sum(weight.numel() for weight in model.parameters())
    yield f"A Llama of {weights / 1e6:.1f}M random weights, 24 prompts of 16 to 128 tokens, five completions of at most"
    yield f"64 tokens each; medians of {ROUNDS} alternating rounds."
    yield ""
    yield HEAD
    yield RULE
    sizes = (40, 120)
    yield compared("long", model, Work(rows, 64, []), sizes)
    yield compared("ended", model, Work(rows, 64, ends(VOCABULARY)), sizes)
    yield ""
    yield from growth()


if __name__ == "__main__":
    print("\n".join(folder(sys.argv[1]) if sys.argv[1:] else small()))
