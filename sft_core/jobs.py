"""What can be asked of the compute process: train, compare, evaluate, measure.

Each job is a frozen value of plain things. Its ``perform`` imports torch and models where it
runs, never where it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Self

from sft_core.checkpoint import saved_numbers
from sft_core.compute import Job
from sft_core.config import GenerateConfig, LabConfig, ModelConfig, TemplateConfig
from sft_core.dealing import expected_steps
from sft_core.events import (
    ON_REQUEST,
    Event,
    ModelMeasured,
    PhaseEntered,
    RunStopped,
    Side,
    TokenLosses,
)
from sft_core.execution import execute
from sft_core.record import RunStatus
from sft_core.rundir import RunDirectory
from sft_core.scene import Scene, clear_shelf
from sft_core.settings import HOST, TABLE, Host
from sft_core.types import Example, LimitError, Message, StorageError

BOTH: Final = (Side.BASE, Side.TUNED)

# Estimates for a GPU that is lent by the second. They are upper ones: what is asked for and not
# used is given back, and a job that outlasts them is killed.
OPENING_SECONDS: Final = 25.0  # starting the process, reading a small model, moving it
SECONDS_A_STEP: Final = 0.06  # a forward pass of some 30 layers, each a few kernel launches
SECONDS_A_MICRO_BATCH: Final = 0.15  # forward, backward and update of a small model
SECONDS_A_LOOK: Final = 5.0  # an evaluation, or the samples
SAFE_SHARE: Final = 0.85
GUESSED_ROWS: Final = 1000
GUESSED_TEST_ROWS: Final = 256
GRADED_AT_ONCE: Final = 32
READ_AT_ONCE: Final = 8192

# -- the jobs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainJob(Job):
    """Train as ``config`` says and keep everything in ``run_dir``, which exists already; with
    ``resume``, go on from what is kept there. ``minutes`` bound this job, not the run."""

    run_dir: Path
    config: LabConfig
    resume: bool = False
    minutes: float = math.inf
    lasting: ClassVar[bool] = True

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        clear_shelf()  # a model in training wants the memory
        directory = RunDirectory(self.run_dir)
        yield from execute(
            self.config, directory, should_stop, resume=self.resume, minutes=self.minutes
        )

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        train, data = self.config.train, self.config.data
        rows = data.rows or GUESSED_ROWS
        steps = expected_steps(train, rows)
        looks = sum(steps // every for every in (train.eval_every, train.sample_every) if every)
        seconds = steps * train.accumulation * SECONDS_A_MICRO_BATCH + looks * SECONDS_A_LOOK
        longest = min(train.max_minutes or math.inf, HOST.max_minutes) * 60
        return OPENING_SECONDS + min(seconds, longest)

    def within(self, seconds: float) -> Self:
        """The same run, saved and stopped before the GPU is taken away."""
        return replace(self, minutes=min(self.minutes, seconds * SAFE_SHARE / 60))

    def nothing_to_lose(self) -> bool:
        status = RunDirectory(self.run_dir).read().status
        return status in (RunStatus.QUEUED, RunStatus.PREPARING)

    def stopped_early(self) -> None:
        directory = RunDirectory(self.run_dir)
        if not directory.over():
            step = (saved_numbers(self.run_dir) or {}).get("step", 0)
            reason = ON_REQUEST if step else "Stopped before the first step, so nothing was learnt."
            with suppress(StorageError):
                directory.append(RunStopped(step=step, reason=reason, run_dir=str(self.run_dir)))
        directory.release()

    def died(self, message: str) -> None:
        directory = RunDirectory(self.run_dir)
        with suppress(StorageError):
            directory.interrupt(message)
        directory.release()


@dataclass(frozen=True, slots=True)
class CompareJob(Job):
    """Have base and tuned answer ``prompts``, streaming together.

    With ``run_dir``, model and template are those of that run, and ``config`` counts for nothing
    else than what ``generate`` says; without, ``config``'s base model answers alone. ``template``
    is what prompts are written in instead of what training wrote them in.
    """

    run_dir: Path | None
    config: LabConfig
    prompts: tuple[tuple[Message, ...], ...]
    generate: GenerateConfig
    template: TemplateConfig | None = None

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.generate import compare

        scene = Scene.of(self.run_dir, self.config, self.template)
        base = yield from scene.voice(Side.BASE)
        tuned = (yield from scene.voice(Side.TUNED)) if self.run_dir else None
        yield from compare(base, tuned, self.prompts, scene.asked, self.generate, should_stop)

    def check(self, host: Host) -> None:
        _allow("prompts", len(self.prompts), host.max_prompts, "max_prompts")
        host.check(self.config.but(generate=self.generate))

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        tokens = len(self.prompts) * self.generate.max_new_tokens
        return OPENING_SECONDS + tokens * len(BOTH) * SECONDS_A_STEP


@dataclass(frozen=True, slots=True)
class EvaluateJob(Job):
    """Grade the answers of ``sides`` to ``rows``, or to the rows that the run kept for testing
    where ``rows`` is None. Without ``run_dir`` only the base model can be graded. ``template`` is
    what prompts are written in instead of what training wrote them in."""

    run_dir: Path | None
    config: LabConfig
    rows: tuple[Example, ...] | None = None
    sides: tuple[Side, ...] = BOTH
    template: TemplateConfig | None = None

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.evaluate import grade

        scene = Scene.of(self.run_dir, self.config, self.template)
        rows = self.rows
        if rows is None:
            rows = scene.directory.test_rows() if scene.directory else ()
        seen = scene.directory.facts() if scene.directory else None
        for side in self.sides:
            voice = yield from scene.voice(side)
            yield PhaseEntered(phase=f"Asking the {side} model")
            yield from grade(
                voice, rows, seen or None, scene.asked, self.config.generate, should_stop
            )
            if should_stop():
                return

    def check(self, host: Host) -> None:
        host.check(self.config)
        if self.rows is not None:
            _allow("rows", len(self.rows), host.max_rows, "max_rows")

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        rows = GUESSED_TEST_ROWS if self.rows is None else len(self.rows)
        batches = math.ceil(rows / GRADED_AT_ONCE)
        steps = batches * self.config.generate.max_new_tokens * len(self.sides)
        return OPENING_SECONDS + steps * SECONDS_A_STEP


@dataclass(frozen=True, slots=True)
class PerplexityJob(Job):
    """How well ``sides`` predict raw ``texts``, each a document of its own: asked of base and
    tuned, what the run has forgotten. Without ``run_dir`` only the base model can be measured."""

    run_dir: Path | None
    config: LabConfig
    texts: tuple[str, ...]
    sides: tuple[Side, ...] = BOTH

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.perplexity import measure

        scene = Scene.of(self.run_dir, self.config)
        for side in self.sides:
            voice = yield from scene.voice(side)
            yield PhaseEntered(phase=f"Reading texts with the {side} model")
            yield from measure(voice, self.texts, should_stop)
            if should_stop():
                return

    def check(self, host: Host) -> None:
        host.check(self.config)
        _allow("texts", len(self.texts), host.max_rows, "max_rows")
        most = int(host.max_upload_mb * 10**6)
        _allow("bytes of text", self._bytes(), most, "max_upload_mb")

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        # Two bytes a token is few, and at most every token is read twice, in two windows.
        batches = math.ceil(self._bytes() / READ_AT_ONCE)
        return OPENING_SECONDS + batches * len(self.sides) * SECONDS_A_MICRO_BATCH

    def _bytes(self) -> int:
        # A lone half of a character is no UTF-8; measuring says so in a sentence.
        return sum(len(text.encode(errors="replace")) for text in self.texts)


@dataclass(frozen=True, slots=True)
class TokenLossJob(Job):
    """The loss of every token of ``example``, trained or not, under each of ``sides``: what the
    model would have had to learn there, and what it has learnt."""

    run_dir: Path | None
    config: LabConfig
    example: Example
    sides: tuple[Side, ...] = BOTH

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        scene = Scene.of(self.run_dir, self.config)
        for side in self.sides:
            voice = yield from scene.voice(side)
            if should_stop():
                return
            yield TokenLosses(side=side, losses=scene.losses(voice, self.example))

    def check(self, host: Host) -> None:
        host.check(self.config)

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        return OPENING_SECONDS


@dataclass(frozen=True, slots=True)
class SizeJob(Job):
    """How many parameters a model has, before its weights are loaded."""

    model: ModelConfig

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.models import size
        from sft_core.shapes import known_shape, machine

        found = size(self.model)
        yield ModelMeasured(
            parameters=found.parameters,
            trainable=found.trainable,
            source=found.source,
            shape=known_shape(self.model),
            machine=machine(),
        )

    def gpu_seconds(self) -> float:
        return OPENING_SECONDS


def _allow(what: str, count: int, bound: int, key: str) -> None:
    if count > bound:
        raise LimitError(
            f"There are {count:,} {what}, but this host allows {bound:,} at once "
            f"({TABLE[key].variable}). Use fewer, or run the lab on your own machine."
        )
