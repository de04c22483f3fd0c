"""Write the data set as it will be trained on, with a card of what came in and what each step did.

`data/<split>/<form>.jsonl` can be read again by `dataset=file`; card.json holds the facts, rejects.jsonl the broken
rows, and card.html shows it all on one page that asks nothing of the network. Training runs the same preparation
and finds it in the cache.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config import Config, DataSet, FileData, HhRlhfData, HubData, pocket_world
from alignlab.files import write_text

SPLITS = ("train", "validation", "test")


class Rows:
    """The rows of one split, read again from the disk each time that they are gone through."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from datasets import Dataset

        for batch in Dataset.from_file(str(self.file)).data.table.to_batches(max_chunksize=100):
            for row in batch.to_pylist():
                pair = {"completions": [row["chosen"], row["rejected"]]} if "chosen" in row else {}
                yield {"kind": "", "made_by": "", **row, **pair}


class Prepared(NamedTuple):
    """A data set on the disk: its splits, what each step did, how its files are written, its rejects."""

    splits: Mapping[str, Any]
    steps: dict[str, dict[str, Any]]
    files: dict[str, str]
    rejects: Path | None


class Planted(NamedTuple):
    """A fault that the pocket world's generator has planted, and how often it was found."""

    fault: str
    planted: int
    found: int


def run(config: Config, folder: Path, choices: Mapping[str, str]) -> None:
    """Prepare the data set and write its card; the last line printed is the page's path."""
    from alignlab.data.card import card
    from alignlab.tasks.record import repeatable
    from alignlab.tasks.train import prepare_data

    prepare_data(config)
    found = prepared(config.dataset)
    write_text(folder / "config.yaml", repeatable(config, choices))
    counts = {name: write_rows(rows, folder / "data" / name) for name, rows in found.splits.items()}
    if found.rejects:
        shutil.copyfile(found.rejects, folder / "rejects.jsonl")
    facts = {
        "dataset": config.dataset.kind,
        "files": found.files,
        "steps": found.steps,
        "forms": counts,
        "rows": {name: sum(forms.values()) for name, forms in counts.items()},
        "planted": [one._asdict() for one in planted(config.dataset, found.steps)],
        **plain(card(found.splits)),
    }
    write_text(folder / "card.json", json.dumps(facts, indent=1, ensure_ascii=False))
    write_text(folder / "card.html", page(facts, read_rejects(folder / "rejects.jsonl")))
    print("\n".join(summary(facts)))
    print(folder / "card.html")


def prepared(dataset: DataSet) -> Prepared:
    """Prepare any kind of data set, or find it prepared."""
    if isinstance(dataset, HubData):
        from alignlab.data import hub

        return prepared(hub.as_files(dataset))
    if isinstance(dataset, FileData):
        from alignlab.data import file

        report = file.report(dataset)
        place = file.prepare(dataset)
        splits = {name: Rows(place / f"{name}.arrow") for name in SPLITS}
        return Prepared(splits, report.steps, report.files, place / "rejects.jsonl")
    if isinstance(dataset, HhRlhfData):
        return of_transcripts(dataset)
    from alignlab.data import view

    rows: dict[str, list[dict[str, Any]]] = {}
    for name in SPLITS:
        shown = view(dataset, "demonstrations", name).to_list()
        rows[name] = [{"made_by": "", **row, "completions": [row["completion"]]} for row in shown]
        compared = view(dataset, "pairs", name).to_list()
        rows[name] += [{"made_by": "", **row, "completions": [row["chosen"], row["rejected"]]} for row in compared]
    return Prepared(rows, {"draw": step(sum(map(len, rows.values())), {}, {})}, {}, None)


def of_transcripts(dataset: HhRlhfData) -> Prepared:
    """The rows of HH-RLHF's files, and how they were read."""
    from alignlab.data import hh_rlhf

    report, place = hh_rlhf.report(dataset), hh_rlhf.prepare(dataset)
    splits = {name: Rows(place / f"{name}.arrow") for name in SPLITS}
    read = step(sum(report.rows.values()), report.rejects, report.notes)
    files = {str(path): "hh_rlhf" for path in (*dataset.train, *dataset.test)}
    return Prepared(splits, {"read": read}, files, place / "rejects.jsonl")


def step(rows_out: int, dropped: dict[str, int], notes: dict[str, int]) -> dict[str, Any]:
    """A step of which only the outcome is known, as the ledger of `dataset=file` writes it."""
    rows_in = rows_out + sum(dropped.values())
    return {"rows_in": rows_in, "rows_out": rows_out, "added": {}, "changed": {}, "dropped": dropped, "notes": notes}


def write_rows(rows: Any, folder: Path) -> dict[str, int]:
    """Write rows as JSON lines, one file a form, in shapes that are recognised again."""
    counts: dict[str, int] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        streams: dict[str, Any] = {}
        for row in rows:
            form, fields = written(row)
            if form not in streams:
                streams[form] = files.enter_context((folder / f"{form}.jsonl").open("w", encoding="utf-8"))
            kept = {name: row[name] for name in ("id", "kind", "made_by") if row[name]}
            streams[form].write(json.dumps(fields | kept, ensure_ascii=False) + "\n")
            counts[form] = counts.get(form, 0) + 1
    return counts


def written(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The form of a row, and the fields that it is written with."""
    answers = [{"role": "assistant", "content": text} for text in row["completions"]]
    match row["prompt"], answers:
        case [], _:
            return "text", {"text": row["completions"][0]}
        case prompt, []:
            return "prompts", {"prompt": prompt}
        case prompt, [answer]:
            return "demonstrations", {"messages": [*prompt, answer]}
        case prompt, [chosen, rejected]:
            return "pairs", {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}
        case prompt, _:
            return "rankings", {"prompt": prompt, "completions": row["completions"]}


def planted(dataset: DataSet, steps: Mapping[str, Any]) -> Iterator[Planted]:
    """Hold what was found against what the pocket world's generator says that it has planted in raw.csv."""
    from alignlab.pocket.world import data_folder

    world = pocket_world(dataset)
    if not isinstance(dataset, FileData) or not world or Path("raw.csv") not in dataset.path:
        return
    truth = json.loads((data_folder(world) / "raw.truth.json").read_text(encoding="utf-8"))
    cleaned, repeats = steps.get("clean", step(0, {}, {})), steps.get("deduplicate", step(0, {}, {}))["dropped"]
    found = {
        "duplicates": repeats.get("the same as the row before", 0),
        "near_duplicates": repeats.get("nearly the same as the row before", 0),
        "markup": cleaned["changed"].get("markup", 0),
        "broken_encoding": cleaned["changed"].get("encoding", 0),
        "missing_fields": sum(cleaned["dropped"].values()),
        "personal_data": sum(steps.get("mask", step(0, {}, {}))["changed"].values()),
    }
    yield from (Planted(fault, truth.get(fault, 0), count) for fault, count in found.items())


def masking(steps: Mapping[str, Any]) -> str:
    """Recall and false alarms of the masking in words, where the truth was known."""
    notes = steps.get("mask", {}).get("notes", {})
    there = notes.get("found", 0) + notes.get("missed", 0)
    clear = notes.get("false alarm", 0) + notes.get("left alone, rightly", 0)
    if not there:
        return ""
    found, wrong = notes.get("found", 0), notes.get("false alarm", 0)
    return f"masking found {found:,} of {there:,} ({found / there:.1%}), with {wrong:,} false alarms in {clear:,} rows"


def plain(value: Any) -> Any:
    """Named tuples as JSON writes them: objects, with what the properties of `Bias` work out."""
    if hasattr(value, "_asdict"):
        more = {"share": value.share} if hasattr(value, "share") else {}
        said = {"said": str(value)} if type(value).__name__ == "Leak" else {}
        return {name: plain(inner) for name, inner in value._asdict().items()} | more | said
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def read_rejects(path: Path, most: int = 20) -> list[dict[str, Any]]:
    """The first broken rows."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(most), lines, strict=False)]


def page(facts: dict[str, Any], rejects: list[dict[str, Any]]) -> str:
    """The card as one page; everything in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("prepare.html").render(**facts, rejects=rejects, masking=masking(facts["steps"]))


def summary(facts: Mapping[str, Any]) -> Iterator[str]:
    """The card in a few lines for the terminal."""
    for name, shape in facts["files"].items():
        yield f"{name}: {shape}"
    for name, done in facts["steps"].items():
        parts = [f"{name:<12} {done['rows_in']:>9,} in {done['rows_out']:>9,} out"]
        for what in ("added", "changed", "dropped"):
            parts += [f"{what} {count:,} ({reason})" for reason, count in done[what].items()]
        yield ", ".join(parts)
    yield "rows: " + ", ".join(f"{name} {count:,}" for name, count in facts["rows"].items())
    yield from (leak["said"] for leak in facts["leaks"])
    for one in facts["planted"]:
        yield f"{one['fault']}: {one['planted']:,} planted, {one['found']:,} found"
    if told := masking(facts["steps"]):
        yield told
