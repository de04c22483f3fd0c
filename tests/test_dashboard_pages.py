"""The dashboard and the page of explanations in a real browser, with hostile texts; make test-pages."""

import json
from contextlib import contextmanager

import pytest
from browsers import TALLEST, WIDTHS, check, chromium, violations
from dashboards import dashboard, write_run

from alignlab.reports.explanations_page import write_page

pytestmark = pytest.mark.pages
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
DAY = "outputs/2026-01-02"
HOSTILE = f"{DAY}/<script>alert(3)<"  # a name of a folder has no slash


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def explained(prompt):
    """An explanation whose every text is hostile."""
    tracks = [{"name": EVIL, "unit": EVIL, "values": [1.0, -1.0, 0.1]}]
    about = {"method": EVIL, "shows": EVIL, "cannot_show": EVIL, "figures": {EVIL: 1.0}}
    tokens = about | {"tokens": [EVIL, " b", " c"], "tracks": tracks}
    near = about | {"neighbours": [{"similarity": 0.5, "stage": EVIL, "id": "1", "text": EVIL}] * 3}
    return {"prompt": [{"role": "user", "content": prompt}], "completion": EVIL, "explanations": [tokens, near]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboard")
    for number in range(60):
        method = ("ppo", "dpo")[number % 2]
        write_run(folder / DAY / f"{number:02}-{method}", method, 0.5 + number / 200, number / 100, rows=60)
    write_run(folder / HOSTILE, helpful=0.99, rows=40, text=EVIL, model=EVIL)
    for number in range(3):
        write_run(folder / "multirun" / "seeds" / str(number), helpful=0.6, harmful=0.4)
    (folder / "multirun" / "seeds" / "sweep.yaml").write_text(
        "command: x\nsweep: {objective: null, direction: maximize}\n"
    )
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with dashboard(folder, explain=lambda run, prompt, completion: explained(prompt)) as client:
        yield client


@contextmanager
def visited(browser, client, path, width=1280):
    """Open a page; fail where its console has an error, a dialog opens, or a request leaves the server."""
    context = browser.new_context(base_url=client.url, viewport={"width": width, "height": 800})
    page, faults = context.new_page(), []
    page.set_default_timeout(20_000)
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda asked: asked.url.startswith(client.url) or faults.append(asked.url))
    page.goto(path)
    yield page
    context.close()
    assert faults == []


PAGES = {
    "runs": "/",
    "run": f"/run/{HOSTILE}",
    "completions": f"/completions/{HOSTILE}",
    "compare": f"/compare?run={HOSTILE}&run={DAY}/59-dpo",
    "sweep": "/sweep/multirun/seeds",
    "explain": f"/explain/{HOSTILE}?prompt={EVIL}",
    "login": "/login",
}


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_and_a_phone_shows_all(browser, client, name):
    for width in WIDTHS:
        with visited(browser, client, PAGES[name], width) as page:
            if name == "explain":
                page.get_by_role("button", name="Explain").click()
                page.locator("article").first.wait_for()
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            height = page.evaluate("document.documentElement.scrollHeight")
            assert width > 390 or height <= TALLEST
            assert page.locator("img").count() == 0


def test_runs_are_found_by_keyboard_and_compared(browser, client):
    with visited(browser, client, "/") as page:
        page.get_by_label("Search").fill("10-ppo")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=10-ppo**")
        assert page.locator("tbody tr").count() == 1
        page.goto("/")
        page.get_by_label("Method").select_option("dpo")
        page.wait_for_url("**method=dpo**")
        page.get_by_text("30 of 64 runs").wait_for()
        for box in page.get_by_role("checkbox").all()[:2]:
            box.focus()
            page.keyboard.press("Space")
        page.get_by_role("button", name="Compare the chosen runs").press("Enter")
        page.get_by_role("heading", name="2 runs side by side").wait_for()


def test_all_completions_are_reached(browser, client):
    seen = set()
    with visited(browser, client, f"/completions/{DAY}/00-ppo") as page:
        while True:
            seen |= set(page.locator(".prompt").all_inner_texts())
            following = page.get_by_role("link", name="Next")
            if not following.count():
                break
            following.click()
    assert len(seen) == 60


def test_a_page_follows_a_run_and_the_table_shows_a_new_one(browser, client, folder):
    run = write_run(folder / DAY / "99-ppo", finished=False)
    with visited(browser, client, f"/run/{DAY}/99-ppo") as page, visited(browser, client, "/?q=98-ppo") as table:
        table.get_by_text("0 of").wait_for()
        page.locator("#state", has_text="running").wait_for()
        before = page.locator("#curves polyline").first.get_attribute("points")
        page.wait_for_timeout(1000)
        with (run / "ppo" / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": 10, "train/loss": 9.0}) + "\n")
        page.get_by_text("ppo, step 10: train/loss 9.00").wait_for()
        page.wait_for_function(
            "(old) => document.querySelector('#curves polyline').getAttribute('points') !== old", arg=before
        )
        write_run(folder / DAY / "98-ppo")
        table.get_by_role("link", name="98-ppo").wait_for()


def test_the_page_of_explanations(browser, tmp_path):
    item = explained(EVIL)
    check(browser, write_page(tmp_path / "explanations.html", EVIL, [item] * 10, item["explanations"][:1] * 4))
