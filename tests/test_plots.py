"""Figures say what the record says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core import plots
from sft_core.audit import Audit, audit
from sft_core.config import LabConfig, MaskPolicy
from sft_core.events import RunStarted, Score, ScoreLogged, StepLogged, Tally
from sft_core.record import RunRecord
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, Message, Template

ROOT = Path(__file__).resolve().parents[1]


def step(number: int, loss: float) -> StepLogged:
    return StepLogged(
        step=number,
        epoch=number / 20,
        loss=loss,
        learning_rate=1e-3 / number,
        grad_norm=1.0,
        tokens=100,
        trained_tokens=40,
        tokens_per_second=1000.0,
        seconds_left=1.0,
        memory_mb=100.0,
    )


def started(total: int) -> RunStarted:
    return RunStarted(
        run="r",
        model="m",
        device="cpu",
        precision="fp32",
        parameters=10,
        trainable=10,
        train_rows=8,
        eval_rows=2,
        test_rows=2,
        bad_rows=0,
        truncated_rows=0,
        tokens=100,
        trained_tokens=50,
        total_steps=total,
    )


def record(steps: int, *events: object) -> RunRecord:
    made = RunRecord(LabConfig(), [started(steps)])
    for number in range(1, steps + 1):
        made.add(step(number, 4 / number))
    for event in events:
        made.add(event)  # type: ignore[arg-type]
    return made


def by_name(figure: object) -> dict[str, dict[str, object]]:
    return {trace["name"]: trace for trace in figure.to_plotly_json()["data"]}  # type: ignore[attr-defined]


def test_exact_match_is_told_apart_by_whether_the_fact_was_seen() -> None:
    score = Score(
        overall=Tally("all", 40, 26, 40),
        seen=Tally("seen", 28, 26, 28),
        unseen=Tally("unseen", 12, 0, 12),
    )
    traces = by_name(plots.score_curve(record(3, ScoreLogged(step=3, score=score))))
    heights = {name: trace["y"][0] for name, trace in traces.items()}  # type: ignore[index]
    assert heights == {
        "fact in training": pytest.approx(100 * 26 / 28),
        "fact not in training": 0,
        "all rows": pytest.approx(65),
    }


def test_a_score_that_was_taken_again_is_one_point() -> None:
    scores = [Score(overall=Tally("all", 4, exact, 4)) for exact in (0, 1, 2, 3)]
    steps = [0, 2, 4, 2]  # the best weights, of step 2, were restored and asked once more
    events = [ScoreLogged(step=s, score=score) for s, score in zip(steps, scores, strict=True)]
    trace = by_name(plots.score_curve(record(4, *events)))["all rows"]
    assert list(zip(trace["x"], trace["y"], strict=True)) == [(0, 0), (2, 75), (4, 50)]  # type: ignore[call-overload]


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=200), st.integers(1, 50))
def test_thinning_keeps_the_bounds_and_the_count(losses: list[float], most: int) -> None:
    means, width = plots.thin(list(enumerate(losses)), most)
    assert len(means) <= most
    assert len(means) == -(-len(losses) // width)
    assert min(losses) - 1e-9 <= min(y for _, y in means)
    assert max(y for _, y in means) <= max(losses) + 1e-9


def test_importing_plots_does_not_import_plotly() -> None:
    code = "import sys, sft_core.curves; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


# -- an audit ---------------------------------------------------------------------------------

INST = Template("inst-resp", PRESETS["inst-resp"].source)


def audited(*sizes: int, limit: int | None = None) -> Audit:
    """Rows of n + 5 tokens with the byte tokenizer, three of them trained."""
    said = [(Message("user", "H" * n), Message("assistant", "Yo")) for n in sizes]
    rows = [Example(str(n), messages) for n, messages in enumerate(said)]
    return audit(rows, INST, load_tokenizer("bytes"), MaskPolicy(), limit)


def test_bars_of_lengths_count_every_row_and_those_beyond_the_limit_apart() -> None:
    found = audited(*range(40), limit=24)
    traces = by_name(plots.lengths(found))
    heights = {name: list(trace["y"]) for name, trace in traces.items()}  # type: ignore[call-overload]
    assert sum(heights["rows"]) + sum(heights["cut off"]) == 40
    assert sum(heights["cut off"]) == found.truncated_rows == 20
    assert list(traces["limit, 24"]["x"]) == [24, 24]  # type: ignore[call-overload]
    assert traces["cut off"]["marker"]["pattern"]["shape"] == "/"  # type: ignore[index]
    middles = list(traces["rows"]["x"])  # type: ignore[call-overload]
    assert middles == [(bar.start + bar.stop) / 2 for bar in found.lengths]


def test_a_limit_far_beyond_the_rows_is_not_drawn() -> None:
    assert set(by_name(plots.lengths(audited(3, 4, limit=9000)))) == {"rows"}
    assert set(by_name(plots.limits(audited(3, 4, limit=9000)))) == {
        "trained tokens kept",
        "rows whole",
    }


def test_bars_of_shares_stand_on_percents() -> None:
    trace = by_name(plots.shares(audited(0, 15, 15)))["rows"]
    at = {x: y for x, y in zip(trace["x"], trace["y"], strict=True) if y}  # type: ignore[call-overload]
    assert at == {65: 1, 15: 2}  # 3 of 5 tokens; 3 of 20


def test_what_a_limit_keeps_rises_to_all() -> None:
    found = audited(*range(40), limit=24)
    traces = by_name(plots.limits(found))
    for name in ("trained tokens kept", "rows whole"):
        heights = list(traces[name]["y"])  # type: ignore[call-overload]
        assert heights == sorted(heights)
        assert (heights[0], heights[-1]) == (0, 100)
    at = list(traces["rows whole"]["x"]).index(24)  # type: ignore[call-overload]
    assert traces["rows whole"]["y"][at] == pytest.approx(100 * 20 / 40)  # type: ignore[index]


@pytest.mark.parametrize("draw", [plots.lengths, plots.shares, plots.limits])
def test_no_rows_one_row_and_only_failed_rows_are_figures_too(draw: Any) -> None:
    broken = Example("x", (Message("user", "half \ud83d"), Message("assistant", "ok")))
    failed = audit([broken], INST, load_tokenizer("bytes"), MaskPolicy(), 8)
    assert failed.failed == 1
    untrained = Example("u", (Message("user", "Hi"),))
    for found in (
        audited(),
        audited(limit=8),
        audited(5),
        audited(5, limit=3),
        failed,
        audit([untrained], INST, load_tokenizer("bytes"), MaskPolicy()),
    ):
        draw(found).to_json()
