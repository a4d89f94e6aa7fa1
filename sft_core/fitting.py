"""Whether a run fits a machine, and the setting that would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sft_core.config import LabConfig
from sft_core.events import MemoryEstimated
from sft_core.machine import Machine, settled
from sft_core.memory import Footprint, Load, Shape, estimate, tokens_within
from sft_core.recipe import TrainConfig

SAFE_SHARE: Final = 0.8
"""A step is cut such that the estimate takes this share of what is there: estimates err, and
other programs grow."""
SHORTEST: Final = 32
"""No length limit below this is proposed."""


@dataclass(frozen=True, slots=True)
class Advice:
    """``settings`` ("batch_size=2", ...) bring a run down to ``total`` bytes; ``sentence`` says so.
    Without settings nothing here would be enough."""

    settings: tuple[str, ...]
    total: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Fit:
    """A run's memory beside the machine's. ``rows`` of up to ``longest`` tokens are computed at
    once; ``advice`` is there where it does not fit."""

    footprint: Footprint
    load: Load
    rows: int
    room: int
    advice: Advice | None

    @property
    def fits(self) -> bool:
        return self.footprint.total <= self.room


def fit(
    shape: Shape, config: LabConfig, machine: Machine, lengths: Sequence[int] | None = None
) -> Fit:
    """What the run that ``config`` describes needs, at the most, against what ``machine`` has.

    ``lengths`` are the training rows' numbers of tokens where they are known; else every row is
    taken to be as long as it may be.
    """
    load, rows = load_of(shape, config, machine, lengths)
    footprint = estimate(shape, load)
    enough = footprint.total <= machine.room
    advice = None if enough else advise(shape, config, machine, lengths)
    return Fit(footprint, load, rows, machine.room, advice)


def load_of(
    shape: Shape, config: LabConfig, machine: Machine, lengths: Sequence[int] | None = None
) -> tuple[Load, int]:
    """The most that is computed at once, and in how many rows (windows, where rows are packed)."""
    train = config.train
    limit = min(train.max_length, shape.context)
    wanted = train.batch_size * (train.accumulation if train.auto_micro_batch else 1)
    known = sorted((min(length, limit) for length in lengths or ()), reverse=True)
    longest = known[0] if known else limit
    if known and not train.packing:
        rows = min(wanted, len(known))
        tokens = sum(known[:rows])
    else:
        window = train.max_length if train.packing else limit
        rows, tokens = wanted, wanted * window
        if known:  # few short rows do not fill their windows
            tokens = min(tokens, sum(known))
    load = Load(
        tokens=tokens,
        longest=longest,
        trained=tokens,
        precision=settled(train.precision, shape.parameters, machine.device, machine.bf16),
        method=train.method,
        checkpointing=train.gradient_checkpointing,
        lora=config.lora,
        device=machine.device,
        parted=train.accumulation > 1 or train.auto_micro_batch,
    )
    if train.auto_micro_batch:
        one = longest
        load = replace(load, tokens=min(tokens, max(one, most_tokens(shape, load, machine.room))))
        rows = max(1, min(rows, load.tokens // one))
    return replace(load, trained=load.tokens), rows


def most_tokens(shape: Shape, load: Load, room: int) -> int:
    """How many tokens may be computed at once where a step is cut as memory asks."""
    return tokens_within(shape, load, int(SAFE_SHARE * room))


# -- advice -----------------------------------------------------------------------------------


def advise(
    shape: Shape, config: LabConfig, machine: Machine, lengths: Sequence[int] | None = None
) -> Advice:
    """The first change that makes the run fit. What leaves the result as it is comes first (a
    step in more parts, activations computed twice), then what changes it: adapters instead of all
    weights, shorter rows. Each is tried alone, and then with those before it."""

    def total(train: TrainConfig) -> int:
        load, _ = load_of(shape, config.but(train=train), machine, lengths)
        return estimate(shape, load).total

    before: list[_Knob] = []
    least = total(config.train)
    for knob in _knobs(shape, config.train, total, machine.room):
        for together in ([knob], [*before, knob]) if before else ([knob],):
            changed = config.train
            for one in together:
                changed = one(changed)
            found = total(changed)
            least = min(least, found)
            if found <= machine.room:
                return _said(config.train, changed, found, machine.room)
        before.append(knob)
    sentence = f"No setting brings it below {size(least)}. Choose a smaller model."
    return Advice((), least, sentence)


_Knob = Callable[[TrainConfig], TrainConfig]


def _knobs(
    shape: Shape, now: TrainConfig, total: Callable[[TrainConfig], int], room: int
) -> Iterator[_Knob]:
    if not now.auto_micro_batch:
        yield lambda train: _smaller_batch(train, total, room)
    if shape.saves:
        yield lambda train: replace(train, gradient_checkpointing=True)
    yield lambda train: replace(train, method="lora")
    yield lambda train: _shorter(train, total, room)


def _smaller_batch(
    train: TrainConfig, total: Callable[[TrainConfig], int], room: int
) -> TrainConfig:
    """The largest batch that fits, else one row, with as many rows a step as before."""
    for rows in range(train.batch_size - 1, 0, -1):
        if train.batch_size % rows == 0:
            more = train.accumulation * (train.batch_size // rows)
            smaller = replace(train, batch_size=rows, accumulation=more)
            if rows == 1 or total(smaller) <= room:
                return smaller
    return train


def _shorter(train: TrainConfig, total: Callable[[TrainConfig], int], room: int) -> TrainConfig:
    while train.max_length // 2 >= SHORTEST and total(train) > room:
        train = replace(train, max_length=train.max_length // 2)
    return train


def _said(before: TrainConfig, after: TrainConfig, total: int, room: int) -> Advice:
    """What to change, in words and as settings."""
    settings: list[str] = []
    words: list[str] = []
    if after.batch_size != before.batch_size:
        settings += [f"batch_size={after.batch_size}", f"accumulation={after.accumulation}"]
        words.append(
            f"lower batch_size to {after.batch_size} and raise accumulation to "
            f"{after.accumulation}, which learns the same"
            " (auto_micro_batch does it by itself)"
        )
    if after.gradient_checkpointing != before.gradient_checkpointing:
        settings.append("gradient_checkpointing=true")
        words.append("turn gradient_checkpointing on")
    if after.method != before.method:
        settings.append('method="lora"')
        words.append("train LoRA adapters (method lora)")
    if after.max_length != before.max_length:
        settings.append(f"max_length={after.max_length}")
        words.append(f"lower max_length to {after.max_length}")
    text = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    sentence = f"{text[0].upper()}{text[1:]}: that takes about {size(total)}."
    return Advice(tuple(settings), total, sentence)


# -- words ------------------------------------------------------------------------------------


def size(count: int) -> str:
    """Bytes in decimal units, to two or three digits.

    >>> size(9_400_000), size(310_000_000), size(2_340_000_000), size(21_000_000_000)
    ('9 MB', '310 MB', '2.3 GB', '21 GB')
    """
    if count >= 999_500_000:
        return f"{count / 1e9:.{0 if count >= 9.95e9 else 1}f} GB"
    return f"{max(1, round(count / 1e6))} MB" if count else "0 MB"


def event(found: Fit) -> MemoryEstimated:
    """The estimate as a run's log keeps it."""
    footprint = found.footprint
    return MemoryEstimated(
        base=footprint.base,
        weights=footprint.weights,
        gradients=footprint.gradients,
        optimizer=footprint.optimizer,
        casts=footprint.casts,
        activations=footprint.activations,
        room=found.room,
        rows=found.rows,
        tokens=found.load.tokens,
        longest=found.load.longest,
        device=found.load.device,
        advice=found.advice.sentence if found.advice else "",
    )


def table(found: Fit) -> str:
    """The estimate as lines of text."""
    footprint, load = found.footprint, found.load
    parts = {
        "process and libraries": footprint.base,
        "weights": footprint.weights,
        "gradients": footprint.gradients,
        "optimiser": footprint.optimizer,
        "bf16 copies": footprint.casts,
        f"activations of {load.tokens:,} tokens": footprint.activations,
        "altogether": footprint.total,
        "there is": found.room,
    }
    lines = [f"{name:<36}{size(count):>10}" for name, count in parts.items()]
    how = f"On {load.device} in {load.precision}, {found.rows} rows of up to {load.longest} tokens."
    return "\n".join([*lines, how, *filter(None, [warning(found)])])


def warning(found: Fit) -> str:
    """One sentence where a run does not fit, and the knob. Empty where it fits."""
    if found.fits or found.advice is None:
        return ""
    need, room = size(found.footprint.total), size(found.room)
    return f"This run needs about {need} of memory, and {room} is there. {found.advice.sentence}"
