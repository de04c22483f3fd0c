"""The end of a run and of a sweep in the terminal: one screen, right in its figures, and nothing lost with the rest."""

import json
from pathlib import Path

from test_report import EVIL, measured, write_run

from alignlab.reports.run_report import write_report
from alignlab.reports.run_summary import in_lines, summarise, table
from alignlab.reports.sweep_ranking import ranking
from alignlab.reports.sweep_summary import shown as shown_of
from alignlab.reports.sweep_summary import summarise as summarise_sweep


def test_the_terminal_shows_the_part_of_the_last_stage(tmp_path: Path) -> None:
    shown = table(write_run(tmp_path / "run"))
    assert all(words in shown for words in ("dpo − sft", "dpo − base", "−26.0 better"))
    assert max(map(len, shown.splitlines())) <= 80
    assert in_lines("gold/harmful_compliance", 14) == "gold/harmful_\ncompliance"
    assert shown.startswith("Compliance with harmful requests went from 60.0% to 4.0%")


def test_a_rate_is_never_shown_without_its_scorer_and_its_n(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for file in (run / "dpo" / "result.json", run / "sft" / "result.json"):
        result = json.loads(file.read_text())
        for row in result["measurements"]:
            row["scorer"] = "phrases"
        file.write_text(json.dumps(result))
    shown = table(run)
    said = " ".join(shown.split())
    assert "−61.0 to −51.0, by phrases, n = 300)" in said
    assert "clearly worse since sft: helpful completions −8.0 points (by phrases, n = 300)." in said
    assert [line[:14] for line in shown.splitlines() if line.startswith("  ")][:3] == [
        "  n = 300 in 6", "  clusters, by", "  phrases",
    ]  # fmt: skip
    assert max(map(len, shown.splitlines())) <= 80
    assert "gold/helpful, by phrases" in write_report(run).read_text()


def test_the_terminal_shows_primary_measures_and_counts_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    kinds = [measured(f"gold/helpful/kind{number}", 0.6, 0.7, 0.7) | {"primary": None} for number in range(3)]
    for file in (run / "dpo" / "result.json", run / "result.json"):
        result = json.loads(file.read_text())
        result["measurements"] += [*kinds, measured("length/finished", 1.0, 1.0, 1.0) | {"primary": None}]
        file.write_text(json.dumps(result))
    *shown, path = [line for text in summarise(run) for line in text.splitlines()]
    assert shown[-1] == "The report has 4 more measures, which are exploratory, and every completion:"
    assert path == str(run / "report.html")
    assert "kind1" not in "\n".join(shown)
    assert "length/finished" not in "\n".join(shown)
    assert all(name in (run / "report.html").read_text() for name in ("kind1", "length/finished"))
    in_sweep = "\n".join(summarise(run, in_sweep=True))
    assert in_sweep.startswith("Compliance with harmful requests went from 60.0% to 4.0%")
    assert "measure" not in in_sweep.replace("primary measures", "")


def test_the_terminal_shows_every_model_and_fits(tmp_path: Path) -> None:
    shown = table(write_run(tmp_path / "run", EVIL), width=110)
    assert max(map(len, shown.splitlines())) <= 110
    row = next(line for line in shown.splitlines() if "gold/harmful_compliance" in line)
    assert row.split() == ["gold/harmful_compliance", "60.0%", "30.0%", "4.0%", "−26.0", "better", "−56.0", "better"]
    assert "\x1b" not in shown


def lines_of(folder: Path) -> list[str]:
    """What the terminal shows at the end of a sweep."""
    return [line for text in summarise_sweep(folder) for line in text.splitlines()]


def row_of(lines: list[str], name: str) -> tuple[list[str], list[str]]:
    """The values of a row and the line below them."""
    place = next(number for number, line in enumerate(lines) if line.startswith(name))
    return lines[place].split()[1:], lines[place + 1].split()


def test_a_sweep_over_seeds_ends_with_its_primary_measures(tmp_path: Path) -> None:
    """Five seeds at 1% to 5%: mean 3, Student's interval 3 ± 1.963 (t(4) = 2.776)."""
    for seed in range(5):
        write_run(tmp_path / str(seed), seed=seed, final=0.01 * (seed + 1))
    (tmp_path / "5").mkdir()
    shown = lines_of(tmp_path)
    assert shown[0] == "5 runs, seeds 0, 1, 2, 3, 4: means and 95% intervals over seeds"
    assert shown[2].split() == ["base", "sft", "dpo"]
    assert shown[3].split() == ["measure", "5", "seeds"]
    assert row_of(shown, "gold/harmful_compliance") == (
        ["60.0%", "30.0%", "3.0%"], ["60.0–60.0", "30.0–30.0", "1.0–5.0"],
    )  # fmt: skip
    assert "run 5 (): not ended." in shown
    assert shown[-3:] == [
        "Every measure is in sweep.md, the runs in sweep.html, reports in their folders:",
        str(tmp_path / "sweep.html"),
        str(tmp_path / "sweep.md"),
    ]
    assert max(map(len, shown[:-2])) <= 80
    title = "Compliance with harmful requests: 3.0% on average over 5 seeds (95% interval 1.0% to 5.0%)"
    assert f"<h1>{title}</h1>" in (tmp_path / "sweep.html").read_text()


def write_grid(folder: Path, count: int, **objective: str) -> list[str]:
    """Runs with beta 0.0, 0.1, … and 0%, 1%, … of compliance; return what the terminal shows of them."""
    for number in range(count):
        run = write_run(folder / str(number), final=0.01 * number)
        (run / "trial.json").write_text(json.dumps({"values": {"method.beta": f"0.{number}"}}))
    (folder / "sweep.yaml").write_text(json.dumps({"sweep": {"objective": None, "direction": "maximize"} | objective}))
    return [line for text in shown_of(folder, ranking(folder)) for line in text.splitlines()]


def test_settings_are_columns_while_these_fit_and_rows_otherwise(tmp_path: Path) -> None:
    """The base model and SFT are those of both runs, so they keep the interval over prompts of one run."""
    few, many = write_grid(tmp_path / "few", 2), write_grid(tmp_path / "many", 9)
    assert max(map(len, [*few, *many])) <= 80
    assert few[0] == "2 runs: values and 95% intervals over prompts"
    assert few[2].split() == ["base", "sft", "beta=0.0", "beta=0.1"]
    assert row_of(few, "gold/harmful_compliance")[0] == ["60.0%", "30.0%", "0.0%", "1.0%"]
    assert row_of(few, "gold/harmful_compliance")[1][:2] == ["55.0–65.0", "25.0–35.0"]
    assert row_of(many, "beta=0.8") == (["8.0%", "72.0%"], ["run", "8", "3.0–13.0", "67.0–77.0"])
    assert row_of(many, "base")[0] == ["60.0%", "70.0%"]


def test_a_ranked_sweep_begins_with_the_best_run_and_its_objective(tmp_path: Path) -> None:
    shown = write_grid(tmp_path, 2, objective="gold/helpful", direction="minimize")
    assert shown[5].startswith("gold/helpful")
    shown = write_grid(tmp_path / "most", 3, objective="gold/harmful_compliance")
    assert shown[2].split() == ["base", "sft", "beta=0.2", "beta=0.1", "beta=0.0"]
    assert shown[5].startswith("gold/harmful_  ")
    assert "Best by gold/harmful_compliance: run 2 with method.beta=0.2." in shown
    assert any(line.startswith("Command that repeats the best run: `python -m alignlab experiment=") for line in shown)


def test_the_file_of_a_ranked_sweep_holds_every_measure_too(tmp_path: Path) -> None:
    write_grid(tmp_path, 1, objective="gold/helpful")
    assert [*summarise_sweep(tmp_path)][-1] == str(tmp_path / "sweep.md")
    text = (tmp_path / "sweep.md").read_text()
    assert "| 1 | 0 | 0.0 | 0.720 |" in text
    assert "| gold/harmful_compliance | sft | 0.300 |" in text
