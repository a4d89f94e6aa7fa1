"""What can be asked of the compute process: train, compare, evaluate, measure.

Each job is a frozen value of plain things. Its ``perform`` imports torch and models where it
runs, never where it is made. The models that were used last stay open on a shelf in that
process, so that a second comparison starts at once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self

from sft_core.catalogue import find
from sft_core.compute import Job
from sft_core.config import GenerateConfig, LabConfig, ModelConfig
from sft_core.encode import encode
from sft_core.events import (
    Event,
    ModelMeasured,
    PhaseEntered,
    RunStarted,
    RunStopped,
    Side,
    TokenLosses,
)
from sft_core.rundir import RunDirectory, execute
from sft_core.sandbox import render
from sft_core.settings import HOST, TABLE, Host
from sft_core.templates import resolve
from sft_core.tokenizer import load_tokenizer
from sft_core.types import Example, LimitError, Message, ModelError, StorageError, Template

if TYPE_CHECKING:
    from sft_core.generate import Voice
    from sft_core.models import Opened

BOTH: Final = (Side.BASE, Side.TUNED)

# Estimates for a GPU that is lent by the second. They are upper ones: what is asked for and not
# used is given back, and a job that outlasts them is killed.
OPENING_SECONDS: Final = 25.0  # starting the process, reading a small model, moving it
SECONDS_A_STEP: Final = 0.06  # a forward pass of some 30 layers, each a few kernel launches
SECONDS_A_MICRO_BATCH: Final = 0.15  # forward, backward and update of a small model
SECONDS_A_LOOK: Final = 5.0  # an evaluation, or the samples
SAFE_SHARE: Final = 0.85
GUESSED_ROWS: Final = 1000
GUESSED_TEST_ROWS: Final = 64
GRADED_AT_ONCE: Final = 32

# -- the jobs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainJob(Job):
    """Train as ``config`` says and keep everything in ``run_dir``, which exists already."""

    run_dir: Path
    config: LabConfig
    lasting: ClassVar[bool] = True

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        _SHELF.clear()  # a model in training wants the memory
        yield from execute(self.config, RunDirectory(self.run_dir), should_stop)

    def uses(self, run_dir: Path) -> bool:
        return run_dir == self.run_dir

    def gpu_seconds(self) -> float:
        train, data = self.config.train, self.config.data
        rows = data.rows or GUESSED_ROWS
        step_rows = train.batch_size * train.accumulation
        steps = train.max_steps or math.ceil(train.epochs * rows / step_rows)
        looks = sum(steps // every for every in (train.eval_every, train.sample_every) if every)
        seconds = steps * train.accumulation * SECONDS_A_MICRO_BATCH + looks * SECONDS_A_LOOK
        longest = min(train.max_minutes or math.inf, HOST.max_minutes) * 60
        return OPENING_SECONDS + min(seconds, longest)

    def within(self, seconds: float) -> Self:
        """The same run, saved and stopped before the GPU is taken away."""
        minutes = min(self.config.train.max_minutes or math.inf, seconds * SAFE_SHARE / 60)
        return replace(
            self, config=self.config.but(train=replace(self.config.train, max_minutes=minutes))
        )

    def nothing_to_lose(self) -> bool:
        return RunDirectory(self.run_dir).read().last(RunStarted) is None

    def stopped_early(self) -> None:
        directory = RunDirectory(self.run_dir)
        if not directory.over():
            reason = "Stopped before the first step, so nothing was learnt."
            with suppress(StorageError):
                directory.append(RunStopped(step=0, reason=reason, run_dir=str(self.run_dir)))
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
    else than what ``generate`` says; without, ``config``'s base model answers alone.
    """

    run_dir: Path | None
    config: LabConfig
    prompts: tuple[tuple[Message, ...], ...]
    generate: GenerateConfig

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.generate import compare

        scene = _Scene.of(self.run_dir, self.config)
        base = yield from scene.voice(Side.BASE)
        tuned = (yield from scene.voice(Side.TUNED)) if self.run_dir else None
        yield from compare(base, tuned, self.prompts, scene.template, self.generate, should_stop)

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
    where ``rows`` is None. Without ``run_dir`` only the base model can be graded."""

    run_dir: Path | None
    config: LabConfig
    rows: tuple[Example, ...] | None = None
    sides: tuple[Side, ...] = BOTH

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        from sft_core.evaluate import grade

        scene = _Scene.of(self.run_dir, self.config)
        rows = self.rows
        if rows is None:
            rows = scene.directory.test_rows() if scene.directory else ()
        seen = scene.directory.facts() if scene.directory else None
        for side in self.sides:
            voice = yield from scene.voice(side)
            yield PhaseEntered(phase=f"Asking the {side} model")
            yield from grade(
                voice, rows, seen or None, scene.template, self.config.generate, should_stop
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
class TokenLossJob(Job):
    """The loss of every token of ``example``, trained or not, under each of ``sides``: what the
    model would have had to learn there, and what it has learnt."""

    run_dir: Path | None
    config: LabConfig
    example: Example
    sides: tuple[Side, ...] = BOTH

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        scene = _Scene.of(self.run_dir, self.config)
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

        found = size(self.model)
        yield ModelMeasured(
            parameters=found.parameters, trainable=found.trainable, source=found.source
        )

    def gpu_seconds(self) -> float:
        return OPENING_SECONDS


def _allow(what: str, count: int, bound: int, key: str) -> None:
    if count > bound:
        raise LimitError(
            f"There are {count:,} {what}, but this host allows {bound:,} at once "
            f"({TABLE[key].variable}). Use fewer, or run the lab on your own machine."
        )


# -- open models ------------------------------------------------------------------------------

_SHELF: Final[OrderedDict[Hashable, Voice]] = OrderedDict()
SHELF_SIZE: Final = 2


def _from_shelf(key: Hashable, open_it: Callable[[], Voice]) -> Voice:
    """The open model of that key; opened now, in the place of the one least recently used, where
    it is not there."""
    if key not in _SHELF:
        while len(_SHELF) >= SHELF_SIZE:
            _SHELF.popitem(last=False)
        _SHELF[key] = open_it()
    _SHELF.move_to_end(key)
    return _SHELF[key]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a job about models needs to know: whose run, which model, which template."""

    directory: RunDirectory | None
    config: LabConfig
    template: Template

    @classmethod
    def of(cls, run_dir: Path | None, config: LabConfig) -> Self:
        directory = RunDirectory.open(run_dir) if run_dir else None
        if directory:
            config = directory.config()
        template = directory.template() if directory else None
        if template is None:
            tokenizer = load_tokenizer(find(config.model.name).tokenizer)
            template = resolve(config.template, tokenizer)
        return cls(directory, config, template)

    def voice(self, side: Side) -> Generator[Event, None, Voice]:
        """Says what it does, and returns the opened model."""
        yield PhaseEntered(phase=f"Opening the {side} model")
        return self._base() if side is Side.BASE else self._tuned()

    def _base(self) -> Voice:
        """The model as it was before the first step, random weights included."""
        from sft_core.models import open_model

        config, seed = self.config.model, self.config.train.seed
        key = (config, self.template, seed)
        return _from_shelf(key, lambda: _voice(Side.BASE, open_model(config, self.template, seed)))

    def _tuned(self) -> Voice:
        from sft_core.models import open_folder

        folder = self.directory.weights() if self.directory else None
        if folder is None:
            raise ModelError(
                "This run has saved no weights: it ended before its first checkpoint. Start it "
                "again, and let it take a few steps more."
            )
        written = max(file.stat().st_mtime_ns for file in folder.glob("*.safetensors"))
        key = (folder, written)
        return _from_shelf(key, lambda: _voice(Side.TUNED, open_folder(folder)))

    def losses(self, voice: Voice, example: Example) -> tuple[float | None, ...]:
        """The loss of each token of ``example``; None for the first."""
        import torch

        from sft_core.loss import per_token_loss
        from sft_core.models import arguments

        tokenizer = voice.tokenizer
        rendered = render(self.template, example, tokenizer.special_tokens)
        encoded = encode(rendered, tokenizer, self.config.policy, self.config.train.max_length)
        ids = torch.tensor([encoded.ids], device=voice.model.device)
        with torch.inference_mode():
            inputs = arguments(voice.model, input_ids=ids, attention_mask=torch.ones_like(ids))
            logits = voice.model.eval()(**inputs).logits
        found = per_token_loss(logits, ids)[0].tolist()
        return (None, *found[1:])


def _voice(side: Side, opened: Opened) -> Voice:
    from sft_core.generate import Voice
    from sft_core.models import device

    voice = Voice.of(side, opened)
    voice.model.to(device())
    return voice
