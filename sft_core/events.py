"""What happens in a job, one frozen value an event.

Training yields ``RunEvent``; comparing and evaluating yield ``AnswerEvent``. A run's log on disk
is one JSON object a line (``to_json``/``from_json``); ``record`` replays it. ``time`` is
seconds since the epoch, everywhere; losses are nats per trained token; rates are per second.
"""

from __future__ import annotations

import json
import time as clock
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from sft_core.machine import Machine
from sft_core.memory import Shape
from sft_core.scores import Perplexity as Perplexity
from sft_core.scores import Score as Score
from sft_core.scores import Tally as Tally
from sft_core.types import DataError

# What measuring finds stands in a room of its own, and is imported from here by all others.

ON_REQUEST: Final = "Stopped on request."
"""The reason of a stop that a person asked for."""


# -- a run ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued:
    """Waiting for the compute process; ``position`` jobs stand before this one."""

    run: str
    position: int
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEntered:
    """What the job does now, in words: "Reading rows", "Loading the model", ..."""

    phase: str
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Everything is ready and the first step follows."""

    run: str
    model: str
    device: str
    precision: str
    parameters: int
    trainable: int
    train_rows: int
    eval_rows: int
    test_rows: int
    bad_rows: int
    truncated_rows: int
    tokens: int  # in one epoch, padding not counted
    trained_tokens: int  # in one epoch
    total_steps: int
    added_tokens: tuple[str, ...] = ()
    resumed_from: int = 0  # the step that this process began after
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimated:
    """What the run is thought to need of memory, in bytes, before its weights are loaded: ``room``
    is what was there, ``rows`` with ``tokens`` together are computed at once, ``longest`` is the
    longest row's length, and ``advice`` names the setting that would make it fit."""

    base: int  # the process and its libraries
    weights: int
    gradients: int
    optimizer: int
    casts: int  # bf16 copies of weights
    activations: int
    room: int
    rows: int
    tokens: int
    longest: int
    device: str
    advice: str = ""
    time: float = field(default_factory=clock.time)

    @property
    def total(self) -> int:
        parts = (self.base, self.weights, self.gradients, self.optimizer, self.casts)
        return sum(parts) + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class KindLoss:
    """The mean loss of a step's trained tokens of one ``kind``: "answer", "template", or "prompt"
    where the policy trains everything."""

    kind: str
    loss: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLogged:
    """One optimiser step. ``loss`` is the mean over the step's trained tokens, ``smoothed_loss``
    its running mean, ``accuracy`` the share of trained tokens that the model held for the
    likeliest. ``peak_share`` is the arithmetic done a second by what this machine can do at most,
    None where that is not known. Fields with a default are missing in logs of older versions."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    trained_tokens: int
    tokens_per_second: float
    seconds_left: float
    memory_mb: float
    smoothed_loss: float | None = None
    accuracy: float | None = None
    kinds: tuple[KindLoss, ...] = ()
    trained_tokens_per_second: float = 0.0
    peak_share: float | None = None
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalLogged:
    """Loss on the evaluation rows after ``step`` steps; ``best`` where it is the lowest yet."""

    step: int
    loss: float
    trained_tokens: int
    best: bool
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLogged:
    """Exact match on the test rows after ``step`` steps."""

    step: int
    score: Score
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGenerated:
    """What the model answers to a fixed prompt after ``step`` steps."""

    step: int
    prompt: str
    text: str
    stopped: bool
    tokens: int
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """Weights of ``step`` are on disk, in ``path`` below the run directory."""

    step: int
    path: str
    eval_loss: float | None
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that a person should know and that stops nothing."""

    code: str
    message: str
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped:
    """Stopped on request or by a bound; what was learnt until ``step`` is saved."""

    step: int
    reason: str
    run_dir: str
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Done. ``restored_step`` is the step whose weights were kept (the best by eval loss)."""

    step: int
    restored_step: int
    seconds: float
    run_dir: str
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """Ended by an error; ``message`` is its sentence, ``kind`` the error's class."""

    kind: str
    message: str
    run_dir: str
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInterrupted:
    """The process that trained is gone; written by whoever noticed."""

    message: str
    run_dir: str
    time: float = field(default_factory=clock.time)


RunEvent = (
    RunQueued
    | PhaseEntered
    | MemoryEstimated
    | RunStarted
    | StepLogged
    | EvalLogged
    | ScoreLogged
    | SampleGenerated
    | CheckpointSaved
    | Warned
    | RunStopped
    | RunFinished
    | RunFailed
    | RunInterrupted
)


# -- answers ----------------------------------------------------------------------------------


class Side(StrEnum):
    """Whose answer it is."""

    BASE = "base"
    TUNED = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGenerated:
    """``text`` is everything that ``side`` has answered to prompt number ``prompt`` so far."""

    side: Side
    prompt: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A finished answer. ``stopped`` is True where the model printed its trained end of turn,
    False where the length limit cut it off; ``reason`` says so in words. ``prompt_ids`` are
    exactly what was sent."""

    side: Side
    prompt: int
    text: str
    stopped: bool
    reason: str
    ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One row of an evaluation: what was asked, expected and answered. ``seen`` says whether
    the row's fact stood in training in other words; None where the data does not say."""

    side: Side
    row: str
    category: str | None
    seen: bool | None
    prompt: str
    expected: str
    answer: str
    exact: bool
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An evaluation's result for one side."""

    side: Side
    score: Score


AnswerEvent = TextGenerated | Answered | Graded | Scored


# -- measurements -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMeasured:
    """How large a model is. ``source`` says what it was counted from: its configuration, the
    headers of its weight files, or the weights. ``machine`` is what the compute process found."""

    parameters: int
    trainable: int
    source: str
    shape: Shape | None = None  # None where this transformers cannot build the model
    machine: Machine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLosses:
    """What ``side`` thinks of an encoded example: ``losses[i]`` is the cross-entropy of token i
    given all before it, trained or not; None for the first token, which nothing predicts."""

    side: Side
    losses: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityMeasured:
    """How well ``side`` predicts raw texts, all of them together."""

    side: Side
    perplexity: Perplexity


Event = RunEvent | AnswerEvent | ModelMeasured | TokenLosses | PerplexityMeasured

_CLASSES: Final[dict[str, type[Any]]] = {cls.__name__: cls for cls in Event.__args__}
E = TypeVar("E")
_ENDS: Final = (RunStopped, RunFinished, RunFailed, RunInterrupted)


def is_end(event: Event) -> bool:
    """Whether nothing follows this event in a run's log."""
    return isinstance(event, _ENDS)


def to_json(event: Event) -> str:
    """One line of a log, without the line break."""
    return json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False)


def from_json(line: str) -> Event:
    """Raises DataError where the line is no event of this version."""
    try:
        values = json.loads(line)
        cls = _CLASSES[values.pop("event")]
        event: Event = _adapter(cls).validate_python(values)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError):
        raise DataError(f"This line is not an event of a run: {line[:80]!r}") from None
    return event


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Built at the first use of a class: that takes a while, and most starts need few."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]
