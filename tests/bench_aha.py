"""Time to the first "aha": from a cold start of the app to a right answer of the tuned model beside
the base model's babble, in a real Chromium on the lab's default, with nothing changed.

    python -m tests.bench_aha --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from sft_core.config import LabConfig
from sft_core.data import load
from sft_core.evaluate import exact_match
from tests.browser import FLAGS, executable
from tests.ui.conftest import READY, end, start

STAGES = (
    "server answers",
    "page can be used",
    "first point of the curve",
    "tuned model restored and scored",
    "both have answered",
)
PATIENCE = 180_000


class Watch:
    """Seconds since it was made, by stage."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.marks: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        self.marks[stage] = time.monotonic() - self._began


def walk(page: Page, watch: Watch) -> tuple[int, int, int]:
    """Train and compare as a newcomer would: how many prompts were asked, and how many of the base
    and of the tuned model's answers are the expected ones."""
    page.click("#tab-train-button")
    page.click("#start")
    page.wait_for_selector("#losses .js-plotly-plot .scatterlayer .trace", timeout=PATIENCE)
    watch.mark(STAGES[2])
    state = page.locator("#status .run-head strong")
    expect(state).to_have_text("Finished", timeout=PATIENCE)
    watch.mark(STAGES[3])
    page.click("#tab-compare-button")
    prompts = page.locator("#prompts textarea")
    asked = [prompts.nth(at).input_value() for at in range(prompts.count())]
    page.click("#compare")
    expect(page.locator("#answers .answer-foot .mark")).to_have_count(
        2 * len(asked), timeout=PATIENCE
    )
    watch.mark(STAGES[4])
    texts = page.locator("#answers .answer-text").all_inner_texts()
    known = {row.prompt[-1].text: row.answer for row in load(LabConfig().data).held_out}
    sides = (texts[0::2], texts[1::2])
    right = [
        sum(exact_match(text, known[prompt]) for text, prompt in zip(side, asked, strict=True))
        for side in sides
    ]
    return len(asked), right[0], right[1]


def once(number: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        watch = Watch()
        server = start(Path(folder))
        try:
            watch.mark(STAGES[0])
            page.goto(server.url)
            page.wait_for_selector(READY)
            watch.mark(STAGES[1])
            asked, base, tuned = walk(page, watch)
        finally:
            end(server)
            browser.close()
    print(f"round {number}: of {asked} prompts the base answers {base}, the tuned model {tuned}")
    return watch.marks


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args(arguments).rounds
    found = [once(number) for number in range(1, rounds + 1)]
    print(f"\n{'seconds since the app was started':<36s}{'median':>8s}{'min':>8s}{'max':>8s}")
    for stage in STAGES:
        times = [marks[stage] for marks in found]
        print(f"{stage:<36s}{statistics.median(times):8.1f}{min(times):8.1f}{max(times):8.1f}")


if __name__ == "__main__":
    main()
