"""The audit and the findings in a real Chromium: what grows, what is opened, what is mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.ui.conftest import Server, Watched, visit
from tests.ui.test_browser import open_tab, type_template, wait_for_strip

pytestmark = pytest.mark.browser

MANY = 12_000
SLOW = (  # some milliseconds a row, so that an audit of many goes on until somebody stops it
    "{% for i in range(60000) %}{% endfor %}"
    "{% for m in messages %}<INST>{{ m.content }}<END>{% endfor %}"
)


def open_audit(page: Page) -> None:
    open_tab(page, "tokens")
    open_tab(page, "set")


def wait_for_audit(page: Page, text: str) -> None:
    """The first plot brings a large library along, so a busy machine takes its time."""
    expect(page.locator("#audit")).to_contain_text(text, timeout=20_000)


def upload(page: Page, file: Path) -> None:
    page.click("#source-kind label:has-text('Upload')")
    page.set_input_files("#upload input[type=file]", file)
    expect(page.locator("#chips")).to_contain_text(file.name)


@pytest.fixture
def many_rows(tmp_path: Path) -> Path:
    """More rows than are audited without being asked to."""
    rows = [
        {"prompt": f"Ask {n} " + "why " * (n % 40), "response": "So it is. " * (n % 12)}
        for n in range(MANY)
    ]
    file = tmp_path / "many.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_the_whole_set_is_audited_and_a_row_of_it_opens_among_the_tokens(page: Page) -> None:
    open_audit(page)
    wait_for_audit(page, "all 160 training rows")
    for name in ("lengths", "shares", "limits"):
        expect(page.locator(f"#audit-{name} .js-plotly-plot")).to_be_visible()
    with page.expect_download() as coming:
        page.click("#audit-json")
    figures = json.loads(Path(coming.value.path()).read_text())
    assert (figures["rows"], figures["failed"]) == (160, 0)
    with page.expect_download() as coming:
        page.click("#audit-rows")
    assert len(Path(coming.value.path()).read_text().splitlines()) == 161
    page.locator("#audit .why").first.click()
    expect(page.locator("#audit .why-text").first).to_contain_text("divided by")
    first = page.locator("#audit-lists tbody tr").first
    row, trained = first.locator("td").nth(0).inner_text(), first.locator("td").nth(2).inner_text()
    first.locator("button").click()
    expect(page.locator("#stepper h2")).to_contain_text(row)
    expect(page.locator("#inspector .share")).to_contain_text(f"{trained} of")
    expect(page.locator("#inspector .strip")).to_be_focused()
    # Something else is trained now, so the audit is made anew.
    open_tab(page, "set")
    open_tab(page, "data")
    page.click("#end-of-turn label")
    expect(page.locator("#chips")).to_contain_text("no end of turn")
    open_tab(page, "tokens")
    wait_for_audit(page, "no end of turn")
    # What the doctor says of many rows mends here too, and the figures follow.
    expect(page.locator("#survey")).to_contain_text("is printed but not trained")
    page.click("#survey button:has-text('Train it')")
    wait_for_audit(page, "with end of turn")
    page.click("#mended-set button:has-text('Undo')")
    wait_for_audit(page, "no end of turn")


def test_an_audit_grows_outlives_its_page_and_is_stopped_by_its_own_visitor(
    page: Page, context: BrowserContext, server: Server, watched: Watched, many_rows: Path
) -> None:
    upload(page, many_rows)
    type_template(page, SLOW)
    expect(page.locator("#chips")).to_contain_text("(edited)")
    open_audit(page)
    expect(page.locator("#audit-start")).to_contain_text("Audit the whole set")
    page.click("#audit-start")
    page.wait_for_selector("#audit-lengths .js-plotly-plot .bars", timeout=30_000)
    plot = page.locator("#audit-lengths .js-plotly-plot").element_handle()
    assert plot is not None
    drawn = page.locator("#audit-lengths .view").get_attribute("data-draws")
    page.wait_for_function(
        "(n) => document.querySelector('#audit-lengths .view').dataset.draws !== n", arg=drawn
    )
    assert plot.evaluate("node => node.isConnected"), "the plot was made anew"
    with watched.left():
        page.close()
    again = visit(context, server.url, watched)
    open_audit(again)
    wait_for_audit(again, "Auditing")
    expect(again.locator("#audit-line")).to_contain_text("other data or settings")
    again.click("#audit-stop")
    wait_for_audit(again, "The figures are those of the first")
    expect(again.locator("#audit-start")).to_be_visible()
    expect(again.locator("#audit-stop")).to_be_hidden()
    again.locator("#audit-lists tbody button").first.click()
    expect(again.locator(".toast-body")).to_contain_text("Other data was loaded since")


def test_a_finding_shows_its_tokens_mends_and_is_taken_back(lesson: Page) -> None:
    page = lesson
    page.click("#end-of-turn label")
    say = page.locator("#findings .finding .say")
    expect(say).to_contain_text("is printed but not trained")
    found = page.locator("#strip .t-found")
    expect(found).to_have_count(0)
    say.focus()
    expect(found).to_have_text("<END>")
    page.keyboard.press("Enter")
    expect(say).to_have_attribute("aria-pressed", "true")
    expect(say).to_be_focused()
    page.hover("#builder textarea >> nth=0")
    expect(found).to_have_count(1)
    page.keyboard.press("Escape")
    page.focus("#builder textarea >> nth=0")
    expect(found).to_have_count(0)
    # The same findings stand beside the inspector, and mend there too.
    open_tab(page, "tokens")
    page.hover("#advice .finding")
    expect(page.locator("#inspector .t-found")).to_have_text("<END>")
    page.click("#advice button:has-text('Train it')")
    expect(page.locator("#advice")).to_contain_text("Nothing is wrong")
    expect(page.locator("#inspector .t-end_of_turn[data-i]")).to_have_count(1)
    open_tab(page, "data")
    expect(page.locator("#end-of-turn input")).to_be_checked()
    expect(page.locator("#mended")).to_contain_text("ends of turn are trained now")
    page.click("#mended button:has-text('Undo')")
    expect(page.locator("#end-of-turn input")).not_to_be_checked()
    expect(say).to_be_visible()
    expect(page.locator("#mended")).to_be_hidden()


def test_a_fault_is_marked_in_its_line_while_one_types(page: Page) -> None:
    type_template(page, "{% for m in messages %}\n<INST>{{ m.content }}\n{% endfr %}")
    place = page.locator("#findings .finding button:has-text('line 3')")
    expect(place).to_be_visible()
    assert page.evaluate("document.activeElement.closest('#template') !== null")
    line = page.locator("#template .cm-line")
    backgrounds = [
        line.nth(at).evaluate("node => getComputedStyle(node).backgroundColor") for at in range(3)
    ]
    assert backgrounds[2] != backgrounds[0] == backgrounds[1]
    place.click()
    page.keyboard.insert_text("XX")
    expect(line.nth(2)).to_contain_text("{% XXendfr %}")
    type_template(page, "{% for m in messages %}<INST>{{ m.content }}<END>{% endfor %}")
    wait_for_strip(page, "<END>")
    marked = line.first.evaluate("node => getComputedStyle(node).backgroundColor")
    assert marked == backgrounds[0]
