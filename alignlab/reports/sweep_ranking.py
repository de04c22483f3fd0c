"""The runs of a sweep, best first, by the measure that the sweep was made for.

Runs that differ in their seed alone are one place: its value is their mean, its interval Student's over the seeds. A
run that stands alone has the interval of its own measure, over prompts. Where intervals overlap, nothing says that
the better value is better, and the table says so. Without a measure to go by nothing is ranked: the runs stand in the
order of the command. The world's truth may be shown beside, and never ranks.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import mistake
from alignlab.evaluation.scores import Measurement
from alignlab.evaluation.statistics import student
from alignlab.pipeline.run_folder import CONFIG, is_finished, read_result, read_settings
from alignlab.pipeline.sweep_folder import read_facts, read_outcome, read_trial, run_folders
from alignlab.reports.run_results import HEADLINES, number

CONFIDENCE = 0.95
BESIDE = ("reward/mean", "eval/kl", "length/mean", "gold/score", "gold/harmful_compliance")


class Ran(NamedTuple):
    """One run of a sweep: its number, what was varied, how it ended, and its last stage's measurements by name."""

    number: int
    values: dict[str, str]
    state: str
    message: str
    rows: dict[str, Measurement]

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What was varied besides the seed."""
        return tuple((name, value) for name, value in self.values.items() if name != "seed")


class Place(NamedTuple):
    """Runs of the same settings: the value of the measure with its interval, and the means of others."""

    settings: tuple[tuple[str, str], ...]
    runs: tuple[int, ...]
    value: float
    low: float
    high: float
    beside: dict[str, float]

    @property
    def name(self) -> str:
        """What it is called in a drawing."""
        return f"run{'s' * (len(self.runs) > 1)} {', '.join(map(str, self.runs))}"


class Ranking(NamedTuple):
    """The places, the measure, and whether it has ranked them (best first) or is only shown."""

    measure: str
    ranked: bool
    places: list[Place]
    others: list[Ran]
    command: str


def ranking(folder: Path) -> Ranking | None:
    """Read a sweep's folder; None where no run has ended with a measure to show."""
    facts = read_facts(folder)
    runs = read_runs(folder)
    ended = [run for run in runs if run.rows]
    wanted = facts["sweep"]["objective"]
    known = [name for name in (*HEADLINES, *(ended[-1].rows if ended else ())) if ended and name in ended[-1].rows]
    measure = wanted or next(iter(known), None)
    shown = [run for run in ended if measure in run.rows]
    if wanted and ended and not shown:
        raise mistake("sweep.objective", f"no run has measured {wanted}", f"they have {', '.join(ended[-1].rows)}")
    if measure is None or not shown:
        return None
    alone = not wanted and len({run.settings for run in shown}) == 1
    groups: dict[Any, list[Ran]] = {}
    for run in shown:
        groups.setdefault(run.number if alone else run.settings, []).append(run)
    places = [placed(members, measure) for members in groups.values()]
    if wanted:
        places.sort(key=lambda place: place.value, reverse=facts["sweep"]["direction"] == "maximize")
    others = [run for run in runs if run not in shown]
    return Ranking(measure, bool(wanted), places, others, repeat(folder, places[0]) if wanted else "")


def read_runs(folder: Path) -> list[Ran]:
    """Every run that was begun, by its number."""
    return [read_run(place) for place in run_folders(folder)]


def read_run(folder: Path) -> Ran:
    """One run, from its own files."""
    trial, outcome = read_trial(folder), read_outcome(folder)
    state = outcome["state"] if outcome else "not ended"
    result = read_result(folder) if is_finished(folder) and state in ("finished", "not ended") else None
    values = trial["values"] if trial else {"seed": str(result["seed"])} if result else {}
    rows = result["measurements"] if result else []
    message = outcome["message"] if outcome else ""
    return Ran(int(folder.name), values, "finished" if result else state, message, {row["name"]: row for row in rows})


def placed(runs: Sequence[Ran], measure: str) -> Place:
    """Runs of the same settings as one place."""
    found = [run.rows[measure] for run in runs]
    values = [float(row["value"]) for row in found]
    mean, low, high = student(values, CONFIDENCE) if runs[1:] else (values[0], found[0]["low"], found[0]["high"])
    names = [name for name in BESIDE if name != measure and all(name in run.rows for run in runs)]
    beside = {name: sum(run.rows[name]["value"] for run in runs) / len(runs) for name in names}
    settings = runs[0].settings or (("seed", str(runs[0].values.get("seed", ""))),)
    return Place(settings, tuple(run.number for run in runs), mean, low, high, beside)


def repeat(folder: Path, best: Place) -> str:
    """The command that does the best run again, measured on prompts that have chosen nothing."""
    config = folder / str(best.runs[0]) / CONFIG
    chosen_on = read_settings(config.parent).get("evaluation", {}).get("split", "test")
    more = " evaluation.split=test" if chosen_on != "test" else ""
    return f"python -m alignlab experiment={config}{more}"


def unclear(found: Ranking) -> list[Place]:
    """The places whose intervals reach into the best one's."""
    best = found.places[0]
    return [place for place in found.places[1:] if place.high >= best.low and place.low <= best.high]


def told(found: Ranking) -> Iterator[str]:
    """A ranking as Markdown: the table, what it says, the runs without a value, and the command for the best."""
    head, rows = table(found)
    yield f"| | {' | '.join(head)} |"
    yield f"|--:|{'--:|' * len(head)}"
    yield from (f"| {rank} | {' | '.join(row)} |" for rank, row in enumerate(rows, 1))
    yield ""
    yield from (f"- {without_value(run)}" for run in found.others)
    if found.others:
        yield ""
    yield from sentences(found)


def sentences(found: Ranking) -> Iterator[str]:
    """What a ranking says, in words."""
    if not found.ranked:
        return
    best = found.places[0]
    settings = ", ".join(f"{name}={value}" for name, value in best.settings)
    yield f"Best by {found.measure}: {best.name} with {settings}."
    near = unclear(found)
    if near:
        yield f"Not clearly worse, since intervals overlap: {', '.join(place.name for place in near)}."
    if any(name.startswith("gold/") for name in best.beside):
        yield "gold/… is the world's truth: shown, and nothing was chosen by it."
    yield f"The best again: `{found.command}`"


def table(found: Ranking) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table, as text."""
    first = found.places[0]
    names, beside = [name for name, _ in first.settings], list(first.beside)
    rows = [
        [
            ", ".join(map(str, place.runs)),
            *(dict(place.settings)[name] for name in names),
            plain(place.value),
            f"{plain(place.low)} to {plain(place.high)}",
            *(plain(place.beside[name]) if name in place.beside else "" for name in beside),
        ]
        for place in found.places
    ]
    return ["run", *names, found.measure, "95%", *beside], rows


def without_value(run: Ran) -> str:
    """A run that has no value, and why."""
    settings = ", ".join(f"{name}={value}" for name, value in run.values.items())
    return f"run {run.number} ({settings}): {run.state}. {run.message}".rstrip()


def plain(value: float) -> str:
    """A number with its minus sign."""
    return number(value, share=False).replace("-", "−")


def as_json(found: Ranking) -> str:
    """A ranking for other programs."""
    places = [place._asdict() | {"settings": dict(place.settings)} for place in found.places]
    others = [
        {"run": run.number, "state": run.state, "message": run.message, "values": run.values} for run in found.others
    ]
    whole = {"measure": found.measure, "ranked": found.ranked, "places": places, "others": others}
    return json.dumps(whole | {"command": found.command}, indent=1) + "\n"
