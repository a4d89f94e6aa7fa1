"""A batch as the page draws it: what the value holds, and what a browser makes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from sft_core.config import LabConfig, TrainConfig
from sft_core.dealing import batch_windows, layouts, plan
from sft_core.lessons import FROM_SCRATCH
from sft_core.ui import batch_panel, consequence
from sft_core.ui.batch_panel import batch_value
from sft_core.ui.lengths import SAMPLED, mean_length, sampled
from tests.ui.controls import from_scratch
from tests.ui.test_browser import open_tab
from tests.ui.test_values import settings

PACKED = TrainConfig(batch_size=4, max_length=128, packing=True)


def lesson(**data: object) -> LabConfig:
    return FROM_SCRATCH.but(data=replace(FROM_SCRATCH.data, **data))


def test_the_rows_that_a_run_would_train_on_are_measured_once() -> None:
    found = sampled(lesson())
    assert found.whole
    assert found.looked == found.total == len(found.rows) == len(found.ids)
    assert found is sampled(lesson().but(train=replace(FROM_SCRATCH.train, batch_size=3)))
    assert mean_length(lesson()) == pytest.approx(sum(found.lengths) / len(found.lengths))


def test_of_a_large_set_the_first_rows_are_measured() -> None:
    assert SAMPLED == 1000
    part = replace(sampled(lesson()), total=5000)
    value = batch_value(PACKED, part)
    assert value["note"] == f"These are the first {part.looked:,} of 5,000 training rows."
    assert batch_value(PACKED, sampled(lesson()))["note"] == ""


def test_the_drawn_batch_is_the_first_that_is_trained() -> None:
    found = sampled(lesson())
    value = batch_value(PACKED, found)
    packed = batch_windows(found.lengths, 4, 128, seed=PACKED.seed)[0]
    drawn = [[piece["id"] for piece in each["segments"]] for each in value["packed"]["lines"]]
    assert drawn == [[found.ids[row] for row in window] for window in packed]
    padded = plan(found.lengths, 4, seed=PACKED.seed)[0]
    drawn = [[piece["id"] for piece in each["segments"]] for each in value["padded"]["lines"]]
    assert drawn == [[found.ids[row]] for row in padded]
    figures = layouts(found.lengths, 4, 128, seed=PACKED.seed)
    assert figures is not None
    assert value["text"] == figures.sentence()
    assert [row[0] for row in value["table"]] == [name for name, _, _ in figures.table()]


def test_trained_stretches_are_those_of_the_labels() -> None:
    found = sampled(lesson())
    value = batch_value(PACKED, found)
    by_id = dict(zip(found.ids, found.rows, strict=True))
    for each in value["packed"]["lines"]:
        assert sum(piece["length"] for piece in each["segments"]) <= each["width"] == 128
        for piece in each["segments"]:
            trained = {at for start, end in piece["stretches"] for at in range(start, end)}
            row = by_id[piece["id"]]
            assert trained == {at for at, why in enumerate(row.reasons) if why.trained}
            assert len(trained) == piece["trained"]


def test_what_cannot_be_drawn_is_said() -> None:
    assert "error" in batch_value(PACKED, replace(sampled(lesson()), ids=(), places=(), rows=()))
    broken = from_scratch(source="{% for m in messages %}", preset="chatml")
    assert "error" in json.loads(batch_panel.show(broken, settings()))
    assert "error" in json.loads(batch_panel.show(from_scratch(), settings(batch_size=None)))


def test_the_consequence_knows_the_lengths_of_packed_rows() -> None:
    told = json.loads(consequence.consequence(settings(packing=True), from_scratch()))["text"]
    assert "tokens on average, about " in told


@pytest.mark.browser
def test_a_batch_is_drawn_padded_and_packed_and_a_row_of_it_opens(page: Page) -> None:
    open_tab(page, "tokens")
    open_tab(page, "batch")
    batch = page.locator("#batch")
    expect(batch).to_contain_text("padded to the limit")
    expect(batch.locator(".batch-line")).to_have_count(8)
    batch.locator(".seg", has_text="Packed").click()
    expect(batch).to_contain_text("Positions restart with each row")
    piece = batch.locator(".piece").nth(1)
    piece.click()
    name = str(piece.get_attribute("aria-label")).split(":")[0]
    expect(batch.locator(".batch-detail")).to_contain_text("row 2 of window 1")
    batch.locator("button.link").click()
    expect(page.locator("#stepper")).to_contain_text(name)
