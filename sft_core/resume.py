"""What a run needs to go on as if nothing had happened.

    <run>/checkpoints/state/<n>/state.safetensors   weights in training, the optimiser's moments,
                                                    the states of the random generators
                                /state.json         plain numbers: step, learning rates, the
                                                    lowest eval loss, what the rows were
                                /best/              the best weights so far, as links

All of one moment lies in one folder that is renamed into place, and ``best`` lies in it as well,
so that a process may be killed at any moment and whoever goes on finds things that belong
together. Nothing is pickled.

A state is taken between two steps. The order of rows follows from the seed and the epoch alone,
so a number of steps says which rows come next. On a CPU with the same number of threads and the
same libraries, what follows is the same bit for bit; elsewhere sums are added in another order.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sft_core.checkpoint import (
    BEST,
    NUMBERS,
    STATE,
    clear_leftovers,
    newest,
    saved_numbers,
    share,
    store_next,
)
from sft_core.types import ResumeError

VERSION: Final = 1
TENSORS: Final = "state.safetensors"
BEST_COPY: Final = "best"
FIRST_SECONDS: Final = 20.0
"""A run writes no state earlier, unless it is stopped: beginning anew costs no more."""
WEIGHTS: Final = "weights"
MOMENTS: Final = "optimizer"
RANDOM: Final = "random"


@dataclass(frozen=True, slots=True)
class State:
    """Tensors by name, and plain numbers that JSON can hold."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: State) -> State:
        return State({**self.tensors, **other.tensors}, {**self.numbers, **other.numbers})


# -- weights and optimiser --------------------------------------------------------------------


def learnt(model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> State:
    """The weights in training, and what optimiser and schedule remember. The tensors are those in
    use, not copies. Weights that do not learn are left out: whoever goes on opens them again."""
    names = _names(model)
    tensors = {f"{WEIGHTS}/{names[id(p)]}": p.detach() for p in _trained(model)}
    for parameter, remembered in optimizer.state.items():
        for key, value in remembered.items():
            tensors[f"{MOMENTS}/{key}/{names[id(parameter)]}"] = value
    kept = {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"}
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return State(tensors, {"schedule": kept, "rates": rates})


def put_back(state: State, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
    """Undoes ``learnt`` on a model that was opened in the same way. Raises ResumeError where the
    state is that of another model."""
    names = _names(model)
    wanted = {f"{WEIGHTS}/{names[id(p)]}": p for p in _trained(model)}
    found = {key: value for key, value in state.tensors.items() if key.startswith(f"{WEIGHTS}/")}
    shapes = {key: p.shape for key, p in wanted.items()}
    if {key: value.shape for key, value in found.items()} != shapes:
        raise ResumeError(
            "The saved state belongs to a model of another shape, so this run cannot go on. "
            "Start a new run."
        )
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(found[key])
    packed = optimizer.state_dict()
    order = [p for group in optimizer.param_groups for p in group["params"]]
    moments = _moments(state)
    # What is read from a file lies in its pages; a copy lets go of them.
    packed["state"] = {
        at: {key: value.clone() for key, value in moments[name].items()}
        for at, parameter in enumerate(order)
        if (name := names[id(parameter)]) in moments
    }
    optimizer.load_state_dict(packed)
    schedule.load_state_dict({**schedule.state_dict(), **state.numbers["schedule"]})
    for group, rate in zip(optimizer.param_groups, state.numbers["rates"], strict=True):
        group["lr"] = rate


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def _names(model: nn.Module) -> dict[int, str]:
    """The name of each parameter by its identity; tied ones have one."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _moments(state: State) -> dict[str, dict[str, Tensor]]:
    """What the optimiser remembers, by the name of the parameter."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.tensors.items():
        what, _, rest = name.partition("/")
        if what == MOMENTS:
            key, _, parameter = rest.partition("/")
            found.setdefault(parameter, {})[key] = value
    return found


# -- random generators ------------------------------------------------------------------------


def drawn() -> State:
    """Where the process's random generators stand: torch's, Python's and NumPy's."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        f"{RANDOM}/torch": torch.get_rng_state(),
        f"{RANDOM}/python": torch.from_numpy(np.array(words)),
        f"{RANDOM}/numpy": torch.from_numpy(np.array(keys, np.int64)),
    }
    if torch.cuda.is_available():
        for at, value in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"{RANDOM}/cuda/{at}"] = value
    numpy = [int(place), int(has_gauss), float(cached)]
    return State(tensors, {"random": {"python": gauss, "numpy": numpy}})


def draw_from(state: State) -> None:
    """Lets the random generators go on from ``drawn``'s answer. Those of GPUs that are not here
    any more are passed over."""
    tensors, numbers = state.tensors, state.numbers["random"]
    torch.set_rng_state(tensors[f"{RANDOM}/torch"].clone())
    words = tuple(tensors[f"{RANDOM}/python"].tolist())
    random.setstate((3, words, numbers["python"]))
    keys = tensors[f"{RANDOM}/numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *numbers["numpy"]))
    for at in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (kept := tensors.get(f"{RANDOM}/cuda/{at}")) is not None:
            torch.cuda.set_rng_state(kept.clone(), at)


# -- what the run itself remembers ------------------------------------------------------------


class Standing(Protocol):
    """What a run knows besides its weights: the lowest eval loss, that of the untrained model,
    step and eval loss of the best weights, the last step that was evaluated, the last one after
    which all that was due is done, the seconds of the processes before, and figures of others."""

    lowest: float
    untrained: float
    best: tuple[int, float] | None
    evaluated: int | None
    looked: int | None
    spent: float
    extras: dict[str, float]


def standing(run: Standing, seconds: float, rows: str, here: Mapping[str, Any]) -> State:
    """``rows`` is their digest, ``here`` their surroundings."""
    numbers = {
        "lowest": run.lowest,
        "untrained": run.untrained,
        "best": run.best,
        "evaluated": run.evaluated,
        "looked": run.looked,
        "extras": run.extras,
        "seconds": seconds,
        "rows": rows,
        "surroundings": dict(here),
    }
    return State(numbers=numbers)


def stand(run: Standing, state: State) -> None:
    """Undoes ``standing``."""
    numbers = state.numbers
    run.lowest, run.untrained = numbers["lowest"], numbers["untrained"]
    run.best = (numbers["best"][0], numbers["best"][1]) if numbers["best"] else None
    run.evaluated, run.looked = numbers["evaluated"], numbers["looked"]
    run.spent, run.extras = numbers["seconds"], dict(numbers["extras"])


def progress(state: State) -> tuple[int, float]:
    """The steps that are done, and the seconds that they took."""
    return state.numbers["step"], state.numbers["seconds"]


def require_alone(processes: int) -> None:
    """Raises ResumeError where several processes would share the numbers that one has drawn."""
    if processes > 1:
        raise ResumeError(
            f"A run is resumed by one process, and these are {processes}. Resume it without "
            "accelerate launch."
        )


def require_same_rows(state: State, rows: str) -> None:
    """Raises ResumeError where the state was learnt from rows of another digest."""
    if state.numbers["rows"] != rows:
        raise ResumeError(
            "The rows are not those that this run began with: its data, its tokenizer or its "
            "template has changed since. Put it back as it was, or start a new run."
        )


# -- whether it is the same run ---------------------------------------------------------------


class Encoded(Protocol):
    """What the digest reads of a row."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def labels(self) -> Sequence[int]: ...


def digest(*sets: Iterable[Encoded]) -> str:
    """What rows were trained and evaluated on, ids and labels in their order, in 32 characters."""
    found = hashlib.blake2b(digest_size=16)
    for rows in sets:
        for row in rows:
            for numbers in (row.ids, row.labels):
                packed = np.asarray(numbers, np.int32).tobytes()
                found.update(len(packed).to_bytes(8, "little") + packed)
        found.update(b"end of a set")
    return found.hexdigest()


def surroundings(device: torch.device, precision: str) -> dict[str, Any]:
    """What the last digits of a sum depend on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def moved(state: State, now: Mapping[str, Any]) -> str | None:
    """A sentence where a run goes on in other surroundings than it stopped in."""
    before = state.numbers["surroundings"]
    changed = [key for key, value in now.items() if before.get(key) != value]
    if not changed:
        return None
    told = ", ".join(f"{key} was {before.get(key)} and is {now[key]}" for key in changed)
    return (
        f"This run goes on in other surroundings ({told}). It goes on from the same weights, but "
        "sums are added in another order, so its figures can differ in their last digits."
    )


# -- on disk ----------------------------------------------------------------------------------


def save_state(run_dir: Path, state: State, has_best: bool) -> None:
    """Puts a whole state in the place of the one before. Raises StorageError, and leaves the one
    before, where the disk refuses."""

    def write(folder: Path) -> None:
        tensors = {name: value.cpu().contiguous() for name, value in state.tensors.items()}
        save_file(tensors, folder / TENSORS)
        (folder / NUMBERS).write_text(
            json.dumps({"version": VERSION, **state.numbers}), encoding="utf-8"
        )
        if has_best:
            share(run_dir / BEST, folder / BEST_COPY)

    store_next(run_dir / STATE, write)


def load_state(run_dir: Path) -> State:
    """The newest state of a run, its tensors read as they are needed. Raises ResumeError."""
    place, numbers = newest(run_dir / STATE), saved_numbers(run_dir)
    if place is None or numbers is None:
        raise ResumeError(
            "This run has nothing to resume from: it ended before its state was saved. Start a "
            "new run."
        )
    if numbers.get("version") != VERSION:
        raise ResumeError(
            "The state of this run was saved by another version of the lab, so it cannot go on. "
            "Start a new run."
        )
    try:
        return State(load_file(place / TENSORS), numbers)
    except (OSError, SafetensorError) as error:
        raise ResumeError(
            f"The saved state of this run is damaged ({error}), so it cannot go on. Start a new "
            "run."
        ) from error


def restore_folder(run_dir: Path, has_best: bool) -> None:
    """Puts the best weights of the state where a run keeps them. What a killed process found
    later, or was writing, is dropped: it will come again. Raises StorageError."""
    clear_leftovers(run_dir)
    place = newest(run_dir / STATE)
    shutil.rmtree(run_dir / BEST, ignore_errors=True)
    if place is not None and has_best:
        share(place / BEST_COPY, run_dir / BEST)


def forget_state(run_dir: Path) -> None:
    """Frees the disk of what a run does not need any more."""
    shutil.rmtree(run_dir / STATE, ignore_errors=True)
