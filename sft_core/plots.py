"""Values -> plotly figures. Figures carry roles (``meta``: "train", "eval", ...), and whoever shows
one gives each role its colour; on their own they use the colours below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sft_core.audit import Audit, Bar
from sft_core.events import EvalLogged, ScoreLogged, StepLogged
from sft_core.record import RunRecord
from sft_core.smoothing import Smoothed

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS: Final = 1000
"""A curve never has more points; beyond that, each stands for the mean of several steps."""
SMOOTH_FROM: Final = 40
"""Points from which on a smoothed curve says more than the raw one."""
COLOURS: Final[Mapping[str, str]] = {
    "train": "#0f766e",
    "eval": "#b26b00",
    "rate": "#6a7580",
    "seen": "#0f766e",
    "unseen": "#b26b00",
    "all": "#6a7580",
    "rows": "#0f766e",
    "over": "#b26b00",
    "limit": "#b26b00",
}

_LEGEND: Final[Mapping[str, Any]] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
_QUIET: Final[Mapping[str, Any]] = {"showgrid": False, "fixedrange": True}

Points = list[tuple[float, float]]


def thin(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> tuple[Points, int]:
    """At most ``most`` points, each the mean of ``width`` neighbours, and that width.

    >>> thin([(1, 4.0), (2, 2.0), (3, 1.0)], most=2)
    ([(1.5, 3.0), (3.0, 1.0)], 2)
    """
    width = max(1, -(-len(points) // most))
    groups = [points[at : at + width] for at in range(0, len(points), width)]
    means = [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
    return means, width


def smooth(values: Sequence[float]) -> list[float]:
    """The running mean of ``smoothing`` after each of the values.

    >>> smooth([2.0, 2.0])
    [2.0, 2.0]
    """
    smoothed = Smoothed()
    return [smoothed.add(value) for value in values]


def loss_curve(record: RunRecord) -> go.Figure:
    """Loss by step in nats per trained token, of training and of evaluation, and below it the
    learning rate. There are curves from the first logged step on."""
    steps = record.of(StepLogged)
    train, width = thin([(event.step, event.loss) for event in steps])
    name = "train loss" if width == 1 else f"train loss (mean of {width} steps)"
    smoothed = len(train) >= SMOOTH_FROM
    traces = [_line(name, "train", train, opacity=0.35 if smoothed else 1.0)]
    if smoothed:
        average = smooth([y for _, y in train])
        line = list(zip((x for x, _ in train), average, strict=True))
        traces.append(_line("train loss, smoothed", "train", line))
    if evals := record.of(EvalLogged):
        traces.append(_line("eval loss", "eval", [(e.step, e.loss) for e in evals], dots=True))
    rates, _ = thin([(event.step, event.learning_rate) for event in steps])
    rate = _line("learning rate", "rate", rates, hover="%{y:.2e}")
    traces.append({**rate, "yaxis": "y2", "showlegend": False})
    layout: dict[str, dict[str, Any]] = {
        "xaxis": {"title": {"text": "step"}, "anchor": "y2", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "loss"}, "domain": [0.34, 1], "rangemode": "tozero"},
        "yaxis2": {
            "title": {"text": "learning rate"},
            "domain": [0, 0.22],
            "rangemode": "tozero",
            "exponentformat": "e",
            "nticks": 3,
        },
    }
    if record.total_steps:
        layout["xaxis"]["range"] = [0, record.total_steps * 1.01]
    return _figure(traces, layout)


def score_curve(record: RunRecord) -> go.Figure:
    """Exact match on held-out rows by step, in percent: facts that stood in training, facts that
    did not, and all rows."""
    # The last score of a run stands at the step whose weights were kept, which has one already.
    scores = sorted({event.step: event for event in record.of(ScoreLogged)}.items())
    parts = {"seen": "fact in training", "unseen": "fact not in training", "all": "all rows"}
    traces = []
    for role, name in parts.items():
        tallies = [
            (step, event.score.overall if role == "all" else getattr(event.score, role))
            for step, event in scores
        ]
        if role != "all" and not all(
            event.score.seen and event.score.unseen for _, event in scores
        ):
            continue  # all rows are of one kind, and one line says it
        points = [(step, 100 * tally.share) for step, tally in tallies if tally and tally.count]
        if points:
            traces.append(_line(name, role, points, dots=True, hover="%{y:.0f} %"))
    layout: dict[str, dict[str, Any]] = {
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "exact match, %"}, "range": [-3, 103]},
    }
    if record.total_steps:
        layout["xaxis"]["range"] = [0, record.total_steps * 1.02]
    return _figure(traces, layout)


def lengths(audit: Audit) -> go.Figure:
    """Rows by length in tokens, before anything is cut off. Those beyond the length limit are
    drawn apart and hatched, and the limit as a line where it lies within the plot."""
    within = [bar.rows - bar.over for bar in audit.lengths]
    over = [bar.over for bar in audit.lengths]
    traces = [_bars("rows", "rows", audit.lengths, within, "%{customdata} tokens: %{y:,} rows")]
    limit = audit.max_length
    if any(over):
        hover = "%{customdata} tokens: %{y:,} rows are cut off"
        traces.append(_bars("cut off", "over", audit.lengths, over, hover))
    if limit is not None and audit.lengths and limit <= audit.lengths[-1].stop:
        traces.append(_limit(limit, max(bar.rows for bar in audit.lengths)))
    return _figure(traces, _axes("tokens per row", "rows", stacked=True, legend=len(traces) > 1))


def shares(audit: Audit) -> go.Figure:
    """Rows by the share of their kept tokens that is trained, in percent."""
    bars = [Bar(100 * bar.start, 100 * bar.stop, bar.rows) for bar in audit.shares]
    heights = [bar.rows for bar in bars]
    traces = [_bars("rows", "rows", bars, heights, "%{customdata} % trained: %{y:,} rows")]
    layout = _axes("trained share of a row, %", "rows")
    layout["xaxis"] |= {"range": [0, 100], "dtick": 20}
    return _figure(traces, layout)


def limits(audit: Audit) -> go.Figure:
    """By length limit: how many rows would stay whole, and how many of all trained tokens would
    be kept, both in percent. The limit in force is a line."""
    top = audit.limits[-1] if audit.limits else None
    traces = []
    for name, role, field in (
        ("trained tokens kept", "rows", "trained"),
        ("rows whole", "rate", "rows"),
    ):
        most = getattr(top, field) if top else 0
        heights = [100 * getattr(it, field) / most if most else 0.0 for it in audit.limits]
        points = list(zip((float(it.tokens) for it in audit.limits), heights, strict=True))
        points[:0] = [(0.0, 0.0)] if top else []
        line = _line(name, role, points)
        line["line"] |= {"dash": "dot"} if field == "rows" else {}
        traces.append(
            {**line, "hovertemplate": f"limit %{{x:,}}: %{{y:.1f}} % {name}<extra></extra>"}
        )
    if top and audit.max_length is not None and audit.max_length <= top.tokens:
        traces.append(_limit(audit.max_length, 100))
    layout = _axes("length limit, tokens", "%", legend=True)
    layout["yaxis"] |= {"range": [0, 103]}
    return _figure(traces, layout)


def _bars(
    name: str, role: str, bars: Sequence[Bar], heights: Sequence[int], hover: str
) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "meta": role,
        "x": [(bar.start + bar.stop) / 2 for bar in bars],
        "y": list(heights),
        "width": [0.92 * (bar.stop - bar.start) for bar in bars],
        "customdata": [_range(bar) for bar in bars],
        "marker": {
            "color": COLOURS[role],
            # Told apart without colour too.
            "pattern": {"shape": "/" if role == "over" else "", "size": 6},
            "line": {"width": 0},
        },
        "hovertemplate": f"{hover}<extra></extra>",
    }


def _range(bar: Bar) -> str:
    """The whole numbers of a bar in words."""
    last = bar.stop - 1
    return f"{bar.start:,.0f} to {last:,.0f}" if last > bar.start else f"{bar.start:,.0f}"


def _limit(tokens: int, height: float) -> dict[str, Any]:
    line = _line(f"limit, {tokens:,}", "limit", [(tokens, 0), (tokens, height)])
    line["line"] |= {"dash": "dash"}
    return {**line, "hovertemplate": f"length limit {tokens:,}<extra></extra>"}


def _axes(x: str, y: str, *, stacked: bool = False, legend: bool = False) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero", **_QUIET},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero", "nticks": 5, "fixedrange": True},
        "barmode": "stack" if stacked else "overlay",
        "legend": {**_LEGEND, "traceorder": "normal"},
        "showlegend": legend,
    }


def _line(
    name: str,
    role: str,
    points: Sequence[tuple[float, float]],
    *,
    opacity: float = 1.0,
    dots: bool = False,
    hover: str = "%{y:.4f}",
) -> dict[str, Any]:
    colour = COLOURS[role]
    # One point makes no line, and a curve should be seen from its first point on.
    mode = "lines+markers" if dots or len(points) < 2 else "lines"
    return {
        "type": "scatter",
        "name": name,
        "meta": role,
        "mode": mode,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "opacity": opacity,
        "line": {"color": colour, "width": 2, "dash": "dot" if role == "eval" else "solid"},
        "marker": {"color": colour, "size": 7, "symbol": "diamond" if dots else "circle"},
        "hovertemplate": f"step %{{x}}: {hover}<extra>{name}</extra>",
    }


def _figure(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    import plotly.graph_objects as go

    common = {
        "template": None,
        "margin": {"l": 56, "r": 12, "t": 30, "b": 42},
        "legend": _LEGEND,
        "uirevision": "kept",
    }
    return go.Figure(data=[*traces], layout={**common, **layout})
