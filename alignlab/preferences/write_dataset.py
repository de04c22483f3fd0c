"""What is made of judged answers: pairs, rankings and best-of-n, as JSON lines and as `datasets`, with a card.

A pair weighs 1/C(n, 2), so that every prompt weighs the same however many answers it has (Ouyang et al. 2022, section
3.5); `label` is the probability that the chosen answer is the better one. Two answers of equal worth make no pair, an
order with equals in it no ranking, and a best answer that was cut off no demonstration.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.judge import AnnotatorsJudge, HumanJudge, OpenaiJudge, RewardJudge
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.preferences.agreement import Ranked
from alignlab.runtime.files import write_text
from alignlab.runtime.journal import line
from alignlab.runtime.run_files import CARD

FORMS = ("pairs", "rankings", "best")


class Made(NamedTuple):
    """Rows by form, and what made none."""

    rows: dict[str, list[dict[str, Any]]]
    left_out: Counter[str]


def make(answers: Sequence[Mapping[str, Any]], agreed: Mapping[str, Ranked]) -> Made:
    """Make rows of every item on which there is a consensus, in the order of the answers."""
    made = Made({name: [] for name in FORMS}, Counter())
    for row in answers:
        if len(row["answers"]) < 2:
            made.left_out["prompts with fewer than two different answers"] += 1
        elif row["id"] not in agreed:
            made.left_out["prompts without a label"] += 1
        else:
            add(made, row, agreed[row["id"]])
    return made


def add(made: Made, row: Mapping[str, Any], ranked: Ranked) -> None:
    """Make the rows of one prompt."""
    own = list(pairs(row, ranked))
    made.rows["pairs"] += own
    made.left_out["pairs of equals"] += len(ranked.pairs) - len(own)
    if strict(ranked):
        texts = [row["answers"][place]["text"] for place in ranked.order]
        made.rows["rankings"].append({**named(row), "prompt": row["prompt"], "completions": texts})
    else:
        made.left_out["rankings with equals"] += 1
    best = row["answers"][ranked.order[0]]
    if not own:
        made.left_out["best answers among equals"] += 1
    elif best["finished"]:
        made.rows["best"].append({**named(row), "messages": [*row["prompt"], said(best["text"])]})
    else:
        made.left_out["best answers that were cut off"] += 1


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """What every row of a prompt begins with."""
    return {"id": row["id"], "kind": row["kind"]} if row["kind"] else {"id": row["id"]}


def said(text: str) -> Turn:
    """An answer as a turn."""
    return {"role": "assistant", "content": text}


def pairs(row: Mapping[str, Any], ranked: Ranked) -> Iterator[dict[str, Any]]:
    """Every two answers of which one is better."""
    texts = [one["text"] for one in row["answers"]]
    for (i, j), share in ranked.pairs.items():
        if share != 0.5:
            chosen, rejected = (i, j) if share > 0.5 else (j, i)
            yield {
                **named(row),
                "id": f"{row['id']}/{chosen}-{rejected}",
                "prompt": row["prompt"],
                "chosen": [said(texts[chosen])],
                "rejected": [said(texts[rejected])],
                "label": max(share, 1 - share),
                "weight": 1 / comb(len(texts), 2),
            }


def strict(ranked: Ranked) -> bool:
    """Whether each answer of an order is better than the next."""
    for better, worse in zip(ranked.order, ranked.order[1:], strict=False):
        share = ranked.pairs[min(better, worse), max(better, worse)]
        if (share if better < worse else 1 - share) <= 0.5:
            return False
    return True


def write(made: Made, folder: Path, card: str) -> None:
    """Write each form as JSON lines and as a set of `datasets`, and the card beside them."""
    from datasets import Dataset

    for name, rows in made.rows.items():
        if rows:
            write_text(folder / f"{name}.jsonl", "".join(map(line, rows)))
            Dataset.from_list(rows).save_to_disk(folder / name)
    write_text(folder / CARD, card)


def card(config: Config, settings: Preferences, known: Mapping[str, Any]) -> str:
    """Say how the rows were made, as a data set's card on the hub does; `known` is what preferences.json holds."""
    files = [f"- config_name: {name}\n  data_files: {name}.jsonl" for name in FORMS if known["rows"][name]]
    return "\n".join(
        [
            *("---", "tags: [alignlab, preferences]", "configs:", *files, "---"),
            f"# Preferences over answers of {known['policy']}",
            "",
            f"{settings.samples} answers to each of {known['prompts']:,} prompts of `{config.dataset.kind}`, sampled "
            f"at temperature {settings.temperature:g} and top-p {settings.top_p:g} with seed {config.seed}; "
            f"those that say the same counted once. {known['labelled']:,} of {known['compared']:,} prompts with "
            f"different answers were labelled, by {judge_in_words(config, settings)}; labelers became one by "
            f"{settings.consensus.replace('_', ' ')}.",
            "",
            *(f"- `{name}`: {count:,} rows" for name, count in known["rows"].items()),
            *(f"- left out: {count:,} {why}" for why, count in sorted(known["left_out"].items())),
            *(f"- labeler {one['name']}: {told(one)}" for one in known["labelers"]),
            *(
                f"- {split['summary'].replace('the training rows', 'these prompts')}"
                for split in known["contamination"]
            ),
            "",
            "A pair weighs 1/C(n, 2), where n is the number of different answers to its prompt; `label` is the "
            "probability that the chosen answer is the better one.",
            "",
        ]
    )


def judge_in_words(config: Config, settings: Preferences) -> str:
    """Who judged, for the card."""
    match settings.judge:
        case OpenaiJudge(model=model, compare=compare, orders=orders):
            return f"{model}, which ranked by {' and '.join(settings.judge.criteria)} ({compare}, shown {orders} times)"
        case RewardJudge():
            return f"a reward (`reward={config.reward.kind}` {getattr(config.reward, 'path', '')})"
        case HumanJudge():
            return "people"
        case AnnotatorsJudge():
            return "simulated annotators of the pocket world"
        case _:
            return f"a language model ({settings.judge_model}) under a constitution (`judge={settings.judge.kind}`)"


def told(labeler: Mapping[str, Any]) -> str:
    """What is known of a labeler, for the card."""
    reliable = "" if labeler["reliability"] is None else f", reliability {labeler['reliability']:.2f} by agreement"
    earlier = labeler["earlier"]
    bias = "" if earlier is None else f", the answer shown earlier preferred in {earlier['value']:.1%}"
    return f"{labeler['comparisons']:,} comparisons{reliable}{bias}"
