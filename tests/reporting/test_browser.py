"""The pages in a browser: nothing runs over, no text is too small, print loses nothing, tables sort and filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erulab.reporting import compare, write_report
from erulab.rundir import RunDir
from tests.reporting.conftest import MakeRun
from tests.reporting.test_page_parts import arm

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
    " --no-first-run"
)
SMALLEST = 9  # pixels
# Returns how far the page runs over its right edge, and the visible texts with their size on the screen.
MEASURE = """() => {
  const page = document.documentElement, texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, words = walk.currentNode.textContent.trim();
    if (!words || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ contentVisibilityAuto: true })) continue;
    const matrix = element.getScreenCTM ? element.getScreenCTM() : { a: 1, b: 0 };
    texts.push([words, parseFloat(getComputedStyle(element).fontSize) * Math.hypot(matrix.a, matrix.b)]);
  }
  return { over: page.scrollWidth - page.clientWidth, texts };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is missing; apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS.split())
        yield opened
        opened.close()


def test_pages_can_be_read_on_every_screen_and_on_paper(browser: Any, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    write_report(RunDir(run))
    runs = three_arms(make_run)
    sweep = tmp_path / "sweep.html"
    (tmp_path / "sweep.json").write_text(json.dumps({"command": "python", "jobs": [{"folder": "x", "code": 75}]}))
    sweep.write_text(compare(runs, "html", sweep=tmp_path, at=tmp_path))
    # Without the script, so that what holds does not depend on it.
    page = browser.new_context(java_script_enabled=False).new_page()
    for file, folded in ((run / "report.html", "dataset.name"), (sweep, "lower")):
        page.goto(file.as_uri())
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for kind in ("light", "dark", "print"):
                scheme = "dark" if kind == "dark" else "light"
                page.emulate_media(media="print" if kind == "print" else "screen", color_scheme=scheme)
                page.screenshot(path=str(tmp_path / f"{file.stem}-{width}-{kind}.png"), full_page=True)
                measured = page.evaluate(MEASURE)
                assert measured["over"] <= 0, (file, width, kind)
                assert not [(words, size) for words, size in measured["texts"] if size < SMALLEST], (file, width, kind)
                # A folded section is on paper, and only there.
                assert (folded in [words for words, _ in measured["texts"]]) == (kind == "print"), (file, width, kind)
    page.context.close()


def three_arms(make_run: MakeRun) -> list[Path]:
    kept = {"npo": (0.2, 0.95), "gd": (-0.1, 0.92), "ga": (0.0, 0.2)}
    return [run for method, (left, share) in kept.items() for run in arm(make_run, method, [left] * 3, [share] * 3)]


def test_tables_sort_and_filter(browser: Any, make_run: MakeRun, tmp_path: Path) -> None:
    runs = three_arms(make_run)
    sweep, run = tmp_path / "sweep.html", make_run()
    sweep.write_text(compare(runs, "html"))
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(sweep.as_uri())
    names = page.locator("table").first.locator("tbody td:first-child")
    assert [name.split()[0] for name in names.all_inner_texts()] == ["npo", "gd", "ga"]
    heading = page.locator("table").first.locator("th button").nth(1)
    for order in (["gd", "ga", "npo"], ["npo", "ga", "gd"]):  # knowledge left -0.1, 0, 0.2, and from most to least
        heading.click()
        assert [name.split()[0] for name in names.all_inner_texts()] == order
    write_report(RunDir(run))
    page.goto((run / "report.html").as_uri())
    page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
    field = page.locator("details").filter(has_text="Every score").locator("input")
    field.fill("unrehearsed exact")
    rows = field.locator("xpath=following-sibling::div[1]").locator("tbody tr:visible")
    assert [text.split()[:2] for text in rows.all_inner_texts()] == [["retain_unrehearsed", "exact_match"]]
    assert said == []  # the policy let the script run
