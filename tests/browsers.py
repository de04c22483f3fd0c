"""Chromium for the tests of pages, and what every page is checked for."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("ALIGNLAB_CHROMIUM", "/usr/bin/chromium")
WIDTHS = (1280, 390)
TALLEST = 6000  # pixels of an opened page on a phone


@contextmanager
def chromium():
    """Yield a browser; skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium; apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, file, width=1280):
    """Open a file's page; fail where its console has an error or it asks for anything but itself."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page, faults, address = context.new_page(), [], Path(file).absolute().as_uri()
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda asked: asked.url.partition("#")[0] == address or faults.append(asked.url))
    page.goto(address)
    yield page
    context.close()
    assert faults == []


def violations(page):
    """Return what axe finds in both colour schemes, and keep pictures in $ALIGNLAB_SCREENSHOTS."""
    package = pytest.importorskip("axe_playwright_python")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text()
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(axe)
        found = page.evaluate("axe.run().then((run) => run.violations.map((one) => [one.id, one.nodes[0].html]))")
        seen += [(scheme, *one) for one in found]
        shoot(page, scheme)
    return seen


def shoot(page, scheme):
    """Keep a picture of a page."""
    if folder := os.environ.get("ALIGNLAB_SCREENSHOTS"):
        name = "-".join(Path(page.url).parts[-3:]).replace(".html", "")
        width = page.viewport_size["width"]
        page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)


def check(browser, file):
    """Check a file's page wide and on a phone: what axe finds, its width, and its height on the phone."""
    for width in WIDTHS:
        with opened(browser, file, width) as page:
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            height = page.evaluate("document.documentElement.scrollHeight")
            assert width > 390 or height <= TALLEST
