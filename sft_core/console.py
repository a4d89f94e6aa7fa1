"""What a terminal shows of a run, and the one key that it takes: a progress bar, the loss as a
drawing in text, scores, answers; and Ctrl-C as the Pause button.

Nothing here prints: text is given back, or written to the stream that was given.
"""

from __future__ import annotations

import signal
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TextIO

from tqdm import tqdm

from sft_core.cost import Cost
from sft_core.dealing import Layouts, percent
from sft_core.events import (
    Answered,
    EvalLogged,
    Perplexity,
    PhaseEntered,
    RunEvent,
    RunStarted,
    Score,
    Side,
    StepLogged,
    Tally,
    Warned,
)
from sft_core.record import RunRecord
from sft_core.reports import Diagnosis, perplexity_ratio
from sft_core.rundir import never

Point = tuple[float, float]

WIDTH: Final = 64
HEIGHT: Final = 12
ROWS_SHOWN: Final = 5
_HEADS: Final = {Side.BASE: "before", Side.TUNED: "after"}


class Progress:
    """A bar with rate and time left, fed with a run's events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None

    def show(self, event: RunEvent) -> None:
        match event:
            case PhaseEntered(phase=phase):
                self._say(phase)
            case Warned(message=message):
                self._say(message)
            case RunStarted(total_steps=total, resumed_from=done):
                self._bar = tqdm(
                    total=total, initial=done, unit="step", file=self._stream, dynamic_ncols=True
                )
            case StepLogged() if self._bar is not None:
                self._bar.set_postfix_str(_figures(event), refresh=False)
                self._bar.update(event.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _say(self, text: str) -> None:
        tqdm.write(text, file=self._stream)


def _figures(step: StepLogged) -> str:
    """What fits behind a bar: the running mean of the loss where the log has it."""
    loss = step.loss if step.smoothed_loss is None else step.smoothed_loss
    parts = [f"loss {loss:.3f}"]
    if step.accuracy is not None:
        parts.append(f"{step.accuracy:.0%} right")
    parts.append(f"{step.tokens_per_second:,.0f} tokens/s")
    if step.peak_share is not None:
        parts.append(f"{step.peak_share:.0%} of peak")
    return ", ".join(parts)


@contextmanager
def ctrl_c(stream: TextIO | None) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C (or a polite kill) asks for a stop, the second breaks off. The
    ``stream`` is told so, where there is one."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, handlers[signal.Signals(number)])
        if stream is not None:
            stream.write("\nStopping after this step. Press Ctrl-C again to break off.\n")

    for number in handlers:
        signal.signal(number, ask)
    try:
        yield stop.is_set
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def curve(record: RunRecord, width: int = WIDTH, height: int = HEIGHT) -> str:
    """The loss over the steps: dots for the training loss (the mean of the steps that share a
    column), o for the evaluation loss. Empty where no step was logged."""
    steps: list[Point] = [(event.step, event.loss) for event in record.of(StepLogged)]
    evals: list[Point] = [(event.step, event.loss) for event in record.of(EvalLogged)]
    if not steps:
        return ""
    last = max(step for step, _ in steps + evals)
    dots = _columns(steps, last, width)
    rings = _columns(evals, last, width)
    values = [*dots.values(), *rings.values()]
    low, high = min(values), max(values)

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (height - 1)) if high > low else 0

    grid = [[" "] * width for _ in range(height)]
    for mark, series in ((".", dots), ("o", rings)):
        for column, value in series.items():
            grid[row(value)][column] = mark
    labels = {0: f"{high:.2f}", height - 1: f"{low:.2f}"}
    lines = [f"{labels.get(at, ''):>7} |{''.join(line).rstrip()}" for at, line in enumerate(grid)]
    axis = f"{'':>7} +{'-' * width}"
    legend = f"{'':>9}step 0{f'step {last:.0f}':>{width - 6}}\n{'':>9}. training loss   o eval loss"
    return "\n".join([*lines, axis, legend])


def _columns(points: Sequence[Point], last: float, width: int) -> dict[int, float]:
    """Column -> mean of the values that fall into it."""
    found: dict[int, list[float]] = {}
    for step, value in points:
        found.setdefault(min(width - 1, int(step / max(last, 1) * (width - 1))), []).append(value)
    return {column: sum(values) / len(values) for column, values in found.items()}


def scores(found: Mapping[Side, Score]) -> str:
    """Exact match as a table: before and after, overall, by category, by whether the fact stood
    in training in other words."""
    sides = [side for side in Side if side in found]
    lines = ["".join([f"{'exact match':<24}", *(f"{_HEADS[side]:>16}" for side in sides)])]
    for name in _names(found[sides[0]]):
        cells = (f"{_cell(_tally(found[side], name)):>16}" for side in sides)
        lines.append("".join([f"{name:<24}", *cells]))
    ends = (f"{_stopped(found[side].overall):>16}" for side in sides)
    return "\n".join([*lines, "".join([f"{'stopped by itself':<24}", *ends])])


def _names(score: Score) -> Iterable[str]:
    yield "all rows"
    if score.seen:
        yield "fact seen in training"
    if score.unseen:
        yield "fact not in training"
    yield from (tally.name for tally in score.by_category)


def _tally(score: Score, name: str) -> Tally | None:
    known = {tally.name: tally for tally in score.by_category}
    known |= {"all rows": score.overall}
    for title, tally in (
        ("fact seen in training", score.seen),
        ("fact not in training", score.unseen),
    ):
        if tally:
            known[title] = tally
    return known.get(name)


def _cell(tally: Tally | None) -> str:
    return f"{tally.exact}/{tally.count} = {tally.share:.2f}" if tally and tally.count else "-"


def _stopped(tally: Tally) -> str:
    return f"{tally.stopped}/{tally.count}"


def perplexities(read: Mapping[Side, Perplexity]) -> str:
    """How well raw texts are predicted, as a table: before and after, and what they were."""
    sides = [side for side in Side if side in read]
    lines = ["".join([f"{'raw text':<24}", *(f"{_HEADS[side]:>16}" for side in sides)])]
    rows = {"perplexity": "perplexity", "bits per byte": "bits_per_byte", "nats per token": "loss"}
    for name, figure in rows.items():
        cells = (f"{getattr(read[side], figure):>16.4g}" for side in sides)
        lines.append("".join([f"{name:<24}", *cells]))
    ratio = perplexity_ratio(read)
    if ratio is not None:
        lines.append(f"{'after / before':<24}{'':>16}{ratio:>16.4g}")
    one = read[sides[0]]
    counted = f"{one.documents:,} texts, {one.tokens:,} tokens, {one.bytes:,} bytes predicted"
    return "\n".join([*lines, counted])


def costs(found: Cost) -> str:
    """Hours and price of a longer run, and what they rest on."""
    many = f"{found.gpus} devices" if found.gpus > 1 else "one device"
    beside = found.beside - 1
    return "\n".join(
        [
            f"{found.hours:,.2f} hours, {found.price:,.2f} at {found.price_per_hour:g} an hour",
            "",
            f"{found.tokens:,} tokens: {found.rows:,} rows of {found.tokens_per_row:,.1f} tokens, "
            f"{found.epochs:g} epochs",
            f"measured: {found.rate:,.0f} tokens/s in training, {found.trained_rate:,.0f} of them "
            f"trained; evaluation, samples and saving took {beside:.0%} more time",
            f"assumed: {many}, each {found.speedup:g} times as fast as the measured one and none "
            "waiting for another; rows as long as the measured ones; no time to start, download "
            "or queue",
        ]
    )


def diagnosis(report: Diagnosis, width: int = 88) -> str:
    """Findings, the gravest first, each with its remedy and a few of its rows; then the figures."""
    lines = []
    for finding in report.findings.items:
        lines.append(f"{finding.severity.upper():<8} {finding.code}")
        mended = " A mended template is in the JSON." if finding.fixed_template else ""
        set_to = "".join(f" --set {setting}" for setting in finding.fixed_settings)
        remedy = finding.remedy + mended + (f" In a run:{set_to}" if set_to else "")
        for text, first in ((finding.message, ""), (remedy, "-> ")):
            indent = " " * 9
            wrapped = textwrap.wrap(
                printable(text), width, initial_indent=indent + first, subsequent_indent=indent
            )
            lines += wrapped
        if len(finding.rows) > 1:
            shown = ", ".join(finding.rows[:ROWS_SHOWN])
            more = len(finding.rows) - ROWS_SHOWN
            lines.append(f"{'':9}rows: {shown}" + (f" and {more} more" if more > 0 else ""))
        lines.append("")
    figures = report.audit
    verdict = "No finding." if not lines else ""
    lines += [verdict] if verdict else []
    lines.append(
        f"{figures.rows} rows, {figures.failed} failed; {figures.tokens:,} tokens, "
        f"{figures.trained_share:.1%} of them trained; longest {figures.longest}; "
        f"{figures.truncated_rows} truncated, {figures.untrained_rows} without a trained token."
    )
    if figures.layouts is not None:
        lines += ["", *_layouts(figures.layouts)]
    return "\n".join(lines)


def _layouts(laid: Layouts) -> Iterator[str]:
    """One epoch in each layout, as a table."""
    yield (
        f"{f'one epoch in batches of {laid.batch_size}, {laid.window:,} tokens':<52}"
        f"{'places':>14}{'empty':>14}"
    )
    for name, places, empty in laid.table():
        yield f"{name:<52}{places:>14,}{percent(empty):>14}"


def beside(prompt: str, answers: Mapping[Side, Answered], width: int = 38) -> str:
    """A prompt and under it both answers, base on the left and tuned on the right."""
    columns = []
    for side in (side for side in Side if side in answers):
        answer = answers[side]
        text = [
            line
            for part in _visible(answer.text).splitlines()
            for line in textwrap.wrap(part, width) or [""]
        ]
        reason = textwrap.wrap(f"[{answer.reason}]", width)
        columns.append([side.value, "-" * width, *text, *reason])
    depth = max(map(len, columns), default=0)
    padded = [column + [""] * (depth - len(column)) for column in columns]
    rows = (
        "  ".join(f"{cell:<{width}}" for cell in row).rstrip() for row in zip(*padded, strict=True)
    )
    return "\n".join([f"> {prompt}", *rows])


def _visible(text: str) -> str:
    if not text:
        return "(nothing)"
    return printable(text) if text.strip() else f"({len(text)} characters of white space)"


def printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor or change its colours."""
    return "".join(
        mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for mark in text
    )
