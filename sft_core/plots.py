"""Values -> plotly figures. Figures carry roles (``meta``: "train", "eval", ...), and whoever shows
one gives each role its colour; on their own they use the colours below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sft_core.audit import Audit, Bar
from sft_core.events import ScoreLogged
from sft_core.record import RunRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS: Final = 1000
"""A curve never has more points; beyond that, each stands for the mean of several steps."""
COLOURS: Final[Mapping[str, str]] = {
    "train": "#0f766e",
    "eval": "#b26b00",
    "answer": "#0f766e",
    "template": "#b26b00",
    "prompt": "#6a7580",
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
            traces.append(line(name, role, points, dots=True, hover="%{y:.0f} %"))
    layout = by_step(record, "exact match, %")
    layout["yaxis"] |= {"range": [-3, 103]}
    return figure(traces, layout)


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
    return figure(traces, _axes("tokens per row", "rows", stacked=True, legend=len(traces) > 1))


def shares(audit: Audit) -> go.Figure:
    """Rows by the share of their kept tokens that is trained, in percent."""
    bars = [Bar(100 * bar.start, 100 * bar.stop, bar.rows) for bar in audit.shares]
    heights = [bar.rows for bar in bars]
    traces = [_bars("rows", "rows", bars, heights, "%{customdata} % trained: %{y:,} rows")]
    layout = _axes("trained share of a row, %", "rows")
    layout["xaxis"] |= {"range": [0, 100], "dtick": 20}
    return figure(traces, layout)


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
        drawn = line(name, role, points)
        drawn["line"] |= {"dash": "dot"} if field == "rows" else {}
        traces.append(
            {**drawn, "hovertemplate": f"limit %{{x:,}}: %{{y:.1f}} % {name}<extra></extra>"}
        )
    if top and audit.max_length is not None and audit.max_length <= top.tokens:
        traces.append(_limit(audit.max_length, 100))
    layout = _axes("length limit, tokens", "%", legend=True)
    layout["yaxis"] |= {"range": [0, 103]}
    return figure(traces, layout)


def by_step(record: RunRecord, what: str) -> dict[str, dict[str, Any]]:
    """Axes of a curve over a run's steps, as wide as the run will be."""
    layout: dict[str, dict[str, Any]] = {
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": what}, "rangemode": "tozero", "nticks": 6},
    }
    if record.total_steps:
        layout["xaxis"]["range"] = [0, record.total_steps * 1.02]
    return layout


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
    drawn = line(f"limit, {tokens:,}", "limit", [(tokens, 0), (tokens, height)])
    drawn["line"] |= {"dash": "dash"}
    return {**drawn, "hovertemplate": f"length limit {tokens:,}<extra></extra>"}


def _axes(x: str, y: str, *, stacked: bool = False, legend: bool = False) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero", **_QUIET},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero", "nticks": 5, "fixedrange": True},
        "barmode": "stack" if stacked else "overlay",
        "legend": {**_LEGEND, "traceorder": "normal"},
        "showlegend": legend,
    }


def line(
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


def figure(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    import plotly.graph_objects as go

    common = {
        "template": None,
        "margin": {"l": 56, "r": 12, "t": 30, "b": 42},
        "legend": _LEGEND,
        "uirevision": "kept",
    }
    return go.Figure(data=[*traces], layout={**common, **layout})
