"""Check explanations where the truth is known: pocket's gold judge, and training rows that are planted.

    .venv/bin/python benchmarks/explanations.py        # a few minutes; trains pocket's reward model and SFT, if need be

1. Integrated gradients of the reward: the completeness error over 200 held-out answers.
2. Of answers to harmful requests, a token that gold decides by (the harmful verb, its tool and its victim; the words of
   a refusal) is among the three with the largest attributions; beside it, how often three random tokens hit one.
3. A row with the content of a held-out prompt in other words is planted among the training rows of a random stage: it
   is among the five nearest rows, with its stage. The rows themselves hold none of the held-out contents.
4. The same by gradients, of the policy's likeliest completion: the planted row teaches a right answer to its prompt, or
   that very completion. The policy was not trained on it.
"""

import math
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch

import alignlab
from alignlab import data
from alignlab.config.schema import Config
from alignlab.explanations import gradients, integrated_gradients, nearest
from alignlab.explanations.explain import MOST_TOKENS
from alignlab.explanations.nearest import Row
from alignlab.explanations.record import Explanation
from alignlab.models.load import load_policy
from alignlab.models.sampling import LIKELIEST, Sampling, sample
from alignlab.pipeline.explained_stage import checkpoints, training_rows
from alignlab.pocket import gold, phrases
from alignlab.pocket.answers import right_behaviour, write_answer
from alignlab.pocket.parse import parse_prompt
from alignlab.pocket.vocabulary import PERSON_PLACE, WEAPONS
from alignlab.pocket.world import Prompt, question_slots
from alignlab.rewards.reward_model import RewardModel, load_reward_model

ANSWERS, PLANTED, TOP, SHOWN = 200, 100, 3, 5
REFUSAL = {"cannot", "not", "no", "never", "wrong", "hurt", "sorry"}


class Answer(NamedTuple):
    """A held-out answer, and the words by which gold decides that it complies with harm or refuses it."""

    prompt: list[Any]
    text: str
    verdict: str
    words: set[str]


def main() -> None:
    """Print the figures."""
    folder = Path(os.environ.get("ALIGNLAB_OUTPUTS") or mkdtemp())
    config = alignlab.compose("method=rm", "evaluation=none")
    judge = load_reward_model(alignlab.run(config, folder / "explanations-rm").models["rm"], config.hardware)
    completeness(config, judge)
    deciding_tokens(config, judge)
    sft = alignlab.compose("method=sft", "evaluation=none")
    alignlab.run(sft, folder / "explanations-sft")
    planted(config, folder / "explanations-sft")


def completeness(config: Config, judge: RewardModel) -> None:
    """Print the largest completeness error and the steps that it took."""
    pairs = data.view(config.dataset, "pairs", "test").shuffle(seed=0)
    answers = [(row["prompt"], row[side]) for row in pairs for side in ("chosen", "rejected")][:ANSWERS]
    figures = [integrated_gradients.of_reward_model(judge, *answer)["figures"] for answer in answers]
    errors = sorted(each["completeness error"] for each in figures)
    steps = [int(each["steps"]) for each in figures]
    within = sum(error <= integrated_gradients.TOLERANCE for error in errors)
    print(
        f"completeness: {within} of {len(errors)} answers within 1%; largest error {errors[-1]:.3%}, "
        f"median {errors[len(errors) // 2]:.4%}; at most {max(steps)} steps"
    )


def deciding_tokens(config: Config, judge: RewardModel) -> None:
    """Print how often a deciding token is among the three with the largest attributions, by verdict."""
    found: dict[str, list[tuple[bool, float]]] = {}
    for answer in harmful_answers(config):
        told = integrated_gradients.of_reward_model(judge, answer.prompt, answer.text)
        if hit := among_top(told, answer.words):
            found.setdefault(answer.verdict, []).append(hit)
    found["all"] = [each for hits in found.values() for each in hits]
    for verdict, hits in found.items():
        chance = sum(share for _, share in hits) / len(hits)
        print(f"deciding tokens, {verdict}: {sum(hit for hit, _ in hits)} of {len(hits)} (by chance {chance:.0%})")


def harmful_answers(config: Config) -> Iterator[Answer]:
    """Yield the held-out answers to harmful requests that gold finds compliant or refusing."""
    for row in data.view(config.dataset, "pairs", "test"):
        if row["kind"] != "harmful":
            continue
        parsed = parse_prompt(row["prompt"][-1]["content"])
        assert parsed
        for side in ("chosen", "rejected"):
            judged = gold.judge(row["prompt"], row[side])
            if judged.complied:
                words = {*parsed[1], *WEAPONS.values(), *PERSON_PLACE}
                yield Answer(row["prompt"], row[side], "complies", words)
            elif judged.refused:
                yield Answer(row["prompt"], row[side], "refuses", REFUSAL)


def among_top(told: Explanation, words: set[str]) -> tuple[bool, float] | None:
    """Return whether a word is among the top tokens, and the probability of that for random ones; None without any."""
    values = told["tracks"][0]["values"]
    places = [place for place, text in enumerate(told["tokens"]) if text.strip(" .,!?").lower() in words]
    top = sorted(range(len(values)), key=lambda place: -abs(values[place]))[:TOP]
    missed = math.comb(len(values) - len(places), TOP) / math.comb(len(values), TOP)
    return (bool({*top} & {*places}), 1 - missed) if places else None


def planted(config: Config, run: Path) -> None:
    """Print how often a planted row is the nearest, and among those that are shown."""
    generator = random.Random(0)
    policy, tokenizer = load_policy(run / "sft" / "model", config.hardware)
    rows = training_rows(config, ("sft", "rm", "ppo"), 2000)
    prompts = [row for row in data.view(config.dataset, "prompts", "test") if rephrased(row["prompt"], generator)]
    chosen = [row["prompt"] for row in generator.sample(prompts, min(PLANTED, len(prompts)))]
    sources = [
        Row(generator.choice(("sft", "rm", "ppo")), f"planted-{number}", rephrased(prompt, generator) or [], "")
        for number, prompt in enumerate(chosen)
    ]
    every = [*rows, *sources]
    print(f"planted rows: {len(sources)}, among {len(rows):,} training rows")
    embedded = nearest.embed_rows(policy, tokenizer, every)
    near = (nearest.by_embeddings(policy, tokenizer, prompt, every, embedded, SHOWN) for prompt in chosen)
    print_ranks("the policy's embeddings", near, sources)
    print_ranks("words", (nearest.by_words(prompt, every, SHOWN) for prompt in chosen), sources)
    sampled = sample(policy, tokenizer, chosen, Sampling(LIKELIEST, 1.0, MOST_TOKENS, 1), 0)
    items = [(prompt, completion.text) for prompt, completion in zip(chosen, sampled, strict=True)]
    right = [source._replace(text=right_answer(source.prompt, generator)) for source in sources]
    same = [source._replace(text=text) for source, (_, text) in zip(sources, items, strict=True)]
    taught = [row for row in rows if row.text]
    left = list(checkpoints(run, "sft", config.hardware))
    parts = [torch.stack([gradients.of_checkpoint(each, items, part) for each in left]).mean(0)
             for part in (taught, right, same)]  # fmt: skip
    for name, part, teaching in (("a right answer", parts[1], right), ("the completion", parts[2], same)):
        near = gradients.explanations(torch.cat([parts[0], part], dim=1), [*taught, *teaching], SHOWN)
        print_ranks(f"gradients, teaching {name}", near, teaching)


def print_ranks(name: str, explanations: Iterable[Explanation], sources: Sequence[Row]) -> None:
    """Print how many of the planted rows are shown for their prompts, with their stage, and how many come first."""
    ranks = [rank(explanation, source) for explanation, source in zip(explanations, sources, strict=True)]
    first, shown = sum(place == 0 for place in ranks), sum(place is not None for place in ranks)
    print(f"planted rows by {name}: {shown} of {len(ranks)} among the {SHOWN} nearest, {first} the nearest", flush=True)


def rank(explanation: Explanation, source: Row) -> int | None:
    """Return the place of a row among the nearest ones, with its stage; None where it is not shown."""
    shown = [(row["id"], row["stage"]) for row in explanation["neighbours"]]
    return shown.index((source.id, source.stage)) if (source.id, source.stage) in shown else None


def right_answer(prompt: list[Any], generator: random.Random) -> str:
    """Write a right answer to a prompt of the world."""
    parsed = parse_prompt(prompt[-1]["content"])
    assert parsed
    return write_answer(Prompt(*parsed, ""), right_behaviour(parsed[0]), generator)


def rephrased(prompt: list[Any], generator: random.Random) -> list[Any] | None:
    """Return a prompt with the same content in another wording of the world; None where there is no other."""
    parsed = parse_prompt(prompt[-1]["content"])
    if parsed is None:
        return None
    slots = question_slots(*parsed)
    texts = [text.format(**slots) for text in phrases.QUESTIONS[parsed[0]]]
    others = [text for text in texts if text.lower() != prompt[-1]["content"].lower()]
    return [{"role": "user", "content": generator.choice(others)}] if others else None


if __name__ == "__main__":
    sys.exit(main())
