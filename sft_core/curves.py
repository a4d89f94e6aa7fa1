"""A run's curves by step: loss, loss by kind of token, accuracy, learning rate, gradient norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sft_core.events import EvalLogged, StepLogged
from sft_core.plots import MOST_POINTS, Points, by_step, figure, line, thin
from sft_core.record import RunRecord
from sft_core.smoothing import Smoothed
from sft_core.types import KINDS

if TYPE_CHECKING:
    import plotly.graph_objects as go

FEWER_POINTS: Final = 400
"""A curve that is drawn small, below the loss, never has more points."""
FAINT: Final = 0.45
"""The opacity of a raw curve under its running mean."""

_DASHES: Final[Mapping[str, str]] = {"answer": "solid", "template": "dash", "prompt": "dot"}


def smooth(values: Sequence[float]) -> list[float]:
    """The running mean of ``smoothing`` after each of the values.

    >>> smooth([2.0, 2.0])
    [2.0, 2.0]
    """
    smoothed = Smoothed()
    return [smoothed.add(value) for value in values]


def loss_curve(record: RunRecord) -> go.Figure:
    """Loss by step in nats per trained token: of each step, faint, and its running mean; and of
    the evaluation rows. There are curves from the first logged step on."""
    steps = record.of(StepLogged)
    traces = _raw_and_smoothed(
        "train loss",
        "train",
        [(event.step, event.loss) for event in steps],
        [(event.step, event.smoothed_loss) for event in steps if event.smoothed_loss is not None],
        most=MOST_POINTS,
    )
    if evals := record.of(EvalLogged):
        traces.append(line("eval loss", "eval", [(e.step, e.loss) for e in evals], dots=True))
    return figure(traces, by_step(record, "loss"))


def kinds_curve(record: RunRecord) -> go.Figure | None:
    """The loss of each kind of trained token, faint under its running mean; None where a run has
    fewer than two kinds, or was logged before they were told apart."""
    found: dict[str, Points] = {}
    for event in record.of(StepLogged):
        for part in event.kinds:
            found.setdefault(part.kind, []).append((event.step, part.loss))
    if len(found) < 2:
        return None
    traces: list[dict[str, Any]] = []
    for kind in (kind for kind in KINDS if kind in found):
        name = f"{kind} tokens"
        raw = line(f"{name}, each step", kind, thin(found[kind], FEWER_POINTS)[0], opacity=FAINT)
        drawn = line(name, kind, thin(_smoothed(found[kind]), FEWER_POINTS)[0])
        drawn["line"] |= {"dash": _DASHES[kind]}
        traces += [{**raw, "showlegend": False}, drawn]
    return figure(traces, by_step(record, "loss"))


def accuracy_curve(record: RunRecord) -> go.Figure | None:
    """The share of trained tokens that the model held for the likeliest, in percent, by step;
    None in logs that do not tell it."""
    steps = record.of(StepLogged)
    points = [(event.step, 100 * event.accuracy) for event in steps if event.accuracy is not None]
    if not points:
        return None
    traces = _raw_and_smoothed("token accuracy", "train", points, hover="%{y:.1f} %")
    layout = by_step(record, "%")
    layout["yaxis"] |= {"range": [0, 103]}
    return figure(traces, layout)


def rate_curve(record: RunRecord) -> go.Figure | None:
    """The learning rate by step."""
    points = [(event.step, event.learning_rate) for event in record.of(StepLogged)]
    if not points:
        return None
    drawn = line("learning rate", "train", thin(points, FEWER_POINTS)[0], hover="%{y:.2e}")
    layout = by_step(record, "")
    layout["yaxis"] |= {"exponentformat": "e"}
    return figure([drawn], layout)


def norm_curve(record: RunRecord) -> go.Figure | None:
    """The norm of each step's gradient before clipping, and the limit that it is clipped to."""
    points = [(event.step, event.grad_norm) for event in record.of(StepLogged)]
    if not points:
        return None
    traces = _raw_and_smoothed("gradient norm", "train", points)
    limit = record.config.train.max_grad_norm
    if limit:
        drawn = line(
            f"clipped to {limit:g}", "limit", [(points[0][0], limit), (points[-1][0], limit)]
        )
        drawn["line"] |= {"dash": "dash"}
        traces.append(drawn)
    return figure(traces, by_step(record, ""))


def _raw_and_smoothed(
    name: str,
    role: str,
    points: Sequence[tuple[float, float]],
    smoothed: Sequence[tuple[float, float]] = (),
    *,
    hover: str = "%{y:.4f}",
    most: int = FEWER_POINTS,
) -> list[dict[str, Any]]:
    """A noisy curve, faint from its second point on, under its running mean, which is worked out
    here where a log does not hold it."""
    raw, width = thin(points, most)
    if width > 1:
        name = f"{name} (mean of {width} steps)"
    if len(points) < 2:
        return [line(name, role, raw, hover=hover)]
    mean = thin(smoothed or _smoothed(points), most)[0]
    return [
        line(name, role, raw, opacity=FAINT, hover=hover),
        line("smoothed", role, mean, hover=hover),
    ]


def _smoothed(points: Sequence[tuple[float, float]]) -> Points:
    return list(zip((x for x, _ in points), smooth([y for _, y in points]), strict=True))
