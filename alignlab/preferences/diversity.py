"""How much answers differ: distinct n-grams (Li et al. 2016) and self-BLEU (Zhu et al. 2018)."""

import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

MOST = 1000  # prompts whose answers are held against each other word by word


class Diversity(NamedTuple):
    """Of the answers to a prompt, on average over prompts: shares of n-grams that differ, and BLEU against the others.

    `different` counts distinct answers over all that were drawn. A self-BLEU of 1 says that all are the same; it is
    measured on the first prompts, `MOST` of them.
    """

    prompts: int
    different: float
    distinct_1: float
    distinct_2: float
    self_bleu: float | None


def diversity(drawn: Sequence[Sequence[str]]) -> Diversity:
    """Measure the answers that were drawn, [prompts][answers], with those that repeat another."""
    words = [[answer.split() for answer in answers] for answers in drawn if answers]
    bleus = [self_bleu(answers) for answers in words[:MOST] if len(answers) > 1]
    if not words:
        return Diversity(0, 0.0, 0.0, 0.0, None)
    different = fmean(len({tuple(answer) for answer in answers}) / len(answers) for answers in words)
    one, two = (fmean(distinct(answers, n) for answers in words) for n in (1, 2))
    return Diversity(len(words), different, one, two, fmean(bleus) if bleus else None)


def distinct(answers: Sequence[Sequence[str]], n: int) -> float:
    """The share of n-grams that are different, over all answers to a prompt."""
    grams = [tuple(words[start : start + n]) for words in answers for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def self_bleu(answers: Sequence[Sequence[str]]) -> float:
    """The mean BLEU-4 of each answer with the others as its references; orders without a match count 1 in 2^k.

    The smoothing is the third of Chen and Cherry (2014), NIST's.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fmean(
            float(sentence_bleu([*answers[:own], *answers[own + 1 :]], answers[own], smoothing_function=smooth))
            for own in range(len(answers))
        )
