"""The report: whole without the network or scripts, deaf to what data and models say, and right in its figures."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import Failure
from alignlab.reports.charts import Series, curves, scale, short, thin, whiskers
from alignlab.reports.headline import headline
from alignlab.reports.item_cards import SHOWN
from alignlab.reports.run_report import write_report
from alignlab.reports.run_results import Stage, change, number, read_stages, side_by_side, signed
from alignlab.reports.run_summary import table, terminal_change
from alignlab.reports.sweep_results import sweep_table
from alignlab.reports.written import try_to_write

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' &amp; {{ 7 * 7 }}"


def measured(
    name: str, value: float, before: float, previous: float, half: float = 0.05, better: str = "lower"
) -> dict[str, Any]:
    """A row of `result.json` with intervals of a given half width."""

    def interval(middle: float) -> dict[str, float]:
        return {"value": middle, "low": middle - half, "high": middle + half}

    def difference(middle: float) -> dict[str, Any]:
        p = 0.001 if abs(middle) > half else 0.5
        loss = middle - half if better == "higher" else -middle - half
        tests = {"error": half / 1.96, "p": p, "p_adjusted": 2 * p, "detectable": 0.19}
        return {**interval(middle), **tests, "margin": 0.05, "not_worse": loss > -0.05}

    return {
        "name": name, **interval(value), "n": 300, "clusters": 60, "rate": True, "better": better,
        "before": interval(before), "previous": interval(previous),
        "difference": {"before": difference(value - before), "previous": difference(value - previous)},
    }  # fmt: skip


def completion(text: str) -> dict[str, Any]:
    """A completion as `samples.jsonl` holds it."""
    return {"completion": text, "finished": True, "tokens": 4}


def write_run(
    folder: Path, evil: str = "plain", seed: int = 0, final: float = 0.04, settings: str = "beta: 0.1"
) -> Path:
    """A run of two stages, as tasks.train leaves it."""
    helped, harmed = "gold/helpful", "gold/harmful_compliance"
    rows = {
        "sft": [measured(harmed, 0.3, 0.6, 0.6), measured(helped, 0.8, 0.7, 0.7, better="higher")],
        "dpo": [measured(harmed, final, 0.6, 0.3), measured(helped, 0.72, 0.7, 0.8, better="higher")],
    }
    for stage, measurements in rows.items():
        place = folder / stage
        place.mkdir(parents=True)
        result = {
            "stage": stage,
            "seed": seed,
            "measurements": measurements,
            "seconds": 12.3,
            "model": "m",
            "report": "r",
        }
        (place / "result.json").write_text(json.dumps(result))
        (folder / "result.json").write_text(json.dumps(result))
        curve = [{"step": step, "train/loss": 2.0 / step, "reward/margin": None} for step in (10, 20, 30)]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
        samples = [
            {"id": f"{kind}{i}", "kind": kind, "prompt": [{"role": "user", "content": f"{kind} {i} {evil}"}],
             "before": completion(f"base {evil}"), "previous": completion(f"previous {evil}"),
             "after": completion(f"{stage} {evil}"),
             "scores": {"gold/honest": 1.0, "reward/mean": -0.5, "eval/kl": 1.254} if stage == "dpo" else {}}
            for kind in ("harmful", evil) for i in range(12)
        ]  # fmt: skip
        (place / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
        (place / "provenance.json").write_text(json.dumps({"git": evil, "config": {"unseen": 1}}))
    plan = [{"stage": "sft", "action": "reused"}, {"stage": "dpo", "action": "ran"}]
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "config.yaml").write_text(
        f"# {evil}\nseed: {seed}\nmethod:\n  {settings}\nevaluation:\n  samples: 5\n  note: {json.dumps(evil)}\n"
    )
    return folder


class Page(HTMLParser):
    """The tags, the text and the addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "action", "data", "xlink:href"}
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_from_data_and_models_never_becomes_markup(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path / "run", EVIL)).read_text())
    assert page.tags.count("script") == 2  # our own, and its data
    assert "img" not in page.tags
    assert page.handlers == []
    assert page.text.count(f"dpo {EVIL}") == SHOWN  # the evil is shown as it is
    assert "49" not in page.text  # nor is it taken for a template


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path / "run")).read_text()
    page = Page(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text


def test_the_only_script_is_the_one_that_the_policy_names(tmp_path: Path) -> None:
    import base64
    import hashlib

    text = write_report(write_run(tmp_path / "run")).read_text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    named = re.search(r"script-src 'sha256-([^']+)'", text)
    assert script
    assert named
    assert base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode() == named.group(1)


def test_without_scripts_the_first_items_are_shown_and_the_filter_is_not(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path / "run")).read_text()
    assert len(re.findall(r"<article [^>]*>", text)) == SHOWN
    assert '<form class="filter" hidden>' in text
    assert "<noscript>" in text


def test_the_page_holds_the_table_the_curves_and_the_settings(tmp_path: Path) -> None:
    page = Page(write_report(write_run(tmp_path / "run")).read_text())
    for expected in (
        "n\u00a0=\u00a0300",
        "60.0%",
        "30.0%",
        "4.0%",
        "−56.0 points",
        "−61.0 to −51.0",
        "samples: 5",
        "reused",
        "sft",
    ):
        assert expected in page.text
    assert "unseen" not in page.text
    assert page.tags.count("polyline") == 2  # one loss a stage; a margin that is null everywhere is not drawn


def test_a_report_can_be_written_again_and_is_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    first = write_report(run).read_text()
    assert write_report(run).read_text() == first


def test_a_run_without_measurements_samples_or_curves_has_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    result = {"stage": "sft", "seed": 1, "measurements": [], "seconds": 1, "model": "m", "report": "r"}
    (tmp_path / "sft" / "result.json").write_text(json.dumps(result))
    (tmp_path / "plan.json").write_text('[{"stage": "sft", "action": "ran"}]')
    assert "nothing was measured" in write_report(tmp_path).read_text()
    assert "nothing was measured" in table(tmp_path)


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"plan\.json: is not there; give the folder of a finished run"):
        write_report(tmp_path)


def test_a_metrics_file_that_was_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "dpo" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "train/lo')
    assert "polyline" in write_report(run).read_text()


def test_the_headline_says_what_changed_and_what_got_worse() -> None:
    rows = [
        measured("gold/harmful_compliance", 0.04, 0.6, 0.3),
        measured("gold/helpful", 0.5, 0.7, 0.8, 0.05, "higher"),
    ]
    assert headline([stage("dpo", rows)]) == (
        "Compliance with harmful requests went from 60.0% to 4.0% "
        "(−56.0 points, 95% interval −61.0 to −51.0, n = 300); clearly worse: helpful completions −20.0 "
        "points (n = 300)."
    )


def test_the_headline_names_the_part_of_the_last_stage_and_what_it_made_worse() -> None:
    sft = [measured("gold/harmful_compliance", 0.1, 0.83, 0.83)]
    cai = [
        measured("gold/harmful_compliance", 0.283, 0.83, 0.1),
        measured("gold/helpful", 0.8, 0.7, 0.8, better="higher"),
    ]
    assert headline([stage("sft", sft), stage("cai", cai)]) == (
        "Compliance with harmful requests went from 83.0% to 28.3% (−54.7 points, 95% interval −59.7 to −49.7, "
        "n = 300), of which cai +18.3 points (+13.3 to +23.3, worse); a loss of more than the margin is excluded for "
        "2 of 2 primary measures; clearly worse since sft: compliance with harmful requests +18.3 points (n = 300)."
    )


def test_a_page_that_fails_costs_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(try_to_write("the page", lambda: max([]))) == []
    assert "the page was not written: ValueError" in capsys.readouterr().err


def test_the_headline_claims_no_change_where_the_interval_holds_zero() -> None:
    rows = [measured("gold/harmful_compliance", 0.58, 0.6, 0.6)]
    assert "went from 60.0% to 58.0%, which is no clear change" in headline([stage("dpo", rows)])


def test_the_headline_says_how_many_prompts_would_decide_what_is_undecided() -> None:
    """A change of 19 points shows on 60 clusters, so one of 5 shows on 60 * (19 / 5)^2 = 866.4."""
    rows = [
        measured("gold/harmful_compliance", 0.58, 0.6, 0.6),
        measured("gold/helpful", 0.68, 0.7, 0.7, better="higher"),
    ]
    assert headline([stage("dpo", rows)]).endswith(
        "; a loss of more than the margin is excluded for 1 of 2 primary measures; undecided: helpful completions "
        "(with 60 clusters a change under 19.0 points cannot be seen; 867 would show 5.0)."
    )


def test_a_change_that_the_correction_takes_away_is_marked_but_not_claimed(tmp_path: Path) -> None:
    row = measured("gold/helpful", 0.6, 0.7, 0.7, better="higher")
    for one in row["difference"].values():
        one["p_adjusted"] = 0.2
    moved = change(row, "before")  # type: ignore[arg-type]
    assert moved
    assert (moved.verdict, moved.alone, moved.p) == ("unclear", "worse", "p 0.001, corrected 0.2")
    assert "clearly worse" not in headline([stage("dpo", [row])])
    assert "−10.0 worse?" in str(terminal_change(moved))


def test_the_headline_speaks_of_primary_measures_alone_and_is_about_the_first(tmp_path: Path) -> None:
    rows = [
        measured("facts/right", 0.5, 0.9, 0.9, better="higher") | {"primary": 1},
        measured("gold/harmful_compliance", 0.9, 0.1, 0.1) | {"primary": None},
        measured("gold/helpful", 0.8, 0.7, 0.7, better="higher") | {"primary": 0},
    ]
    said = headline([stage("dpo", rows)])
    assert said.startswith("Helpful completions went from 70.0% to 80.0%")
    assert said.endswith("clearly worse: right −40.0 points (n = 300).")
    main, others = side_by_side([stage("dpo", rows)])
    assert [row.name for row in main.rows] == ["facts/right", "gold/helpful"]
    assert [(row.name, row.overall and row.overall.verdict) for row in others.rows] == [
        ("gold/harmful_compliance", "unclear")
    ]
    assert "+80.0 worse?" in str(terminal_change(others.rows[0].overall))


def test_ppo_is_not_headlined_by_the_reward_that_it_was_trained_on() -> None:
    rows = [measured("reward/mean", 0.9, 0.1, 0.1, better="higher"), measured("length/mean", 0.5, 0.4, 0.4)]
    assert headline([stage("ppo", rows)]).startswith("Tokens per completion went")


def test_a_reward_model_has_a_table_of_its_own() -> None:
    own = {"name": "reward/accuracy", "value": 0.7, "low": 0.66, "high": 0.74, "n": 500, "better": "higher"}
    own |= {"rate": False, "difference": {}}
    tables = side_by_side([stage("sft", [measured("gold/score", 0.5, 0.4, 0.4)]), stage("rm", [own])])
    assert [(found.title, found.models) for found in tables] == [
        ("Before and after", ["base", "sft"]), ("rm", ["rm"])
    ]  # fmt: skip
    assert headline([stage("rm", [own])]) == "Accuracy of the reward model is 70.0% (95% interval 66.0–74.0, n = 500)."
    alone = own | {"low": None, "high": None, "n": 1}
    assert headline([stage("rm", [alone])]) == "Accuracy of the reward model is 70.0% (no interval, n = 1)."


@pytest.mark.parametrize(
    ("difference", "better", "verdict"),
    [
        ((-0.2, -0.3, -0.1), "lower", "better"), ((0.2, 0.1, 0.3), "lower", "worse"),
        ((0.2, 0.1, 0.3), "higher", "better"), ((-0.2, -0.3, -0.1), "higher", "worse"),
        ((0.2, 0.1, 0.3), "neither", "changed"), ((0.2, -0.1, 0.5), "higher", "unclear"),
        ((0.0, 0.0, 0.0), "higher", "unclear"),
    ],
)  # fmt: skip
def test_verdicts(difference: tuple[float, float, float], better: str, verdict: str) -> None:
    ends = dict(zip(("value", "low", "high"), difference, strict=True))
    found = change({"name": "x", "rate": False, "n": 300, "better": better, "difference": {"before": ends}}, "before")
    assert found
    assert found.verdict == verdict


def test_numbers_are_short_and_honest() -> None:
    assert [number(0.6543, True), number(0.6543, False), number(12.345, False), number(1234.5, False)] == [
        "65.4", "0.654", "12.35", "1,234",
    ]  # fmt: skip
    assert [signed(-0.02, True), signed(0.02, True), signed(-0.00001, True)] == ["−2.0", "+2.0", "0.0"]


def test_ticks_are_round_and_hold_the_data() -> None:
    assert scale(0.13, 0.88, 0, 100, 4).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    flat = scale(3, 3, 0, 100, 4)
    assert flat.low < 3 < flat.high
    assert [short(value) for value in (0.0, 0.30000000000000004, 12000, 5e-5, -2.0)] == [
        "0",
        "0.3",
        "12k",
        "5e-5",
        "-2",
    ]


def test_curves_keep_their_mean_when_they_are_thinned_and_escape_their_names() -> None:
    points = [(float(step), float(step % 7)) for step in range(3000)]
    few = thin(points)
    assert len(few) == 300
    assert sum(value for _, value in few) / 300 == pytest.approx(sum(value for _, value in points) / 3000)
    assert "<b>" not in curves("<b>", [Series("<b>", points), Series("y", [(1.0, 1.0)])])
    assert "<b>" not in whiskers([(0, 1, 2), None], ["<b>", "x"])


def test_a_sweep_by_hand(tmp_path: Path) -> None:
    """Five seeds at 1% to 5%: mean 3, sd 1.581, Student's interval 3 ± 1.963 (t(4) = 2.776)."""
    for seed in range(5):
        write_run(tmp_path / str(seed), seed=seed, final=0.01 * (seed + 1))
    (tmp_path / "5").mkdir()
    text = sweep_table(tmp_path)
    assert text == (tmp_path / "sweep.md").read_text().rstrip("\n")
    assert "5 runs, seeds 0, 1, 2, 3, 4" in text
    assert text.endswith("without a result: 5")
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert found["missing"] == ["5"]
    (row,) = [row for row in found["rows"] if (row["model"], row["name"]) == ("dpo", "gold/harmful_compliance")]
    assert [round(100 * row[key], 3) for key in ("mean", "sd", "min", "median", "max", "low", "high")] == [
        3, 1.581, 1, 3, 5, 1.037, 4.963,
    ]  # fmt: skip
    assert row["values"] == {str(seed): 0.01 * (seed + 1) for seed in range(5)}
    assert {row["model"] for row in found["rows"]} == {"base", "sft", "dpo"}


def test_runs_with_other_settings_are_not_averaged_together(tmp_path: Path) -> None:
    for place, (seed, beta) in enumerate(((0, 0.1), (1, 0.1), (0, 0.3))):
        write_run(tmp_path / str(place), seed=seed, settings=f"beta: {beta}")
    text = sweep_table(tmp_path)
    assert "method.beta=0.1: 2 runs, seeds 0, 1" in text
    assert "method.beta=0.3: 1 run, seed 0" in text


def test_a_sweep_without_a_finished_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with pytest.raises(Failure, match="holds no finished run"):
        sweep_table(tmp_path)


def test_stages_are_read_in_the_order_of_the_plan(tmp_path: Path) -> None:
    assert [found.name for found in read_stages(write_run(tmp_path / "run"))] == ["sft", "dpo"]


def stage(name: str, rows: list[dict[str, Any]]) -> Stage:
    return Stage(name, "ran", {"stage": name, "seed": 0, "measurements": rows, "seconds": 1.0})


def test_gates_that_triggered_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert "Triggered gates" not in write_report(folder).read_text()
    gate = {"gate": "kl", "stage": "ppo", "what": "the KL", "number": 19.04, "bound": "at most 15", "remedy": EVIL}
    rows = [{"step": 0, **gate}, {"step": 7, **gate}]
    (folder / "dpo" / "gates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_report(folder).read_text()
    assert text.count("the KL is 19 and must be at most 15; ") == 2
    assert "before training</small>" in text
    assert "rollout 7</small>" in text
    assert EVIL not in text
