"""Make preference data: sample a model's answers, let a judge label them, agree on labels, and write them.

The run's folder holds `data/` in forms that every method reads, answers.jsonl, labels.jsonl and a report. See
`alignlab.pipeline.preference_inputs` for how a run resumes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab import judges
from alignlab.config.judge import Host
from alignlab.config.schema import Config
from alignlab.errors import Failure, failure
from alignlab.judges.label import label_all, labels_in
from alignlab.judges.protocol import Item, Labelled, Unlabelled
from alignlab.models.references import Source
from alignlab.pipeline.preference_inputs import Work, begin, judge_context
from alignlab.pipeline.prepare_inputs import locate_models, prepare_base, prepare_data
from alignlab.pipeline.run_folder import (
    CONFIG,
    LABELING_PAGE,
    LABELING_TABLE,
    PREFERENCES_PAGE,
    Result,
    point_latest,
    write_plan,
    write_result,
)
from alignlab.preferences import agreement, write_dataset
from alignlab.preferences.panel import join_panel, label_line
from alignlab.preferences.sample_answers import items
from alignlab.reports.preferences_page import Outcome, examples, facts, labeling, measurements, page
from alignlab.runtime.files import locked, write_text
from alignlab.runtime.journal import Journal, line
from alignlab.runtime.run_files import ANSWERS, LABELS, PREFERENCES


def run(config: Config, folder: Path) -> None:
    """Sample, judge, agree and write; the last line printed is the report's path."""
    from alignlab.pipeline.provenance import repeatable

    prepare_data(config)
    config = locate_models(config)
    work = begin(config)
    if isinstance(work.policy, Source) or work.models:
        prepare_base(config)
    write_text(folder / CONFIG, repeatable(config))
    answers = sample(work)
    if criteria := work.settings.judge.to_fill_in:
        hand_out(work, folder, answers, criteria)
    else:
        write(work, folder, outcome(work, answers))
    point_latest(folder)


def sample(work: Work) -> list[dict[str, Any]]:
    """Return the answers to every prompt, in the order of the prompts; those that are missing are sampled."""
    with locked(work.answers):
        journal = Journal(work.answers)
        print_recorded("answers", journal, len(work.prompts))
        if any(prompt.id not in journal.rows for prompt in work.prompts):
            sample_missing(work, journal)
    return [journal.rows[prompt.id] for prompt in work.prompts]


def sample_missing(work: Work, journal: Journal) -> None:
    """Answer the prompts that the journal does not hold."""
    if isinstance(work.policy, Host):
        from alignlab.preferences.sample_from_server import fetch_answers

        fetch_answers(work.prompts, work.settings, work.config.seed, journal)
        return
    from alignlab.models.load import load_policy
    from alignlab.preferences.sample_answers import sample_answers

    policy = load_policy(work.policy.path, work.config.hardware)
    sample_answers(*policy, work.prompts, work.settings, work.config.seed, journal)


def judge_answers(work: Work, answers: list[dict[str, Any]]) -> tuple[list[Labelled], list[Unlabelled]]:
    """Return the labels of all answers, in the order of the prompts, and the items that could not be labelled."""
    compared = different(answers)
    with locked(work.labels):
        journal = Journal(work.labels)
        print_recorded("labels", journal, len(compared))
        missing: list[Unlabelled] = []
        if any(item.id not in journal.rows for item in compared):
            judge = judges.load(work.settings.judge, judge_context(work))
            missing = label_all(judge, compared, journal)
    return labels_in(journal, compared), missing


def different(answers: list[dict[str, Any]]) -> list[Item]:
    """Return the prompts with different answers, as a judge sees them; raises a `Failure` where there are none."""
    compared = items(answers)
    if not compared:
        raise failure("task=preferences", "no prompt has two different answers", "raise preferences.temperature")
    return compared


def print_recorded(what: str, journal: Journal, wanted: int) -> None:
    """Print how much an earlier run has recorded."""
    if journal.rows:
        print(f"{what} to {len(journal.rows):,} of {wanted:,} prompts are there already", flush=True)


def outcome(work: Work, answers: list[dict[str, Any]]) -> Outcome:
    """Judge the answers, agree on their labels, and read people's own labels of them where there are any."""
    settings = work.settings
    labels, missing = judge_answers(work, answers)
    labels = join_panel(labels, settings.panel, work.answers_hash)
    sizes = {row["id"]: len(row["answers"]) for row in answers}
    agreed = agreement.rank_items(labels, sizes, settings.consensus, settings.weights)
    data = write_dataset.build_rows(answers, agreed)
    return Outcome(answers, labels, missing, agreed, data, people_labels(work, answers))


def people_labels(work: Work, answers: list[dict[str, Any]]) -> list[Labelled]:
    """Return people's labels of the same answers."""
    from alignlab.judges.human_tables import HumanTables, criteria_of

    paths = work.settings.people.path
    if not paths:
        return []
    tables = HumanTables(paths, criteria_of(paths[0]))
    return [result for result in tables.label(items(answers), ()) if isinstance(result, Labelled)]


def hand_out(work: Work, folder: Path, answers: list[dict[str, Any]], criteria: Mapping[str, str]) -> None:
    """Write the table that people fill in, and their instructions."""
    from alignlab.judges.human_tables import table_to_fill_in

    compared = different(answers)
    table = folder / LABELING_TABLE
    write_text(folder / ANSWERS, "".join(map(line, answers)))
    write_text(table, table_to_fill_in(compared, criteria, work.config.seed))
    write_text(folder / LABELING_PAGE, labeling(compared, criteria))
    print(f"{len(compared):,} prompts to rank: give the same command with judge.path=… once this is filled in:")
    print(table)
    print(folder / LABELING_PAGE)


def write(work: Work, folder: Path, result: Outcome) -> None:
    """Write the answers, the labels, the data and the report; the last line printed is the report's path."""
    known = {"answers_hash": work.answers_hash, **facts(work.config, work.settings, work.policy_name, result)}
    write_text(folder / ANSWERS, "".join(map(line, result.answers)))
    write_text(folder / LABELS, "".join(map(label_line, result.labels)))
    write_dataset.write(result.data, folder / "data", write_dataset.card(work.config, work.settings, known))
    write_text(folder / PREFERENCES, json.dumps(known, indent=1, ensure_ascii=False))
    write_text(folder / PREFERENCES_PAGE, page(known, examples(result)))
    record: Result = {
        "stage": "preferences",
        "seed": work.config.seed,
        "measurements": measurements(known),
        "seconds": known["cost"]["seconds"],
        "model": str(work.policy.path) if isinstance(work.policy, Source) else work.policy.model,
        "report": str(folder / PREFERENCES_PAGE),
    }
    write_result(record, folder / "preferences", folder)
    write_plan(folder, [{"stage": "preferences", "action": "ran"}])
    print("\n".join(summary(known)))
    print(folder / "data")
    print(folder / PREFERENCES_PAGE)


def summary(known: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts in a few lines for the terminal."""
    yield f"{known['labelled']:,} of {known['compared']:,} prompts labelled by judge={known['judge']}"
    yield from (f"no label for {count:,}: {why}" for why, count in known["unlabelled"].items())
    yield from (f"tried again {count:,} times: {why}" for why, count in known["cost"]["again"].items())
    for row in known["right"]:
        unit = " points" if "−" in row["name"] else "%"
        yield f"{row['name']}: {100 * row['value']:.1f}{unit} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    yield from (f"left out: {count:,} {why}" for why, count in known["left_out"].items())
    yield ", ".join(f"{name} {count:,}" for name, count in known["rows"].items())


def plan(config: Config) -> Iterator[str]:
    """Yield what the command would do, and how much of it is done already."""
    prepare_data(config)
    try:
        work = begin(config)
    except Failure:
        if not config.dataset.is_remote:
            raise
        yield f"preferences on {config.dataset.kind}: the prompts are unknown until the data is downloaded"
        return
    answered, labelled = (len(Journal(path).rows) if path.exists() else 0 for path in (work.answers, work.labels))
    settings = work.settings
    yield f"preferences on {config.dataset.kind}, answers of {work.policy_name}, judge {settings.judge.kind}"
    yield f"  sample  {settings.samples} answers to each of {len(work.prompts):,} prompts, {answered:,} done"
    yield f"  judge   every prompt with different answers, {labelled:,} done"
