"""Write the data set as it will be trained on, with a card that shows the input and the effect of each step.

`data/<split>/<form>.jsonl` can be read again by `dataset=file`. card.json holds the statistics, rejects.jsonl the
broken rows, and card.html is a page that loads nothing from the network. Training runs the same preparation and finds
it in the cache.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.data.prepared import Part, Rows, by_parts, describe_unread, planted, prepare
from alignlab.pipeline.run_folder import CONFIG, DATA_CARD, DATA_CARD_PAGE
from alignlab.reports.data_card import as_json, masking, page, read_rejects
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import REJECTS

COMPUTES = False
ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder for each row


def run(config: Config, folder: Path) -> None:
    """Prepare the data set and write its card; the last line printed is the page's path."""
    from alignlab.pipeline.prepare_inputs import prepare_data
    from alignlab.pipeline.provenance import repeatable
    from alignlab.reports.data_card import card

    prepare_data(config)
    prepared = prepare(config.dataset)
    write_text(folder / CONFIG, repeatable(config))
    counts = {name: write_rows(rows, folder / "data" / name) for name, rows in prepared.splits.items()}
    if prepared.rejects:
        shutil.copyfile(prepared.rejects, folder / REJECTS)
    facts = {
        "dataset": config.dataset.kind,
        "files": prepared.files,
        "steps": prepared.steps,
        "unread": dict(prepared.unread),
        "forms": counts,
        "rows": {name: sum(forms.values()) for name, forms in counts.items()},
        "planted": [fault._asdict() for fault in planted(config.dataset, prepared.steps)],
        **as_json(card(prepared.splits)),
    }
    write_text(folder / DATA_CARD, json.dumps(facts, indent=1, ensure_ascii=False))
    write_text(folder / DATA_CARD_PAGE, page(facts, read_rejects(folder / REJECTS)))
    print("\n".join(summary(facts)))
    print(folder / DATA_CARD_PAGE)


def write_rows(rows: Rows, folder: Path) -> dict[str, int]:
    """Write rows as JSON lines, one file per form, in formats that `dataset=file` detects; return their counts."""
    counts: Counter[str] = Counter()
    folder.mkdir(parents=True, exist_ok=True)
    with by_parts(lines_by_form, {folder.name: rows}) as parts, ExitStack() as files:
        streams: dict[str, Any] = {}
        for part in parts:
            for form, lines in part.items():
                if form not in streams:
                    streams[form] = files.enter_context((folder / f"{form}.jsonl").open("w", encoding="utf-8"))
                streams[form].write("".join(lines))
                counts[form] += len(lines)
    return dict(counts)


def lines_by_form(part: Part) -> dict[str, list[str]]:
    """Return rows as JSON lines by their form."""
    lines: dict[str, list[str]] = {}
    for row in part.rows:
        form, fields = form_of(row)
        kept = {name: row[name] for name in ("id", "kind", "made_by") if row[name]}
        kept |= {name: row[name] for name in ("label", "weight") if row.get(name, 1.0) != 1.0}
        if row.get("rated"):
            kept |= {"label": bool(row["label"])} | ({"harms": row["harms"]} if row["harms"] else {})
        for place in row.get("context") or ():  # from the prompt's end, which the completion follows
            fields["messages"][place - 1] = fields["messages"][place - 1] | {"weight": 0}
        if row.get("cut_off"):
            kept["finished"] = [place not in row["cut_off"] for place in range(len(row["completions"]))]
        lines.setdefault(form, []).append(ENCODE(fields | kept) + "\n")
    return lines


def form_of(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the form of a row, and the fields that it is written with."""
    completions = [{"role": "assistant", "content": text} for text in row["completions"]]
    match row["prompt"], completions:
        case [], _:
            return "text", {"text": row["completions"][0]}
        case prompt, []:
            return "prompts", {"prompt": prompt}
        case prompt, [completion]:
            form = ("good_answers" if row["label"] else "bad_answers") if row.get("rated") else "demonstrations"
            return form, {"messages": [*prompt, completion]}
        case prompt, [chosen, rejected]:
            return "pairs", {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}
        case prompt, _:
            return "rankings", {"prompt": prompt, "completions": row["completions"]}


def summary(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the card in a few lines for the terminal."""
    for name, row_format in facts["files"].items():
        yield f"{name}: {row_format}"
    yield from describe_unread(facts["unread"])
    for name, done in facts["steps"].items():
        parts = [f"{name:<12} {done['rows_in']:>9,} in {done['rows_out']:>9,} out"]
        for what in ("added", "changed", "dropped"):
            parts += [f"{what} {count:,} ({reason})" for reason, count in done[what].items()]
        yield ", ".join(parts)
    yield from (
        f"{reason}: {count:,} rows" for reason, count in facts["steps"].get("read", {}).get("notes", {}).items()
    )
    yield "rows: " + ", ".join(f"{name} {count:,}" for name, count in facts["rows"].items())
    yield from (split["summary"] for split in facts["contamination"])
    for fault in facts["planted"]:
        yield f"{fault['fault']}: {fault['planted']:,} planted, {fault['found']:,} found"
    if sentence := masking(facts["steps"]):
        yield sentence
