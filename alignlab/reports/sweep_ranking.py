"""The runs of a sweep, best first, by the measure that the sweep optimises.

Runs that differ in their seed alone are one place: its value is their mean, with Student's interval over the seeds. A
place with one run has the interval of its measure over prompts. Where intervals overlap, the table says that the better
value is not clearly better. Without `sweep.objective` nothing is ranked, and the runs stand in the order of the
command. Gold measures may be shown beside the objective, but never rank.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import mistake
from alignlab.evaluation.scores import Measurement
from alignlab.evaluation.statistics import student
from alignlab.pipeline.run_folder import CONFIG, PLAN, is_finished, read_result, read_settings
from alignlab.pipeline.sweep_folder import Facts, read_facts, read_outcome, read_trial, run_folders
from alignlab.reports.headline import headline
from alignlab.reports.run_results import HEADLINES, ends, is_share, number, read_stages

CONFIDENCE = 0.95
BESIDE = (  # shown, never ranked by
    *("reward/mean", "eval/kl", "length/mean", "gold/score", "gold/harmful_compliance", "gold/over_refusal"),
    *("gold/helpful", "refusal/safe_answered"),
)


class EndedRun(NamedTuple):
    """One run of a sweep: its number, its varied values, how it ended, and the last stage's measurements by name."""

    number: int
    values: dict[str, str]
    state: str
    message: str
    rows: dict[str, Measurement]

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Return the varied settings except the seed."""
        return tuple((name, value) for name, value in self.values.items() if name != "seed")


class Place(NamedTuple):
    """Runs of the same settings: the value of the measure with its interval, and the means of other measures.

    `shares` names those of all these measures that are shown in percent.
    """

    settings: tuple[tuple[str, str], ...]
    runs: tuple[int, ...]
    value: float
    low: float
    high: float
    beside: dict[str, float]
    shares: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return what the place is called in a drawing."""
        return f"run{'s' * (len(self.runs) > 1)} {', '.join(map(str, self.runs))}"


class Ranking(NamedTuple):
    """The places, the measure, whether it ranks them (best first), the runs without a value, and the best's command.

    The objective alone says little of a run, so the best one's headline names what got worse.
    """

    measure: str
    ranked: bool
    places: list[Place]
    others: list[EndedRun]
    command: str
    verdict: str = ""  # of the best run, over all measures


def ranking(folder: Path) -> Ranking | None:
    """Rank the runs of a sweep; None where no run ended with a measure to show."""
    facts = read_facts(folder)
    runs = [read_run(place) for place in run_folders(folder)]
    measure = measure_of(facts, [run for run in runs if run.rows])
    shown = [run for run in runs if measure in run.rows]
    if measure is None or not shown:
        return None
    ranked = bool(facts["sweep"]["objective"])
    alone = not ranked and len({run.settings for run in shown}) == 1
    groups: dict[Any, list[EndedRun]] = {}
    for run in shown:
        groups.setdefault(run.number if alone else run.settings, []).append(run)
    places = [place_of(members, measure) for members in groups.values()]
    if ranked:
        places.sort(key=lambda place: place.value, reverse=facts["sweep"]["direction"] == "maximize")
    others = [run for run in runs if run not in shown]
    if not ranked:
        return Ranking(measure, ranked, places, others, "")
    best = folder / str(places[0].runs[0])
    verdict = headline(read_stages(best)) if (best / PLAN).exists() else ""
    return Ranking(measure, ranked, places, others, command_of(folder, places[0]), verdict)


def measure_of(facts: Facts, ended: Sequence[EndedRun]) -> str | None:
    """Return the sweep's objective, else the first headline measure of the last run; None where there is none."""
    objective: str | None = facts["sweep"]["objective"]
    measured = list(ended[-1].rows) if ended else []
    if objective and ended and not any(objective in run.rows for run in ended):
        raise mistake("sweep.objective", f"no run has measured {objective}", f"they have {', '.join(measured)}")
    return objective or next((name for name in (*HEADLINES, *measured) if name in measured), None)


def read_run(folder: Path) -> EndedRun:
    """Read how one run ended."""
    trial, outcome = read_trial(folder), read_outcome(folder)
    state, message = (outcome["state"], outcome["message"]) if outcome else ("not ended", "")
    result = read_result(folder) if state in {"finished", "not ended"} and is_finished(folder) else None
    if result is None:
        return EndedRun(int(folder.name), trial["values"] if trial else {}, state, message, {})
    values = trial["values"] if trial else {"seed": str(result["seed"])}
    rows = {row["name"]: row for row in result["measurements"]}
    return EndedRun(int(folder.name), values, "finished", message, rows)


def place_of(runs: Sequence[EndedRun], measure: str) -> Place:
    """Summarise runs of the same settings."""
    rows = [run.rows[measure] for run in runs]
    values = [row["value"] for row in rows]
    mean, low, high = student(values, CONFIDENCE) if runs[1:] else (values[0], *ends(rows[0]))
    names = [name for name in BESIDE if name != measure and all(name in run.rows for run in runs)]
    beside = {name: sum(run.rows[name]["value"] for run in runs) / len(runs) for name in names}
    settings = runs[0].settings or (("seed", str(runs[0].values.get("seed", ""))),)
    shares = tuple(name for name in (measure, *names) if is_share(runs[0].rows[name]))
    return Place(settings, tuple(run.number for run in runs), mean, low, high, beside, shares)


def command_of(folder: Path, best: Place) -> str:
    """Return the command that repeats the best run, measured on the test split, by which no run was selected."""
    config = folder / str(best.runs[0]) / CONFIG
    split = read_settings(config.parent).get("evaluation", {}).get("split", "test")
    return f"python -m alignlab experiment={config}{' evaluation.split=test' if split != 'test' else ''}"


def unclear(ranking: Ranking) -> list[Place]:
    """Return the places whose intervals overlap that of the best one."""
    best = ranking.places[0]
    return [place for place in ranking.places[1:] if place.high >= best.low and place.low <= best.high]


def markdown(ranking: Ranking) -> Iterator[str]:
    """Yield the lines of a Markdown table, then the runs without a value, then the conclusions."""
    head, rows = table(ranking)
    yield f"| | {' | '.join(head)} |"
    yield f"|--:|{'--:|' * len(head)}"
    yield from (f"| {rank} | {' | '.join(row)} |" for rank, row in enumerate(rows, 1))
    yield ""
    yield from (f"- {without_value(run)}" for run in ranking.others)
    if ranking.others:
        yield ""
    yield from sentences(ranking)


def sentences(ranking: Ranking) -> Iterator[str]:
    """Yield the conclusions of a ranking in sentences."""
    if not ranking.ranked:
        return
    best = ranking.places[0]
    settings = ", ".join(f"{name}={value}" for name, value in best.settings)
    yield f"Best by {ranking.measure}: {best.name} with {settings}."
    near = unclear(ranking)
    if near:
        yield f"Not clearly worse, since intervals overlap: {', '.join(place.name for place in near)}."
    if any(name.startswith("gold/") for name in best.beside):
        yield "Measures named gold/… come from the pocket world's rules: they are shown and were not used to rank."
    yield f"Command that repeats the best run: `{ranking.command}`"


def table(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table as text."""
    first = ranking.places[0]
    names, beside = [name for name, _ in first.settings], list(first.beside)
    rows = [
        [
            ", ".join(map(str, place.runs)),
            *(dict(place.settings)[name] for name in names),
            plain(place.value),
            f"{plain(place.low)} to {plain(place.high)}",
            *(plain(place.beside[name]) if name in place.beside else "" for name in beside),
        ]
        for place in ranking.places
    ]
    return ["run", *names, ranking.measure, "95%", *beside], rows


def without_value(run: EndedRun) -> str:
    """Describe a run that has no value, and why."""
    settings = ", ".join(f"{name}={value}" for name, value in run.values.items())
    return f"run {run.number} ({settings}): {run.state}. {run.message}".rstrip()


def plain(value: float) -> str:
    """Format a number with a minus sign instead of a hyphen."""
    return number(value, share=False).replace("-", "−")


def as_json(ranking: Ranking) -> dict[str, Any]:
    """Return a ranking as plain values for JSON."""
    return {
        "measure": ranking.measure,
        "ranked": ranking.ranked,
        "places": [place._asdict() | {"settings": dict(place.settings)} for place in ranking.places],
        "others": [
            {"run": run.number, "state": run.state, "message": run.message, "values": run.values}
            for run in ranking.others
        ],
        "command": ranking.command,
    }
