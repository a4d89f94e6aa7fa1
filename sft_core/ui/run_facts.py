"""A run's figures in one line, each with its name and how it was computed. Pure."""

from __future__ import annotations

from typing import Final

from sft_core.events import EvalLogged, RunStarted, StepLogged
from sft_core.record import RunRecord
from sft_core.ui.words import duration, megabytes

Fact = list[str]
"""Name, figure, and how it was computed."""

_NEEDED: Final = (
    "Arithmetic that the steps since the last logged one needed, by the time they took and by "
    "{most}. Needed are the products of linear layers for every token, attention within each "
    "conversation, the vocabulary for trained tokens, and twice that to go back, less what is "
    "frozen; padding and what is computed again count nothing."
)
_CPU: Final = "what this processor did in a large matrix product of this precision"
_GPU: Final = "what the maker of the GPU says it can do in this precision"


def facts(record: RunRecord) -> list[Fact]:
    """What is known so far. Figures that an older log does not hold are left out."""
    step, started = record.last(StepLogged), record.last(RunStarted)
    found: list[Fact] = []
    if step:
        found += [
            ["step", f"{step.step:,} of {record.total_steps:,}", "Optimiser steps"],
            ["epoch", f"{step.epoch:.1f}", "How often each row was seen"],
            ["train loss", f"{step.loss:.3f}", "Nats per trained token of this step"],
        ]
        if step.smoothed_loss is not None:
            how = "Running mean of the steps' losses: each step moves it a fifth of the way"
            found.append(["smoothed", f"{step.smoothed_loss:.3f}", how])
    if last := record.last(EvalLogged):
        how = "Nats per trained token over all evaluation rows"
        found.append(["eval loss", f"{last.loss:.3f}", how])
    if step:
        found += _of_step(step, started)
        if not record.status.over:
            found.append(["left", duration(step.seconds_left), "From the pace of the last steps"])
    return found + (_of_run(started) if started else [])


def _of_step(step: StepLogged, started: RunStarted | None) -> list[Fact]:
    on_cpu = started is None or started.device.startswith("cpu")
    found: list[Fact] = []
    if step.accuracy is not None:
        how = "Trained tokens of this step that the model held for the likeliest before learning"
        found.append(["token accuracy", f"{step.accuracy:.0%}", how])
    how = "Tokens that the model read since the last logged step, padding left out, by the time"
    found.append(["tokens read", f"{step.tokens_per_second:,.0f} tokens/s", f"{how} they took"])
    if step.trained_tokens_per_second:
        how = "Those among them that have a loss, by the same time"
        found.append(["tokens trained", f"{step.trained_tokens_per_second:,.0f} tokens/s", how])
    if step.peak_share is not None:
        how = _NEEDED.format(most=_CPU if on_cpu else _GPU)
        found.append(["of hardware's peak", f"{step.peak_share:.0%}", how])
    how = (
        "Main memory that the training process holds, weights and Python included"
        if on_cpu
        else "The most that the run held on the GPU at any moment"
    )
    found.append(["memory", megabytes(step.memory_mb), how])
    return found


def _of_run(started: RunStarted) -> list[Fact]:
    share = started.trained_tokens / started.tokens if started.tokens else 0
    return [
        ["on", f"{started.device}, {started.precision}", "Where the model computes, and how"],
        ["parameters", f"{started.parameters:,}", "Of the model, added tokens included"],
        *_learning(started),
        [
            "trained tokens",
            f"{started.trained_tokens:,} an epoch ({share:.0%})",
            f"Of {started.tokens:,} tokens in {started.train_rows:,} rows, padding left out",
        ],
    ]


def _learning(started: RunStarted) -> list[Fact]:
    """How many parameters learn, where that is not all of them."""
    if started.trainable == started.parameters:
        return []
    share = started.trainable / started.parameters
    how = "Of the adapters and of added tokens' embeddings; the model's own stay as they are"
    return [["trained parameters", f"{started.trainable:,} ({share:.2%})", how]]
