"""Sweeps without a run: which runs there are, what a search draws, what it stops, and how runs are ranked."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command import config

from alignlab.config.compose import Command, bind_tree, check
from alignlab.errors import Mistake
from alignlab.pipeline import sweep_folder, trial_reporter
from alignlab.pipeline.trial_reporter import Reporter
from alignlab.reports.sweep_page import write_page
from alignlab.reports.sweep_ranking import markdown, ranking, unclear
from alignlab.sweeps import optuna_search, runner
from alignlab.sweeps.optuna_search import Search

HERE = ["model=pocket_small", "dataset=pocket_small"]
DRAW = ["sweep.sampler=random", "sweep.trials=6"]


def space(*overrides: str, params: dict[str, Any] | None = None) -> runner.Space:
    return runner.search_space(params or {}, overrides)


def drawn(*overrides: str) -> list[dict[str, str]]:
    return [run.values for run in runner.combinations(space(*overrides))]


def test_a_grid_is_every_combination_and_the_last_setting_changes_fastest() -> None:
    assert drawn("seed=0,1", "method.kl_coef=0.1,0.3", "method=ppo") == [
        {"seed": "0", "method.kl_coef": "0.1"},
        {"seed": "0", "method.kl_coef": "0.3"},
        {"seed": "1", "method.kl_coef": "0.1"},
        {"seed": "1", "method.kl_coef": "0.3"},
    ]


def test_a_range_is_listed_and_an_interval_is_refused() -> None:
    assert drawn("seed=range(1,4)") == [{"seed": "1"}, {"seed": "2"}, {"seed": "3"}]
    with pytest.raises(Mistake, match=r"method.kl_coef: a grid needs values, not an interval"):
        drawn("method.kl_coef=interval(0.1,1)")


@pytest.mark.parametrize(
    ("given", "varied", "fixed"),
    [
        ("seed=7", {}, ["seed=7"]),
        ("seed=7,8", {"seed": "seed=7,8"}, []),
        ("method.kl_coef=0.1", {"seed": "seed=0,1"}, ["method.kl_coef=0.1"]),
    ],
)
def test_a_value_of_the_command_stands_before_the_files(given, varied, fixed) -> None:
    found = space(given, params={"seed": "0,1"})
    assert {name: str(one.input_line) for name, one in found.varied.items()} == varied
    assert found.fixed == fixed


def test_the_command_replaces_a_files_values_when_it_is_checked_too() -> None:
    assert [tree["seed"] for tree in check(["sweep=seeds"], binds=True).trees] == [0, 0, 1, 2, 3, 4]
    assert [tree["seed"] for tree in check(["sweep=seeds", "seed=7"], binds=True).trees] == [7]
    ends = [tree["method"]["learning_rate"] for tree in check(["sweep=ppo_hparams"], binds=True).trees]
    assert {5e-5, 1e-3} <= set(ends)


def place(*overrides: str) -> Path:
    command: Command = check([*HERE, *overrides], binds=False)
    return runner.folder_of(
        command, bind_tree(command.trees[0]), runner.search_space(command.params, [*HERE, *overrides])
    )


@pytest.mark.runs
def test_a_sweep_is_known_by_what_its_runs_are() -> None:
    assert place("sweep=seeds").name.startswith("seeds-")
    same = place("sweep=seeds", "tracking=jsonl", "dry_run=true", "sweep.objective=reward/mean", "sweep.trials=9")
    others = [place("sweep=seeds", other) for other in ("seed=0,1", "method.kl_coef=0.2", "sweep.seed=1")]
    assert len({same, place("sweep=seeds"), *others}) == 4
    assert place("sweep=seeds", "hydra.sweep.dir=mine").name == "mine"


def test_a_folder_that_holds_another_sweep_is_refused(tmp_path: Path) -> None:
    def written(*overrides: str) -> str:
        command = check([*HERE, *overrides], binds=False)
        given = bind_tree(command.trees[0]), runner.search_space(command.params, overrides)
        runner.write_facts(tmp_path, command, *given, overrides)
        return (tmp_path / "sweep.yaml").read_text()

    assert "command: python -m alignlab seed=0,1 -m\n" in written("seed=0,1")
    assert written("seed=0,1", "sweep.objective=reward/mean")
    with pytest.raises(Mistake, match="holds another sweep; give another folder"):
        written("seed=0,2")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sweep.objective=gold/score"], "is the true reward, which is known only in the pocket world"),
        (["sweep.sampler=tpe"], "sweep.objective: missing, and sampler=tpe needs it"),
        (["sweep.prune_by=train/loss"], "a grid runs every combination to its end"),
        (["sweep.sampler=tpe", "sweep.objective=eval/kl", "sweep.prune_by=gold/score"], "which may only be reported"),
        (["method=dpo", "evaluation.reward_model=auto"], "auto trains a reward model"),
        (["sweep.trails=3"], "did you mean 'trials'"),
        (["hydra/launcher=ray"], "hydra/launcher: no option 'ray'; there is basic, joblib, "),
    ],
)
def test_mistakes_in_a_sweep_are_one_sentence(overrides, said) -> None:
    with pytest.raises(Mistake, match=said):
        check([*HERE, *overrides], binds=True)


RANGES = ["method.kl_coef=tag(log,interval(0.01,1))", "method.num_ppo_epochs=choice(1,2)", "seed=range(100,104)"]


def searching(folder: Path, *overrides: str) -> Search:
    folder.mkdir(exist_ok=True)
    return Search(folder, config(*DRAW, *overrides).sweep, space(*RANGES).varied)


@pytest.mark.runs
def test_what_is_drawn_lies_in_its_range(tmp_path: Path) -> None:
    found = [searching(tmp_path).ask() for _ in range(6)]
    assert [run.number for run in found] == list(range(6))
    for run in found:
        value = run.values["method.kl_coef"]
        assert 0.01 <= float(value) <= 1
        assert len(value.replace("0.", "").lstrip("0")) <= 4
        assert run.values["method.num_ppo_epochs"] in {"1", "2"}
        assert run.values["seed"] in {"100", "101", "102", "103"}


@pytest.mark.runs
def test_a_search_that_was_killed_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    """The first four are drawn at random; the fifth and the sixth are TPE's."""
    how = ("sweep.sampler=tpe", "sweep.objective=eval/kl")

    def value(run: optuna_search.Draw) -> float:
        return -((math.log(float(run.values["method.kl_coef"])) + 2) ** 2)

    whole, wholes = searching(tmp_path / "whole", *how), []
    for _ in range(6):
        wholes.append(whole.ask())
        whole.tell(wholes[-1].number, "complete", value(wholes[-1]))
    parts = []
    again = searching(tmp_path / "parts", *how)
    for _ in range(6):  # a new process each time, as far as the search can tell; it dies before it can tell how it went
        parts.append(again.ask())
        again = searching(tmp_path / "parts", *how)
        assert again.begun() == [parts[-1]]
        again.tell(parts[-1].number, "complete", value(parts[-1]))
    assert parts == wholes
    assert again.count("complete") == 6


def reporting(folder: Path, found: Search, prune: bool = True) -> Reporter:
    run = found.ask()
    place = folder / str(run.number)
    brief = {"number": run.number, "values": run.values, **found.report_to()}
    place.mkdir()
    (place / sweep_folder.TRIAL).write_text(json.dumps(brief))
    reporter = trial_reporter.reporter(place)
    assert reporter is not None
    return reporter


def test_a_run_below_the_median_of_the_others_is_stopped(tmp_path: Path) -> None:
    """After 1, 2 and 3 at the second point their median is 2: 1.9 is stopped there, and 2.1 goes on."""
    found = searching(tmp_path, "sweep.prune_by=reward/held_out", "sweep.prune_after=3", "sweep.prune_steps=1")
    for number, height in enumerate((1.0, 2.0, 3.0)):
        run = reporting(tmp_path, found)
        for step in (10, 20):
            run.log({"reward/held_out": height, "train/loss": 0.0}, step)
        found.tell(number, "complete", height)
    high, low = reporting(tmp_path, found), reporting(tmp_path, found)
    low.log({"reward/held_out": 0.0}, 30)  # the first point asks nothing
    low.log({"train/loss": 9.0}, 45)
    high.log({"reward/held_out": 0.0}, 7)
    high.log({"reward/held_out": 2.1}, 14)
    with pytest.raises(
        trial_reporter.Pruned, match=r"run 4: reward/held_out is 1.9 at point 2, worse than the others' median"
    ):
        low.log({"reward/held_out": 1.9}, 60)
    assert json.loads((tmp_path / "4" / sweep_folder.OUTCOME).read_text())["state"] == "pruned"


def test_a_run_that_goes_on_reports_each_point_once(tmp_path: Path) -> None:
    found = searching(tmp_path, "sweep.prune_by=reward/held_out")
    run = reporting(tmp_path, found)
    for step in (6, 12, 18):
        run.log({"reward/held_out": float(step)}, step)
    again = trial_reporter.reporter(tmp_path / "0")
    assert again is not None
    for step in (12, 18, 24):  # from the checkpoint after the first point
        again.log({"reward/held_out": float(step)}, step)
    assert found.study.trials[0].intermediate_values == {1: 6.0, 2: 12.0, 3: 18.0, 4: 24.0}


def test_a_run_of_a_grid_reports_to_nobody(tmp_path: Path) -> None:
    assert trial_reporter.reporter(tmp_path) is None
    (tmp_path / sweep_folder.TRIAL).write_text(json.dumps({"number": 0, "values": {}}))
    assert trial_reporter.reporter(tmp_path) is None


def write_sweep(folder: Path, objective: str | None, direction: str = "maximize") -> Path:
    """Two values of beta with three seeds each, and a run that failed: means 2 and 4, deviations 1."""
    folder.mkdir(exist_ok=True)
    facts = {"command": "python -m alignlab", "sweep": {"objective": objective, "direction": direction}}
    (folder / "sweep.yaml").write_text(json.dumps(facts))
    for number, (beta, seed, value) in enumerate(
        [("0.1", 0, 1.0), ("0.1", 1, 2.0), ("0.1", 2, 3.0), ("0.5", 0, 3.0), ("0.5", 1, 4.0), ("0.5", 2, 5.0)]
    ):
        run = folder / str(number)
        run.mkdir()
        (run / "trial.json").write_text(json.dumps({"values": {"method.beta": beta, "seed": str(seed)}}))
        (run / "config.yaml").write_text("evaluation:\n  split: validation\n")
        measured = [
            {"name": "reward/mean", "value": value, "low": value - 1, "high": value + 1},
            {"name": "gold/score", "value": -value, "low": -9.0, "high": 9.0},
        ]
        (run / "result.json").write_text(json.dumps({"seed": seed, "measurements": measured}))
        (run / "outcome.json").write_text(json.dumps({"state": "finished", "message": ""}))
    (folder / "6").mkdir()
    (folder / "6" / "trial.json").write_text(json.dumps({"values": {"method.beta": "<9>", "seed": "0"}}))
    (folder / "6" / "outcome.json").write_text(json.dumps({"state": "failed", "message": "no room"}))
    return folder


def test_a_ranking_by_hand(tmp_path: Path) -> None:
    """Student's interval over three seeds is the mean ± 4.3027 · 1 / √3 = 2.484."""
    found = ranking(write_sweep(tmp_path, "reward/mean"))
    assert found is not None
    assert [(place.settings, place.runs, place.value) for place in found.places] == [
        ((("method.beta", "0.5"),), (3, 4, 5), 4.0),
        ((("method.beta", "0.1"),), (0, 1, 2), 2.0),
    ]
    assert [round(end, 3) for end in found.places[0][3:5]] == [1.516, 6.484]
    assert found.command == f"python -m alignlab experiment={tmp_path}/3/config.yaml evaluation.split=test"
    assert unclear(found) == found.places[1:]
    text = "\n".join(markdown(found))
    assert "| 1 | 3, 4, 5 | 0.5 | 4.00 | 1.52 to 6.48 | −4.00 |" in text
    assert "run 6 (method.beta=<9>, seed=0): failed. no room" in text
    assert "Not clearly worse, since intervals overlap: runs 0, 1, 2." in text
    assert "they are shown and were not used to rank" in text


def test_less_is_better_where_the_sweep_says_so_and_nothing_is_ranked_without_a_measure(tmp_path: Path) -> None:
    least = ranking(write_sweep(tmp_path / "a", "reward/mean", "minimize"))
    assert least is not None
    assert [place.value for place in least.places] == [2.0, 4.0]
    shown = ranking(write_sweep(tmp_path / "b", None))
    assert shown is not None
    assert (shown.ranked, shown.command) == (False, "")
    assert [place.runs for place in shown.places] == [(0, 1, 2), (3, 4, 5)]


def test_a_measure_that_no_run_has_is_told(tmp_path: Path) -> None:
    said = "sweep.objective: no run has measured reward/men; they have reward/mean, gold/score"
    with pytest.raises(Mistake, match=said):
        ranking(write_sweep(tmp_path, "reward/men"))


def test_the_page_holds_its_drawing_and_harmless_text(tmp_path: Path) -> None:
    found = ranking(write_sweep(tmp_path, "reward/mean"))
    assert found is not None
    page = write_page(tmp_path, found, "python -m alignlab <x>").read_text()
    assert "default-src 'none'" in page
    assert "data:image/png;base64," in page
    assert "&lt;x&gt;" in page
    assert "method.beta=&lt;9&gt;" in page
    assert "src=http" not in page
    root = ElementTree.fromstring((tmp_path / "sweep.svg").read_text())
    assert root.tag.endswith("svg")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_workers_are_stopped_where_their_run_is(monkeypatch) -> None:
    """The launcher turns SIGTERM into an exception, as here; what is told is why the run was stopped."""
    import signal
    import time

    from alignlab.errors import Fault
    from alignlab.pipeline.workers import listening

    class Full:
        def log(self, metrics: dict[str, float], step: int) -> None:
            raise trial_reporter.Pruned([Fault("run 1", "worse than the others")])

    def asked(number: int, _: Any) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGTERM, asked)
    try:
        with pytest.raises(trial_reporter.Pruned, match="worse than the others"), listening(Full()) as wire:
            wire.send(({"reward/held_out": 0.0}, 1))
            time.sleep(30)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_kept_of_a_stage_that_was_stopped_early(tmp_path: Path, monkeypatch) -> None:
    from alignlab.errors import Failure
    from alignlab.pipeline.plan import make
    from alignlab.pipeline.train_stage import clearing

    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    stage = make(config("model=llama31_8b", "dataset=hub", "dataset.path=owner/rows", "method=sft")).stages[0]
    for error, kept in ((Failure([]), True), (trial_reporter.Pruned([]), False)):
        partial = stage.folder.with_name(stage.folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        with pytest.raises(type(error)), clearing(stage):
            raise error
        assert partial.exists() == kept


def test_the_held_out_reward_model_is_another_and_the_same_for_all_runs() -> None:
    from alignlab.pipeline import held_out_reward_model
    from alignlab.pipeline.plan import make

    runs = [config("sweep=ppo_hparams", *HERE, f"seed={seed}") for seed in (100, 101)]
    (one,), (two,) = (held_out_reward_model.plan(run).stages for run in runs)  # type: ignore[union-attr]
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint not in {stage.fingerprint for run in runs for stage in make(run).stages}
    other = held_out_reward_model.plan(runs[0])
    assert other is not None
    assert (other.config.seed, other.config.dataset.seed) == (1000, 1000)  # type: ignore[union-attr]
    assert held_out_reward_model.plan(config(*HERE)) is None
