"""From what the contenders' processes wrote to the figures of a table. Plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

EVERY = 10
"""Losses are compared after every so many steps."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run is given to do: tokens (padding not counted) and target positions of each
    optimiser step. Contenders that did other work cannot be compared."""

    tokens: tuple[int, ...]
    trained: tuple[int, ...]

    @property
    def steady(self) -> tuple[int, int]:
        """Tokens and target positions without the first step, which warms up."""
        return sum(self.tokens[1:]), sum(self.trained[1:])


def work(rows: Sequence[Mapping[str, Sequence[int]]], order: Sequence[Sequence[int]]) -> Work:
    """Counts the rows (``input_ids`` and ``labels``) that each step of ``order`` deals out."""
    lengths = [len(row["input_ids"]) for row in rows]
    targets = [sum(label >= 0 for label in row["labels"][1:]) for row in rows]
    return Work(
        tuple(sum(lengths[at] for at in step) for step in order),
        tuple(sum(targets[at] for at in step) for step in order),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contender: the loss of each step, and what it cost from the end of the first
    step to the end of the last. Memory in MiB; ``grown`` is the peak above the loaded model."""

    losses: tuple[float, ...]
    tokens: int
    trained: int
    seconds: float
    processor: float
    peak: float
    grown: float
    threads: int

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Result:
        """From a result file. Raises ValueError where a step is missing."""
        ticks, losses = found["ticks"], found["losses"]
        if len(ticks) != len(losses) or len(ticks) < 2:
            raise ValueError(f"{len(losses)} losses of {len(ticks)} steps: cannot be compared.")
        on_device = found["device_mib"] is not None
        peak = found["device_mib"] if on_device else found["peak_mib"]
        loaded = 0.0 if on_device else found["loaded_mib"] or 0.0
        return cls(
            tuple(losses),
            found["tokens"],
            found["trained"],
            ticks[-1] - ticks[0],
            found["processor"][-1] - found["processor"][0],
            peak,
            peak - loaded,
            found["threads"],
        )

    def require(self, given: Work) -> None:
        """Raises ValueError where the run did other work than it was given."""
        did = (len(self.losses), self.tokens, self.trained)
        asked = (len(given.tokens), sum(given.tokens), sum(given.trained))
        if did != asked:
            raise ValueError(f"Steps, tokens and trained tokens were {did} instead of {asked}.")


def useful_flops(body: int, head: int, tokens: int, trained: int) -> int:
    """Floating-point operations that training cannot do without: 2 forward and 4 backward for each
    weight of a matrix product and each position that needs it. ``body`` are the weights of all
    linear layers but the head, which every token passes; ``head`` are hidden size x vocabulary,
    which only target positions pass. Attention scores, norms and the optimiser are left out, and
    so is whatever a contender computes beyond that: padding, recomputation, unused logits.
    """
    return 6 * (body * tokens + head * trained)


def loss_gap(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest relative difference at every tenth step, or at the last one of a shorter run."""
    steps = range(EVERY - 1, min(len(losses), len(reference)), EVERY) or [len(losses) - 1]
    return max(abs(losses[at] - reference[at]) / abs(reference[at]) for at in steps)


@dataclass(frozen=True, slots=True)
class Row:
    """A contender's line: medians over its runs, rates with their least and most."""

    name: str
    rate: float
    least: float
    most: float
    trained: float  # target positions a second
    processor: float  # microseconds of processor time a token
    peak: float
    grown: float
    share: float  # of the linear peak in the precision used
    gap: float
    eval_loss: float


def summary(
    name: str,
    runs: Sequence[Result],
    given: Work,
    *,
    weights: tuple[int, int],
    linear_peak: float,
    reference: Sequence[float],
    eval_loss: float,
) -> Row:
    """``weights`` are those of body and head; ``linear_peak`` is in FLOP a second; ``reference``
    are the losses that the first run's are compared with."""
    tokens, trained = given.steady
    rates = [tokens / run.seconds for run in runs]
    flops = useful_flops(*weights, tokens, trained)
    return Row(
        name,
        median(rates),
        min(rates),
        max(rates),
        median(trained / run.seconds for run in runs),
        median(run.processor / tokens * 1e6 for run in runs),
        median(run.peak for run in runs),
        median(run.grown for run in runs),
        median(flops / run.seconds for run in runs) / linear_peak,
        loss_gap(runs[0].losses, reference),
        eval_loss,
    )


HEAD = (
    f"{'':34s}{'tok/s':>8s}{'least':>8s}{'most':>8s}{'x TRL':>7s}{'x 1x8':>7s}{'trained':>9s}"
    f"{'cpu us':>9s}{'MiB':>8s}{'/ TRL':>7s}{'+ MiB':>8s}{'/ TRL':>7s}{'peak %':>8s}"
    f"{'loss %':>8s}{'eval':>8s}"
)


def line(row: Row, trl: Row, seed: Row) -> str:
    """``row`` beside TRL's default and the first seed's Trainer."""
    rates = f"{row.rate:8,.0f}{row.least:8,.0f}{row.most:8,.0f}"
    ratios = f"{row.rate / trl.rate:7.2f}{row.rate / seed.rate:7.2f}"
    memory = (
        f"{row.peak:8,.0f}{row.peak / trl.peak:7.2f}{row.grown:8,.0f}{row.grown / trl.grown:7.2f}"
    )
    quality = f"{100 * row.share:8.1f}{100 * row.gap:8.2f}{row.eval_loss:8.4f}"
    return f"{row.name:34s}{rates}{ratios}{row.trained:9,.0f}{row.processor:9,.0f}{memory}{quality}"
