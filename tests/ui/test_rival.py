"""Another masker beside the lab's: what the page is told, and what it shows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sft_core.lessons import FROM_SCRATCH
from sft_core.rivals import RIVALS, find
from sft_core.types import LabError, LimitError, Message
from sft_core.ui import rival_view
from sft_core.ui.look import look
from sft_core.ui.session import preset_source
from sft_core.ui.token_view import tokens_value
from tests.ui.controls import from_scratch
from tests.ui.test_browser import choose, open_tab
from tests.ui.test_values import FIRST, contract


def opposed(name: str | None, **values: Any) -> dict[str, Any]:
    value = json.loads(rival_view.oppose(from_scratch(**values), name))
    assert isinstance(value, dict)
    return value


def test_no_rival_shows_nothing() -> None:
    assert opposed("") == opposed(None) == {}
    assert [name for _, name in rival_view.CHOICES] == ["", *RIVALS]


def test_a_rival_that_agrees_says_so() -> None:
    value = opposed("prefix-length")
    assert (value["same"], value["differences"]) == (True, [])
    assert value["verdict"] == "It trains exactly what the lab trains in this conversation."


def test_each_difference_marks_tokens_of_the_strip_that_is_shown() -> None:
    value = opposed("tokenise-apart")
    shown = tokens_value(look(FROM_SCRATCH, FIRST))
    assert value["key"] == shown["key"]
    (difference,) = value["differences"]
    assert difference["signs"] == ["missed"]
    (position,) = difference["tokens"]
    assert shown["tokens"][position][0] == "<END>"
    assert "of" in value["verdict"]
    other = look(FROM_SCRATCH, replace(FIRST, messages=(*FIRST.messages, Message("user", "?"))))
    assert tokens_value(other)["key"] != value["key"]


def test_where_nothing_is_found_signs_follow_what_the_lab_trains() -> None:
    plain = preset_source("plain", "bytes-gpt")
    value = opposed("marker-search", preset="plain", source=plain)
    assert value["verdict"] == "It cannot work here."
    (difference,) = value["differences"]
    assert set(difference["signs"]) == {"missed"}
    assert len(difference["tokens"]) == len(FIRST.answer)


def test_what_cannot_be_compared_says_why() -> None:
    assert "Width is empty" in opposed("marker-search", width=None)["error"]
    broken = opposed("marker-search", source="{% for m in %}")
    assert broken["error"]
    seen = look(contract(), FIRST)
    long = replace(FIRST, messages=FIRST.messages * 40 + (Message("user", "x" * 60_000),))
    with pytest.raises(LimitError, match="too long to compare"):
        rival_view.rival_value(look(contract(), long), find("prefix-length"))
    with pytest.raises(LabError):
        rival_view.rival_value(replace(seen, encoded=None), find("marker-search"))


@pytest.mark.browser
def test_a_rival_s_differences_mark_the_tokens_and_follow_the_template(lesson: Page) -> None:
    page = lesson
    open_tab(page, "tokens")
    marked = page.locator("#inspector .t[data-rival]")
    expect(marked).to_have_count(0)
    choose(page, "rival", "Tokenise apart")
    differences = page.locator("#differences button.difference")
    expect(differences).to_have_count(1)
    expect(differences).to_contain_text("never learns to stop")
    expect(marked).to_have_count(1)
    expect(marked).to_have_attribute("data-rival", "\u2212")
    expect(page.locator("#strip .t[data-rival]")).to_have_count(0)
    differences.click()
    expect(differences).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#inspector .t.picked")).to_have_text("<END>")
    marked.hover()
    expect(page.locator("#inspector .card")).to_contain_text("never learns to stop")
    differences.click()
    expect(page.locator("#inspector .t.picked")).to_have_count(0)
    open_tab(page, "data")
    choose(page, "preset", "ChatML")
    open_tab(page, "tokens")
    expect(marked).to_have_text("<|im_end|>")
    choose(page, "rival", "None")
    expect(marked).to_have_count(0)
    expect(page.locator("#differences .view")).to_be_empty()
