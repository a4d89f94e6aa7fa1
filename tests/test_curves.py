"""A run's curves say what its log says, of this version and of older ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core import curves, plots
from sft_core.config import LabConfig
from sft_core.events import EvalLogged, KindLoss, StepLogged, from_json, to_json
from sft_core.record import RunRecord
from tests.test_plots import by_name, record, started, step


def full(number: int, kinds: tuple[str, ...] = ("answer", "template")) -> StepLogged:
    """A step with all figures of this version."""
    parts = tuple(
        KindLoss(kind=kind, loss=(at + 2) / number, tokens=10 + at) for at, kind in enumerate(kinds)
    )
    return replace(
        step(number, 4 / number),
        smoothed_loss=5.0 + number,
        accuracy=number / 40,
        kinds=parts,
        trained_tokens_per_second=400.0,
        peak_share=0.25,
    )


def full_record(steps: int, *kinds: str) -> RunRecord:
    made = RunRecord(LabConfig(), [started(steps)])
    for number in range(1, steps + 1):
        made.add(full(number, kinds or ("answer", "template")))
    return made


def values(trace: dict[str, Any], axis: str = "y") -> list[float]:
    return list(trace[axis])


def test_the_first_step_is_a_point_that_can_be_seen() -> None:
    traces = by_name(curves.loss_curve(record(1)))
    assert set(traces) == {"train loss"}
    trace = traces["train loss"]
    assert (values(trace, "x"), values(trace)) == ([1], [4.0])
    assert "markers" in str(trace["mode"])
    assert trace["opacity"] == 1


def test_train_and_eval_loss_are_those_of_the_record() -> None:
    evals = [EvalLogged(step=s, loss=s / 10, trained_tokens=9, best=True) for s in (5, 10)]
    traces = by_name(curves.loss_curve(record(12, *evals)))
    assert values(traces["train loss"]) == [4 / n for n in range(1, 13)]
    assert values(traces["eval loss"], "x") == [5, 10]
    assert values(traces["eval loss"]) == [0.5, 1.0]


def test_the_raw_loss_is_faint_under_the_smoothed_one_of_the_log() -> None:
    traces = by_name(curves.loss_curve(full_record(6)))
    assert values(traces["smoothed"]) == [5.0 + n for n in range(1, 7)]
    assert traces["train loss"]["opacity"] < traces["smoothed"]["opacity"] == 1  # type: ignore[operator]


def test_an_older_log_is_smoothed_here() -> None:
    old = record(9)
    reread = RunRecord(LabConfig(), [from_json(to_json(event)) for event in old.events])  # type: ignore[misc]
    traces = by_name(curves.loss_curve(reread))
    assert values(traces["smoothed"]) == curves.smooth([4 / n for n in range(1, 10)])
    assert curves.kinds_curve(reread) is None
    assert curves.accuracy_curve(reread) is None


def test_a_long_run_is_thinned_and_says_so() -> None:
    traces = by_name(curves.loss_curve(record(2 * plots.MOST_POINTS)))
    assert len(values(traces["train loss (mean of 2 steps)"])) == plots.MOST_POINTS
    assert len(values(traces["smoothed"])) == plots.MOST_POINTS
    small = by_name(curves.norm_curve(record(2 * curves.FEWER_POINTS)))
    assert len(values(small["gradient norm (mean of 2 steps)"])) == curves.FEWER_POINTS


def test_each_kind_has_its_running_mean() -> None:
    traces = by_name(curves.kinds_curve(full_record(8)))
    assert [name for name, it in traces.items() if it.get("showlegend", True)] == [
        "answer tokens",
        "template tokens",
    ]
    assert values(traces["answer tokens, each step"]) == [2 / n for n in range(1, 9)]
    assert values(traces["answer tokens"]) == curves.smooth([2 / n for n in range(1, 9)])
    assert values(traces["template tokens"]) == curves.smooth([3 / n for n in range(1, 9)])
    dashes = {traces[f"{kind} tokens"]["line"]["dash"] for kind in ("answer", "template")}  # type: ignore[index]
    assert len(dashes) == 2  # told apart without colour


def test_a_kind_that_some_steps_lack_is_drawn_where_it_was_met() -> None:
    made = full_record(2, "answer")
    assert curves.kinds_curve(made) is None
    made.add(full(3))
    traces = by_name(curves.kinds_curve(made))
    assert values(traces["template tokens"], "x") == [3]
    assert values(traces["answer tokens"], "x") == [1, 2, 3]


def test_accuracy_rate_and_norm_are_those_of_the_record() -> None:
    made = full_record(4)
    accuracy = by_name(curves.accuracy_curve(made))["token accuracy"]
    assert values(accuracy) == pytest.approx([2.5, 5, 7.5, 10])
    rate = by_name(curves.rate_curve(made))["learning rate"]
    assert values(rate) == [1e-3 / n for n in range(1, 5)]
    norm = by_name(curves.norm_curve(made))
    assert values(norm["gradient norm"]) == [1.0] * 4
    assert values(norm["clipped to 1"]) == [1.0, 1.0]
    free = RunRecord(LabConfig().with_settings(["max_grad_norm=0"]), made.events)
    assert not any("clipped" in name for name in by_name(curves.norm_curve(free)))


@pytest.mark.parametrize(
    "draw",
    [curves.kinds_curve, curves.accuracy_curve, curves.rate_curve, curves.norm_curve],
)
def test_nothing_yet_is_no_curve_and_no_error(draw: Callable[[RunRecord], object]) -> None:
    empty = RunRecord(LabConfig())
    assert draw(empty) is None
    data = curves.loss_curve(empty).to_plotly_json()["data"]
    assert all(len(trace["x"]) == 0 for trace in data)


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=100))
def test_smoothing_starts_at_the_first_value_and_stays_within(losses: list[float]) -> None:
    smoothed = curves.smooth(losses)
    assert smoothed[0] == pytest.approx(losses[0])
    assert all(min(losses) - 1e-9 <= value <= max(losses) + 1e-9 for value in smoothed)
