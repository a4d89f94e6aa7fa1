"""The page in a real Chromium: the whole path on the embedded default, and what may go wrong."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from sft_core.config import LabConfig
from sft_core.data import load
from sft_core.lessons import FROM_SCRATCH
from tests.ui.conftest import Server, Watched, visit

pytestmark = pytest.mark.browser

ATTACK = (
    '<img src=x onerror="window.hacked=1">{{7*7}}${8*8}</script><script>window.hacked=2</script>'
)
LONG_RUN = 4000


def open_tab(page: Page, name: str) -> None:
    page.click(f"#tab-{name}-button")


def set_number(page: Page, name: str, value: str) -> None:
    page.fill(f"#set-{name} input, #set-{name} textarea", value)
    page.keyboard.press("Tab")


def set_steps(page: Page, steps: int) -> None:
    open_tab(page, "train")
    set_number(page, "max-steps", str(steps))
    expect(page.locator("#consequence")).to_contain_text(f"{steps:,} step")


def state_of(page: Page) -> str:
    return page.locator("#status .run-head strong").inner_text()


def wait_for_state(page: Page, *states: str, seconds: float = 90) -> None:
    pattern = re.compile("|".join(states))
    expect(page.locator("#status .run-head strong")).to_have_text(pattern, timeout=seconds * 1000)


def stop(page: Page) -> None:
    """Leaves the server free for the next test."""
    page.click("#stop")
    wait_for_state(page, "Stopped", "Paused", "Finished")


def type_template(page: Page, text: str) -> None:
    page.click("#template .cm-content")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


STRIP_TEXT = """() => [...document.querySelectorAll("#strip .strip .t[data-i]")]
    .map((chip) => chip.textContent).join("").replaceAll("·", " ")"""


def strip_text(page: Page) -> str:
    """What the tokens under the template spell."""
    return str(page.evaluate(STRIP_TEXT))


def wait_for_strip(page: Page, text: str) -> None:
    page.wait_for_function(f"(text) => ({STRIP_TEXT})().includes(text)", arg=text)


# -- the server ------------------------------------------------------------------------------


def test_the_server_answers_soon_stays_small_and_holds_no_torch(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    assert process.memory_info().rss < 300e6
    assert server.seconds < 30  # five on a quiet machine; the tests' machine is shared
    mapped = " ".join(region.path for region in process.memory_maps())
    assert "libtorch" not in mapped


def test_the_page_offers_no_handler_of_its_own_as_an_api(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}gradio_api/info", timeout=10) as answer:
        told = json.load(answer)
    assert told["named_endpoints"] == {}
    assert told["unnamed_endpoints"] == {}


# -- the whole path --------------------------------------------------------------------------


def test_from_opening_the_page_to_three_answers_side_by_side(page: Page) -> None:
    """The first minute, as it stands on arrival but for the length of the run."""
    held_out = load(LabConfig().data).held_out
    facts = f"None of these {len(held_out)} facts stood in a training row"
    expect(page.locator("#chips")).to_contain_text(f"parrot 160/16/{len(held_out)}")
    expect(page.locator("#reading")).to_contain_text("160 rows to train on")
    expect(page.locator("#findings")).to_contain_text("Nothing is wrong")
    set_steps(page, 4)
    page.click("#start")
    expect(page.locator("#stop")).to_be_visible()
    wait_for_state(page, "Finished", seconds=240)
    expect(page.locator("#scores")).to_contain_text(facts)
    expect(page.locator("#scores .big")).to_have_count(1)
    expect(page.locator("#pairs")).not_to_contain_text("never")
    categories = {example.category for example in held_out}
    expect(page.locator("#scores tbody tr")).to_have_count(len(categories))
    compare_three(page, "parrot on parrot")


def test_the_lesson_from_scratch_trains_and_draws_what_happens(lesson: Page) -> None:
    page = lesson
    expect(page.locator("#reading")).to_contain_text("160 rows to train on")
    set_steps(page, 12)
    page.click("#start")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#start")).to_be_hidden()
    page.wait_for_selector("#losses .js-plotly-plot .scatterlayer .trace", timeout=60_000)
    plot = page.locator("#losses .js-plotly-plot").first.element_handle()
    assert plot is not None
    wait_for_state(page, "Finished")
    expect(page.locator("#start")).to_be_visible()
    names = page.locator("#losses .legendtext").all_text_contents()
    assert "train loss" in names
    assert {"smoothed", "answer tokens", "template tokens"} <= set(names)
    assert "eval loss" in names
    below = page.locator("#losses .plot-below")
    for title, curve in (("Token accuracy", "token accuracy"), ("Gradient norm", "gradient norm")):
        below.get_by_role("button", name=title).click()
        expect(below.get_by_role("button", name=title)).to_have_attribute("aria-pressed", "true")
        expect(below.locator(".legendtext", has_text=curve)).to_be_visible()
    assert plot.evaluate("node => node.isConnected"), "the curves were made anew"
    expect(page.locator("#scores")).to_contain_text("12 of these 40 facts stood in no training row")
    expect(page.locator("#scores")).to_contain_text("Facts not in training")
    expect(page.locator("#scores tbody tr")).to_have_count(6)
    assert page.locator("#samples li").count() >= 3
    expect(page.locator("#pairs")).to_contain_text("never")
    expect(page.locator("#run-chip")).to_contain_text("finished")


def test_rows_template_and_settings_follow_the_model_and_come_back(lesson: Page) -> None:
    page = lesson
    expect(page.locator("#built-in input")).to_have_value("six-tasks")
    asked = page.locator("#builder textarea").first.input_value()
    assert asked == load(FROM_SCRATCH.data).examples[0].messages[0].text
    choose(page, "model", "Parrot")
    expect(page.locator("#chips")).to_contain_text("parrot 160/")
    expect(page.locator("#chips")).to_contain_text("ChatML")
    expect(page.locator("#built-in input")).to_have_value("parrot")
    expect(page.locator("#shape")).to_be_hidden()
    wait_for_strip(page, "<|im_start|>user")
    open_tab(page, "train")
    expect(page.locator("#train-preset input")).to_have_value(re.compile("parrot"))


def test_the_settings_of_adapters_are_there_while_they_are_the_method(page: Page) -> None:
    open_tab(page, "train")
    expect(page.locator("#set-lora-rank")).to_be_hidden()
    choose(page, "set-method", "LoRA adapters")
    expect(page.locator("#set-lora-rank input")).to_have_value("16")
    set_number(page, "learning-rate", "0.00001")
    expect(page.locator("#consequence")).to_contain_text("1e-05 is low")
    set_number(page, "learning-rate", "0.001")
    expect(page.locator("#consequence")).not_to_contain_text("low")
    set_number(page, "lora-rank", "4")
    set_number(page, "lora-targets", "c_attn")
    set_steps(page, 2)
    page.click("#start")
    wait_for_state(page, "Failed")
    expect(page.locator("#status")).to_contain_text("Choose among q_proj")
    set_number(page, "lora-targets", "")
    page.click("#start")
    wait_for_state(page, "Finished", seconds=240)
    expect(page.locator("#status")).to_contain_text(
        re.compile(r"trained parameters 58,368 \(2\.70%")
    )
    choose(page, "set-method", "All weights")
    expect(page.locator("#set-lora-rank")).to_be_hidden()


def compare_three(page: Page, title: str = "bytes-gpt on six-tasks") -> None:
    open_tab(page, "compare")
    expect(page.locator("#compare-title")).to_contain_text(title)
    expect(page.locator("#prompts textarea")).to_have_count(3)
    page.click("#compare")
    expect(page.locator("#answers .answer")).to_have_count(6)
    feet = page.locator("#answers .answer-foot .mark")
    expect(feet).to_have_count(6, timeout=60_000)
    text = page.locator("#answers").inner_text()
    assert "tokens/s" in text
    assert "Expected:" in text
    expect(page.locator("#compare")).to_be_visible()


# -- a run belongs to the server -------------------------------------------------------------


def test_a_reload_in_mid_run_and_a_second_tab_lose_nothing(
    lesson: Page, context: BrowserContext, watched: Watched
) -> None:
    page = lesson
    type_template(page, "{% for m in messages %}<INST>{{ m.content }}<END>{% endfor %}")
    expect(page.locator("#chips")).to_contain_text("(edited)")
    set_steps(page, LONG_RUN)
    page.click("#start")
    wait_for_state(page, "Training")
    page.wait_for_function("() => location.search.startsWith('?run=')")
    with watched.left():
        page.reload()
        page.wait_for_selector("#run-chip .chip")
    expect(page.locator("#run-chip")).to_contain_text("step", timeout=20_000)
    expect(page.locator("#chips")).to_contain_text("(edited)")
    open_tab(page, "train")
    wait_for_state(page, "Training")
    page.wait_for_selector("#losses .js-plotly-plot .scatterlayer .trace", timeout=60_000)
    other = visit(context, page.url, watched)
    open_tab(other, "train")
    wait_for_state(other, "Training")
    other.wait_for_selector("#losses .js-plotly-plot .scatterlayer .trace", timeout=60_000)
    began = time.monotonic()
    other.click("#stop")
    wait_for_state(other, "Pausing|Paused", seconds=5)
    assert time.monotonic() - began < 5
    wait_for_state(page, "Paused")
    wait_for_state(other, "Paused")
    compare_three(other)


def test_a_paused_run_is_resumed_after_a_reload(lesson: Page, watched: Watched) -> None:
    page = lesson
    set_steps(page, 300)
    page.click("#start")
    expect(page.locator("#status .run-facts")).to_contain_text(
        re.compile(r"step [1-9]\d* of"), timeout=60_000
    )
    page.click("#stop")
    wait_for_state(page, "Paused")
    told = page.locator("#status .run-text")
    expect(told).to_contain_text("Resume goes on from there")
    expect(page.locator("#train-line")).to_have_text("")
    with watched.left():
        page.reload()
        page.wait_for_selector("#run-chip .chip")
    open_tab(page, "train")
    expect(page.locator("#resume")).to_be_visible()
    expect(page.locator("#start")).to_be_visible()
    step = int(re.findall(r"after step (\d+)", told.inner_text())[0])
    page.click("#resume")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#resume")).to_be_hidden()
    wait_for_state(page, "Finished", seconds=240)
    expect(page.locator("#status")).to_contain_text("300 steps in")
    expect(page.locator("#resume")).to_be_hidden()
    assert 0 < step < 300


def test_a_closed_tab_is_found_again_in_the_list_of_runs(
    lesson: Page, context: BrowserContext, server: Server, watched: Watched
) -> None:
    page = lesson
    set_steps(page, LONG_RUN)
    page.click("#start")
    wait_for_state(page, "Training")
    run = page.locator("#status .run-head .mono").inner_text()
    page.close()
    again = visit(context, server.url, watched)
    open_tab(again, "train")
    expect(again.locator("#run-chip")).to_contain_text("none yet")
    again.click(f"#runs .run-item:has-text('{run}')")
    wait_for_state(again, "Training")
    again.wait_for_function("(run) => location.search === `?run=${run}`", arg=run)
    stop(again)


def test_a_killed_compute_process_costs_the_run_and_not_the_page(
    lesson: Page, server: Server
) -> None:
    page = lesson
    set_steps(page, LONG_RUN)
    set_number(page, "eval-every", "5")
    page.click("#start")
    expect(page.locator("#status .run-facts")).to_contain_text(
        re.compile(r"step (\d{2,}|[6-9]) of"), timeout=60_000
    )
    for child in psutil.Process(server.process.pid).children():
        if any("serve(" in part for part in child.cmdline()):
            child.kill()
    wait_for_state(page, "Interrupted", seconds=20)
    expect(page.locator("#status")).to_contain_text("What was saved until then is kept")
    expect(page.locator("#start")).to_be_visible()
    expect(page.locator("#run-chip .chip-warning")).to_be_visible()
    compare_three(page)


def test_a_link_to_a_run_that_is_gone_says_so(
    context: BrowserContext, server: Server, watched: Watched
) -> None:
    page = visit(context, f"{server.url}?run=222222222222", watched)
    open_tab(page, "train")
    expect(page.locator("#train-line")).to_contain_text("There is no run")


# -- compare without a run -------------------------------------------------------------------


def test_a_sampled_comparison_of_the_base_model_can_be_stopped(lesson: Page) -> None:
    page = lesson
    open_tab(page, "compare")
    page.click("#how label:has-text('Sampled')")
    expect(page.locator("input[aria-label*='Temperature']").first).to_be_visible()
    page.fill("#longest input", "240")
    for _ in range(page.locator("#prompts .example:not(.on)").count()):
        page.locator("#prompts .example:not(.on)").first.click()
    page.click("#compare")
    page.wait_for_selector("#answers .answer-text.writing", timeout=60_000)
    page.click("#compare-stop")
    expect(page.locator("#compare-line")).to_contain_text("Stopped", timeout=5_000)
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#answers")).to_contain_text("you stopped it")
    expect(page.locator("#answers")).to_contain_text("no run yet")


# -- template and tokens ---------------------------------------------------------------------


def test_typing_in_the_template_repaints_the_tokens(lesson: Page) -> None:
    page = lesson
    content = page.locator("#builder textarea").first.input_value()
    assert content in strip_text(page)
    type_template(page, "{% for m in messages %}<INST>{{ m.content | upper }}<END>{% endfor %}")
    wait_for_strip(page, f"<INST>{content.upper()}<END>")
    type_template(page, "{% for m in messages %}{{ m.content }}{% endfor")
    expect(page.locator("#strip .token-line")).to_contain_text("last working version")
    expect(page.locator("#findings .finding-error")).to_be_visible()
    assert content.upper() in strip_text(page), "the last good tokens stay"


def test_the_mask_controls_change_what_is_trained(page: Page) -> None:
    expect(page.locator("#strip .t-end_of_turn[data-i]")).to_have_count(1)
    page.click("#end-of-turn label")
    expect(page.locator("#strip .t-end_of_turn[data-i]")).to_have_count(0)
    expect(page.locator("#chips")).to_contain_text("no end of turn")
    page.click("#train-on label:has-text('Everything')")
    expect(page.locator("#strip .t-whole_text[data-i]").first).to_be_visible()


def test_the_inspector_explains_a_token_by_mouse_and_by_keyboard(page: Page) -> None:
    open_tab(page, "tokens")
    strip = page.locator("#inspector .strip")
    strip.locator(".t[data-i='0']").hover()
    card = page.locator("#inspector .card")
    expect(card).to_contain_text("nothing stands before it")
    strip.focus()
    page.keyboard.press("ArrowRight")
    expect(card).to_contain_text("predicted from")
    page.keyboard.press("Enter")
    expect(card).to_contain_text("pinned")
    rows = page.locator("#inspector tbody tr")
    expect(rows.first).to_contain_text("-100")
    assert rows.count() == page.locator("#inspector .t[data-i]").count()
    page.click("#inspector .key:has-text('answer')")
    faded = strip.locator(".t-prompt[data-i]").first
    assert float(faded.evaluate("node => getComputedStyle(node).opacity")) < 0.5


def test_another_row_and_an_own_conversation(page: Page) -> None:
    page.click("#rows .row-card:nth-child(2) .row-pick")
    expect(page.locator("#rows .row-card:nth-child(2)")).to_have_class(re.compile("chosen"))
    asked = page.locator("#rows .row-card:nth-child(2) .turn-user .turn-text").inner_text()
    expect(page.locator("#builder textarea").first).to_have_value(asked)
    page.locator("#builder textarea").first.fill("Zebra?")
    wait_for_strip(page, "Zebra?")
    page.click("#builder button:has-text('Back to the row')")
    expect(page.locator("#builder textarea").first).to_have_value(asked)
    wait_for_strip(page, asked)


def test_another_preset_and_another_model(lesson: Page) -> None:
    page = lesson
    choose(page, "preset", "ChatML")
    wait_for_strip(page, "<|im_start|>user")
    expect(page.locator("#missing")).to_be_visible()
    one = page.locator("#strip .t[data-i]").count()
    page.click("#missing label:has-text('Leave as text')")
    expect(page.locator("#strip .token-line")).to_contain_text("several tokens each")
    assert page.locator("#strip .t[data-i]").count() > one


def choose(page: Page, dropdown: str, option: str) -> None:
    page.click(f"#{dropdown} input")
    page.click(f"[role=option]:has-text('{option}')")


# -- text stays text -------------------------------------------------------------------------


def test_markup_in_data_and_template_stays_text(page: Page, tmp_path: Path) -> None:
    rows = tmp_path / "attack.jsonl"
    row = {"prompt": f"Say {ATTACK}", "response": ATTACK, "category": ATTACK}
    bad = {"prompt": ATTACK, "id": f"bad {ATTACK}"}
    lines = [json.dumps({**row, "id": f"{ATTACK}{n}"}) for n in range(24)] + [json.dumps(bad)]
    rows.write_text("\n".join(lines))
    page.click("#source-kind label:has-text('Upload')")
    page.set_input_files("#upload input[type=file]", rows)
    expect(page.locator("#chips")).to_contain_text("attack.jsonl")
    type_template(
        page, ATTACK.replace("{{7*7}}", "") + "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    expect(page.locator("#strip .strip")).to_contain_text("<")
    expect(page.locator("#rows")).to_contain_text(f"Say {ATTACK}")
    expect(page.locator("#reading")).to_contain_text("left out")
    for tab in ("tokens", "set", "train", "compare"):
        open_tab(page, tab)
        page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src='x']").count() == 0
    assert "<script>" in page.locator("#prompts textarea").first.input_value()


def test_a_file_that_cannot_be_read_says_why_and_keeps_what_was_there(
    page: Page, tmp_path: Path
) -> None:
    rows = tmp_path / "odd.jsonl"
    rows.write_text("\n".join(json.dumps({"a": f"Ask {n}", "b": f"Answer {n}"}) for n in range(40)))
    page.click("#source-kind label:has-text('Upload')")
    page.set_input_files("#upload input[type=file]", rows)
    expect(page.locator("#reading .line-error")).to_be_visible()
    expect(page.locator("#chips")).to_contain_text("parrot 160/")
    page.select_option("#reading select[aria-label=Format]", "prompt-response")
    page.select_option("#reading select[aria-label='Column for prompt']", "a")
    page.select_option("#reading select[aria-label='Column for response']", "b")
    expect(page.locator("#chips")).to_contain_text("odd.jsonl 24/16/0")
    expect(page.locator("#rows")).to_contain_text("Ask")


# -- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(
    context: BrowserContext, server: Server, watched: Watched, theme: str
) -> None:
    page = context.new_page()
    watched.follow(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}?__theme={theme}")
    page.wait_for_selector("#chips .chip")
    for tab in ("data", "tokens", "set", "train", "compare"):
        open_tab(page, tab)
        page.wait_for_timeout(250)
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390, f"{tab} is {width} wide"


def test_chips_lead_to_their_tab_by_keyboard(page: Page) -> None:
    open_tab(page, "compare")
    page.focus("#run-chip .chip")
    page.keyboard.press("Enter")
    expect(page.locator("#tab-train-button")).to_have_attribute("aria-selected", "true")
    page.focus("#chips .chip[data-key=template]")
    page.keyboard.press("Enter")
    expect(page.locator("#tab-data-button")).to_have_attribute("aria-selected", "true")
