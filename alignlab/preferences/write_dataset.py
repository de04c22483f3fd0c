"""The data that judged answers make: pairs, rankings and best-of-n, as JSON lines and as `datasets`, with a card.

A pair weighs 1/C(n, 2), so that every prompt weighs the same however many answers it has (Ouyang et al. 2022, section
3.5); `label` is the probability that the chosen answer is the better one. Two answers of equal worth make no pair, an
order with equals in it no ranking, and a best answer that was cut off no demonstration. Where an answer of a
pair or a ranking was cut off, `finished` says which: no end token is learned after it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.preferences.agreement import Ranked
from alignlab.runtime.files import write_text
from alignlab.runtime.journal import line
from alignlab.runtime.run_files import CARD

FORMS = ("pairs", "rankings", "best")


class Data(NamedTuple):
    """Rows by form, and how often something made no row, by the reason."""

    rows: dict[str, list[dict[str, Any]]]
    left_out: Counter[str]


def build_rows(answers: Sequence[Mapping[str, Any]], agreed: Mapping[str, Ranked]) -> Data:
    """Build the rows of every item on which there is a consensus, in the order of the answers."""
    data = Data({name: [] for name in FORMS}, Counter())
    for row in answers:
        if len(row["answers"]) < 2:
            data.left_out["prompts with fewer than two different answers"] += 1
        elif row["id"] not in agreed:
            data.left_out["prompts without a label"] += 1
        else:
            add_rows(data, row, agreed[row["id"]])
    return data


def add_rows(data: Data, row: Mapping[str, Any], ranked: Ranked) -> None:
    """Add the rows of one prompt."""
    pairs = list(pair_rows(row, ranked))
    data.rows["pairs"] += pairs
    data.left_out["pairs of equals"] += len(ranked.pairs) - len(pairs)
    if is_strict(ranked):
        texts = [row["answers"][place]["text"] for place in ranked.order]
        ends = finished(row, ranked.order)
        data.rows["rankings"].append({**identity(row), "prompt": row["prompt"], "completions": texts} | ends)
    else:
        data.left_out["rankings with equals"] += 1
    best = row["answers"][ranked.order[0]]
    if not pairs:
        data.left_out["best answers among equals"] += 1
    elif best["finished"]:
        data.rows["best"].append({**identity(row), "messages": [*row["prompt"], assistant_turn(best["text"])]})
    else:
        data.left_out["best answers that were cut off"] += 1


def identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that every row of a prompt begins with."""
    return {"id": row["id"], "kind": row["kind"]} if row["kind"] else {"id": row["id"]}


def assistant_turn(text: str) -> Turn:
    """Return an answer as a conversation turn."""
    return {"role": "assistant", "content": text}


def pair_rows(row: Mapping[str, Any], ranked: Ranked) -> Iterator[dict[str, Any]]:
    """Yield a row for every two answers of which one is better."""
    texts = [answer["text"] for answer in row["answers"]]
    for (i, j), share in ranked.pairs.items():
        if share != 0.5:
            chosen, rejected = (i, j) if share > 0.5 else (j, i)
            yield {
                **identity(row),
                "id": f"{row['id']}/{chosen}-{rejected}",
                "prompt": row["prompt"],
                "chosen": [assistant_turn(texts[chosen])],
                "rejected": [assistant_turn(texts[rejected])],
                "label": max(share, 1 - share),
                "weight": 1 / comb(len(texts), 2),
                **finished(row, [chosen, rejected]),
            }


def finished(row: Mapping[str, Any], places: Sequence[int]) -> dict[str, list[bool]]:
    """Return the field `finished` of the answers at some places; none where all ended by themselves."""
    ends = [bool(row["answers"][place]["finished"]) for place in places]
    return {} if all(ends) else {"finished": ends}


def is_strict(ranked: Ranked) -> bool:
    """Return whether each answer of an order is better than the next."""
    for better, worse in zip(ranked.order, ranked.order[1:], strict=False):
        share = ranked.pairs[min(better, worse), max(better, worse)]
        if (share if better < worse else 1 - share) <= 0.5:
            return False
    return True


def write(data: Data, folder: Path, card: str) -> None:
    """Write each form as JSON lines and with `datasets`, and the card beside them."""
    from datasets import Dataset

    for name, rows in data.rows.items():
        if rows:
            write_text(folder / f"{name}.jsonl", "".join(map(line, rows)))
            Dataset.from_list(rows).save_to_disk(folder / name)
    write_text(folder / CARD, card)


def card(config: Config, settings: Preferences, known: Mapping[str, Any]) -> str:
    """Return how the rows were made, as a data set's card on the hub; `known` is what preferences.json holds."""
    files = [f"- config_name: {name}\n  data_files: {name}.jsonl" for name in FORMS if known["rows"][name]]
    reward = f"`reward={config.reward.kind}` {config.reward.model_path or ''}"
    judge = settings.judge.described(reward, settings.judge_model)
    return "\n".join(
        [
            *("---", "tags: [alignlab, preferences]", "configs:", *files, "---"),
            f"# Preferences over answers of {known['policy']}",
            "",
            f"{settings.samples} answers to each of {known['prompts']:,} prompts of `{config.dataset.kind}`, sampled "
            f"at temperature {settings.temperature:g} and top-p {settings.top_p:g} with seed {config.seed}; "
            f"those that say the same counted once. {known['labelled']:,} of {known['compared']:,} prompts with "
            f"different answers were labelled, by {judge}; labelers became one by "
            f"{settings.consensus.replace('_', ' ')}.",
            "",
            *(f"- `{name}`: {count:,} rows" for name, count in known["rows"].items()),
            *(f"- left out: {count:,} {why}" for why, count in sorted(known["left_out"].items())),
            *(f"- labeler {labeler['name']}: {labeler_in_words(labeler)}" for labeler in known["labelers"]),
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


def labeler_in_words(labeler: Mapping[str, Any]) -> str:
    """Return what is known of a labeler, for the card."""
    reliable = "" if labeler["reliability"] is None else f", reliability {labeler['reliability']:.2f} by agreement"
    earlier = labeler["earlier"]
    bias = "" if earlier is None else f", the answer shown earlier preferred in {earlier['value']:.1%}"
    return f"{labeler['comparisons']:,} comparisons{reliable}{bias}"
