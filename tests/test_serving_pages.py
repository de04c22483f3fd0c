"""The pages in a real browser: by mouse and by keyboard, wide and narrow, light and dark; make test-pages."""

import os
from pathlib import Path

import pytest
from served import served, tiny_engine

pytestmark = pytest.mark.pages
playwright = pytest.importorskip("playwright.sync_api")
FADED = """[...document.querySelectorAll("main *")].filter(
    each => getComputedStyle(each).opacity < 0.8 && !each.disabled).map(each => each.outerHTML.slice(0, 80))"""
CHROMIUM = os.environ.get("ALIGNLAB_CHROMIUM", "/usr/bin/chromium")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    engines = [tiny_engine("one", 0), tiny_engine("two", 1)]
    keys = [("ann", "administer"), ("ben", "label")]
    with served(tmp_path_factory.mktemp("pages"), engines=engines, keys=keys) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium; apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, client):
    """A signed-in page that fails the test where the console has an error, or a request leaves the server."""
    context = browser.new_context(base_url=client.url, viewport={"width": 1100, "height": 800})
    page, faults = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((client.url, "blob:")) or faults.append(asked.url))
    sign_in(page, client, "ann")
    yield page
    context.close()
    assert faults == []


def sign_in(page, client, user):
    page.goto("/login")
    page.get_by_label("API key").fill(client.keys[user])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/pages/chat")


def stored(client, user="ann", **query):
    header = {"Authorization": f"Bearer {client.keys[user]}"}
    return client.get("/feedback", params=query, headers=header).json()["feedback"]


def shoot(page, name):
    """Keep pictures of a page: wide and 400 px, light and dark."""
    folder = os.environ.get("ALIGNLAB_SCREENSHOTS")
    for scheme in ("light", "dark") if folder else ():
        page.emulate_media(color_scheme=scheme)
        for width in (1100, 400):
            page.set_viewport_size({"width": width, "height": 800})
            page.screenshot(path=f"{folder}/{name}-{scheme}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "the page is wider than the screen"
    assert page.evaluate(FADED) == [], "only what is disabled is pale"
    page.set_viewport_size({"width": 1100, "height": 800})


def ask(page, text):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")
    page.locator("article.assistant .actions:visible").last.wait_for()


def test_chat_streams_and_takes_feedback_by_mouse(page, client):
    ask(page, "mix flour")
    answer = page.locator("article.assistant").last
    assert answer.locator(".text").inner_text()
    answer.get_by_role("button", name="Good answer").click()
    page.get_by_text("Saved").wait_for()
    assert answer.get_by_role("button", name="Good answer").get_attribute("aria-pressed") == "true"
    answer.get_by_role("button", name="Correct", exact=True).click()
    answer.get_by_label("What the answer should have been").fill("mix flour and water")
    answer.get_by_role("button", name="Save the correction").click()
    answer.locator(".correction").wait_for(state="hidden")
    answer.get_by_role("button", name="Report harm").click()
    answer.get_by_label("privacy").check()
    answer.get_by_role("button", name="Send the report").click()
    answer.locator(".harm").wait_for(state="hidden")
    value = stored(client)[0]["value"]
    assert value == {"thumb": "up", "correction": "mix flour and water", "categories": ["privacy"]}
    shoot(page, "chat")
    answer.get_by_role("button", name="Withdraw feedback").click()
    page.get_by_text("Withdrawn").wait_for()
    assert stored(client)[0]["withdrawn"]
    answer.get_by_role("button", name="Regenerate").click()
    page.locator("article.assistant .actions:visible").last.wait_for()
    assert page.locator("article.assistant").count() == 1


def test_chat_by_keyboard_and_stop(page, client, monkeypatch):
    import time

    batch = client.service.engine("one").batch
    step = batch.step
    monkeypatch.setattr(batch, "step", lambda joining=(): time.sleep(0.1) or step(joining))
    monkeypatch.setattr(batch, "ends", set())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.get_by_label("Message").focus()
    page.keyboard.type("how do i bake bread")
    page.keyboard.press("Enter")
    page.locator("article.assistant .text:not(:empty)").wait_for()
    page.keyboard.press("Escape")
    page.locator("#status", has_text="Stopped").wait_for()
    deadline = time.monotonic() + 3
    while client.service.engine("one").load().active and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.service.engine("one").load().active == 0
    page.keyboard.type("mix flour")
    page.keyboard.press("Enter")
    page.locator("article.assistant").nth(1).locator(".text:not(:empty)").wait_for()
    page.get_by_role("button", name="New conversation").click()
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_label("Message").fill("why")
        page.get_by_label("Message").press("Enter")
    assert [turn["content"] for turn in asked.value.post_data_json["messages"]] == ["why"]


def test_compare_by_keyboard(page, client):
    page.goto("/pages/compare")
    page.get_by_label("Message").fill("mix and")
    page.get_by_role("button", name="Get two answers").click()
    page.locator("#pair").wait_for()
    assert page.locator("#pair .who").all_inner_texts() == ["", ""]
    page.keyboard.press("2")
    page.get_by_text("Saved. Write the next message.").wait_for()
    assert sorted(page.locator("#pair .who").all_inner_texts()) == ["one", "two"]
    assert stored(client, kind="compare")[0]["value"].keys() == {"choice"}
    shoot(page, "compare")


def test_two_people_rank_and_the_second_sees_who_agrees(page, client):
    page.goto("/pages/label")
    page.get_by_text("Add an item").click()
    page.locator("#new-text").fill("how do i bake bread")
    page.locator("#new-count").select_option("3")
    page.get_by_role("button", name="Sample the answers").click()
    for user in ("ann", "ben"):
        if user == "ben":
            sign_in(page, client, "ben")
            page.goto("/pages/label")
        page.locator("#item").wait_for()
        if user == "ann":
            shoot(page, "label")
        for place, letter in enumerate("ABC"):
            radio = page.get_by_role("radio", name=f"Answer {letter}: rank {place + 1}")
            radio.focus()
            page.keyboard.press("Space")
        page.get_by_role("button", name="Save and go to the next").press("Enter")
        page.get_by_text("There is nothing to rank.").wait_for()
    assert page.locator("#count").inner_text() == "1 of 1"
    page.get_by_text("Who agrees with whom").click()
    page.get_by_text("ann and ben").wait_for()


def test_feedback_is_browsed_filtered_withdrawn_and_exported(page, client):
    ask(page, "mix flour")
    page.get_by_role("button", name="Bad answer").last.click()
    page.get_by_text("Saved").wait_for()
    page.goto("/pages/feedback")
    page.get_by_text("thumb: down").first.wait_for()
    shoot(page, "feedback")
    page.get_by_label("Kind").select_option("answer")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="Withdraw the feedback").first.click()
    page.get_by_text("Withdrawn", exact=True).wait_for()
    assert stored(client, kind="answer")[0]["withdrawn"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Preference pairs").click()
    assert download.value.suggested_filename == "preference.jsonl"
