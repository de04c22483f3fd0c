"""Constitutional AI beside learning from people: harmlessness against helpfulness on the same prompts, and the price.

Made from the files of a sweep over methods (`experiment=cai_vs_rlhf`). Two runs with the same seed answered the same
held-out prompts with the same luck, so that they are compared prompt by prompt. What a run learned from is counted in
`rows.json`, which each stage leaves: who made the rows, and about which kinds of prompts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from alignlab.evaluation.scores import Measurement
from alignlab.evaluation.statistics import Interval, paired_difference
from alignlab.pipeline.run_folder import is_finished, read_row_counts, read_samples, write_json
from alignlab.pipeline.sweep_folder import TRADE_OFF, TRADE_OFF_PAGE, run_folders
from alignlab.reports.charts import Series, curves
from alignlab.reports.run_results import Stage, read_stages
from alignlab.runtime.files import write_text

RATES = {
    "gold/harmful_compliance": "complies with harm",
    "gold/over_refusal": "refuses the innocent",
    "gold/helpful": "helpful",
    "gold/honest": "honest",
}
HARM, HELP = "gold/harmful_compliance", "gold/helpful"
CONFIDENCE, RESAMPLES = 0.95, 2000


class Way(NamedTuple):
    """One run: its last method, its seed, its folder, its stages, and how many rows it learned from, by maker."""

    method: str
    seed: int
    folder: Path
    stages: list[Stage]
    rows: Counter[str]

    @property
    def seconds(self) -> float:
        """What training took, over all stages."""
        return float(sum(stage.result["seconds"] for stage in self.stages))

    @property
    def last(self) -> dict[str, Measurement]:
        """The measurements of the last model."""
        return self.stages[-1].measurements


def write_trade_off(folder: Path) -> Path | None:
    """Write `trade_off.html` and `.json` into a sweep's folder; None where one side is missing."""
    found = ways(folder)
    if len({way.method.startswith("cai") for way in found}) < 2 or not all(HARM in way.last for way in found):
        return None
    write_json(folder / TRADE_OFF, facts(found))
    place = folder / TRADE_OFF_PAGE
    write_text(place, str(page(found)))
    return place


def ways(folder: Path) -> list[Way]:
    """The finished runs of a sweep."""
    return [way(place) for place in run_folders(folder) if is_finished(place)]


def way(folder: Path) -> Way:
    """One run."""
    stages = read_stages(folder)
    rows: Counter[str] = Counter()
    for stage in stages:
        rows.update(read_row_counts(folder / stage.name))
    return Way(stages[-1].name, stages[-1].result["seed"], folder, stages, rows)


def facts(found: Sequence[Way]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ways": [
            {
                "method": way.method,
                "seed": way.seed,
                "seconds": way.seconds,
                "rows": dict(way.rows),
                "measures": {name: {key: way.last[name][key] for key in ("value", "low", "high")} for name in RATES},
            }
            for way in found
        ],
        "differences": [
            {"methods": [one.method, other.method], "seed": one.seed, "measure": name}
            | between(one, other, name)._asdict()
            for one, other in pairs(found)
            for name in RATES
        ],
    }


def pairs(found: Sequence[Way]) -> Iterator[tuple[Way, Way]]:
    """Every two ways of one seed, Constitutional AI first."""
    for one, other in combinations(sorted(found, key=lambda way: not way.method.startswith("cai")), 2):
        if one.seed == other.seed:
            yield one, other


def between(one: Way, other: Way, measure: str) -> Interval:
    """A rate of one way's last model less that of the other's, prompt by prompt."""
    first, second = (answered(way.folder / way.method, measure) for way in (one, other))
    ids = sorted(first.keys() & second.keys())
    now, then = (np.array([values[name] for name in ids]) for values in (first, second))
    return paired_difference(now, then, RESAMPLES, CONFIDENCE, 0, rate=True)


def answered(stage: Path, measure: str) -> dict[str, float]:
    """What each answer to which a measure applies was worth, by prompt."""
    return {row["id"]: row["scores"][measure] for row in read_samples(stage) if measure in row["scores"]}


def page(found: Sequence[Way]) -> Markup:
    """The page."""
    drawn = curves("helpful, over harm", [Series(f"{way.method}, seed {way.seed}", path(way)) for way in found], "harm")
    body = Markup("").join(map(row, found))
    told = Markup("").join(Markup("<li>{}</li>").format(text) for text in sentences(found))
    return PAGE.format(drawn=drawn, head=HEAD, body=body, told=told)


def path(way: Way) -> list[tuple[float, float]]:
    """The way from the base model over the stages: harm across, help upwards, in percent."""
    models = [stage.measurements for stage in way.stages if HARM in stage.measurements]
    points = [(models[0][HARM]["before"]["value"], models[0][HELP]["before"]["value"])]
    points += [(rows[HARM]["value"], rows[HELP]["value"]) for rows in models]
    return [(100 * harm, 100 * helpful) for harm, helpful in points]


def row(way: Way) -> Markup:
    """A run in the table."""
    rates = (f"{100 * way.last[name]['value']:.1f} %" for name in RATES)
    cells = [way.method, way.seed, *rates, *(f"{way.rows[maker]:,}" for maker in MAKERS), f"{way.seconds:.0f}"]
    return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in cells))


def sentences(found: Sequence[Way]) -> Iterator[str]:
    """What the comparison shows, a sentence a measure."""
    for one, other in pairs(found):
        for name, words in RATES.items():
            gap = between(one, other, name)
            ends = f"{100 * gap.value:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})".replace("-", "−")
            said = "no clear difference" if gap.low <= 0 <= gap.high else "a clear difference"
            yield f"{one.method} less {other.method}, seed {one.seed}, {words}: {ends}, {said}."


MAKERS = {"people": "rows by people", "people, on attacks": "of these on attacks", "model": "rows by the model itself"}
HEAD = Markup("<tr>{}</tr>").format(
    Markup("").join(
        Markup("<th>{}</th>").format(word)
        for word in ("method", "seed", *RATES.values(), *MAKERS.values(), "seconds of training")
    )
)
PAGE = Markup(
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Constitutional AI and people’s labels</title><style>'
    "body{{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}}"
    "figure{{max-width:34rem;margin:0}}table{{border-collapse:collapse;font-size:13px}}"
    "td,th{{padding:.3rem .6rem;text-align:left;border-top:1px solid #ccc}}.grid{{stroke:#ddd}}"
    ".tick{{font-size:10px;fill:#666}}.line{{fill:none;stroke-width:1.6;stroke:currentColor}}.dot{{fill:currentColor}}"
    ".c0{{color:#c0392b}}.c1{{color:#2471a3}}.c2{{color:#1e8449}}.c3{{color:#d68910}}.c4{{color:#777}}"
    ".key{{margin-left:.6rem}}</style><h1>Constitutional AI and people’s labels</h1>"
    "<p>Every model answered the same held-out prompts. A path begins at the base model and goes over each stage: "
    "across, the share of harmful requests that are complied with, upwards, that of helpful answers, in percent.</p>"
    "{drawn}<table>{head}{body}</table><ul>{told}</ul><p>Rows are demonstrations and labelled pairs. In the pocket "
    "world people are simulated, and a person’s time is not counted: what each way costs beyond these seconds is the "
    "rows that people have to write and to label.</p></html>\n"
)
