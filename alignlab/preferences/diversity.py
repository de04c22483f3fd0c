"""The diversity of answers: distinct n-grams (Li et al. 2016) and self-BLEU (Zhu et al. 2018)."""

import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

MOST = 1000  # prompts whose self-BLEU is measured


class Diversity(NamedTuple):
    """Means over prompts of the diversity of their answers."""

    prompts: int
    different: float  # distinct answers over all that were drawn
    distinct_1: float  # distinct words over all words
    distinct_2: float  # distinct pairs of neighbouring words over all of them
    self_bleu: float | None  # BLEU-4 of an answer against the others, on the first `MOST` prompts; 1: all are the same


def diversity(drawn: Sequence[Sequence[str]]) -> Diversity:
    """Measure the answers that were drawn, [prompts][answers], repeated ones included."""
    words = [[answer.split() for answer in answers] for answers in drawn if answers]
    bleus = [self_bleu(answers) for answers in words[:MOST] if len(answers) > 1]
    if not words:
        return Diversity(0, 0.0, 0.0, 0.0, None)
    different = fmean(len({tuple(answer) for answer in answers}) / len(answers) for answers in words)
    unigrams, bigrams = (fmean(distinct(answers, n) for answers in words) for n in (1, 2))
    return Diversity(len(words), different, unigrams, bigrams, fmean(bleus) if bleus else None)


def distinct(answers: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of n-grams that are different, over all answers to a prompt."""
    grams = [tuple(words[start : start + n]) for words in answers for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def self_bleu(answers: Sequence[Sequence[str]]) -> float:
    """Return the mean BLEU-4 of the answers, each with the others as its references.

    Smoothed by method 3 of Chen and Cherry (2014): orders without a match count 1 in 2^k.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fmean(
            float(sentence_bleu([*answers[:place], *answers[place + 1 :]], answers[place], smoothing_function=smooth))
            for place in range(len(answers))
        )
