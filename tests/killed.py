"""Runs in processes of their own that are killed, or paused, and go on: for the tests of resuming
and for ``bench_resume``.

The processes are forked from a server that has imported torch and done nothing with it, which
makes them cheap and each as fresh as a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from sft_core import checkpoint, keeping
from sft_core.checkpoint import BEST, MODEL, STATE, newest
from sft_core.config import LabConfig
from sft_core.data import write_jsonl
from sft_core.events import EvalLogged, SampleGenerated, ScoreLogged, StepLogged
from sft_core.execution import execute
from sft_core.lessons import FROM_SCRATCH
from sft_core.models import save
from sft_core.record import RunRecord
from sft_core.resume import TENSORS
from sft_core.rundir import RunDirectory
from sft_core.tokenizer import load_tokenizer
from tests.tensors import pair, preset

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
COLOURS = "red green blue amber teal plum rust jade gold grey lime pink mauve coral olive sand"
SAVED_EVERY = 3
"""Steps between two states: a killed process then loses up to two of them."""


@dataclass(frozen=True)
class Fate:
    """What ends a process before its run: it is killed as it has logged so many events, or before
    it moves a file or folder for that many-th time; or it is paused at the ``asked``-th question
    whether to stop after step ``paused_after``."""

    events: int | None = None
    moves: int | None = None
    paused_after: int | None = None
    asked: int = 1


def with_dropout(folder: Path, seed: int = 0) -> Path:
    """A model of a few thousand random weights that draws numbers at every step."""
    tokenizer = load_tokenizer("bytes")
    shape = GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.2,
        embd_pdrop=0.2,
        attn_pdrop=0.2,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    torch.manual_seed(seed)
    save(GPT2LMHeadModel(shape), tokenizer, preset(), folder, (259,))
    return folder


def a_run(folder: Path, *settings: str) -> LabConfig:
    """A run with everything that could go on wrongly: dropout, accumulation, epochs that end
    within the run, an eval loss that falls and rises again, scores and samples in between."""
    rows = folder / "rows.jsonl"
    asked = enumerate(COLOURS.split())
    write_jsonl([pair(f"Colour {at}?", f"{word}.", f"c{at}") for at, word in asked], rows)
    return FROM_SCRATCH.with_settings(
        [
            f"data.source={rows}",
            f"model.name={with_dropout(folder / 'base')}",
            "eval_rows=2",
            "test_rows=2",
            "max_length=64",
            "max_new_tokens=6",
            "batch_size=2",
            "accumulation=2",
            "max_steps=14",
            "warmup_steps=2",
            "learning_rate=0.05",
            "precision=fp32",
            "eval_every=2",
            "sample_every=5",
            "score_every=6",
            *settings,
        ]
    )


def carry_out(path: Path, resume: bool, fate: Fate) -> None:
    """The life of one process."""
    torch.set_num_threads(1)
    saved_every(SAVED_EVERY)
    if fate.moves is not None:
        die_at_a_move(fate.moves)
    directory = RunDirectory.open(path)
    directory.reopen()
    asked, step = 0, 0

    def stop() -> bool:
        nonlocal asked
        if fate.paused_after is None or step < fate.paused_after:
            return False
        asked += 1
        return asked >= fate.asked

    for told, event in enumerate(execute(directory.config(), directory, stop, resume=resume), 1):
        step = event.step if isinstance(event, StepLogged) else step
        if told == fate.events:
            os.kill(os.getpid(), signal.SIGKILL)


def saved_every(steps: int) -> None:
    """Lets this process save last weights and state after every so many steps, whatever the time
    that it takes."""
    asked = 0

    def due(_: object) -> bool:
        nonlocal asked
        asked += 1
        return asked % steps == 0

    checkpoint.Rhythm.due = due  # type: ignore[method-assign, assignment]
    keeping.FIRST_SECONDS = 0.0  # type: ignore[misc]


def die_at_a_move(number: int) -> None:
    """Kills this process before the ``number``-th time that it moves, links or removes."""
    left = number

    def counted(move: Callable[..., Any]) -> Callable[..., Any]:
        def moved(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return move(*arguments, **options)

        return moved

    for home, name in ((Path, "rename"), (Path, "replace"), (os, "link"), (os, "unlink")):
        setattr(home, name, counted(getattr(home, name)))
    shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]


def live(path: Path, *, resume: bool = False, fate: Fate | None = None) -> int:
    """Has a process carry a run out, from its start or from its state; gives its exit code."""
    process = PROCESSES.Process(target=carry_out, args=(path, resume, fate or Fate()))
    process.start()
    process.join()
    directory = RunDirectory.open(path)
    directory.interrupt("The process was killed.")
    assert process.exitcode is not None
    return process.exitcode


def live_to_the_end(path: Path) -> None:
    """Carries a run on that was paused or killed; one that has saved no state begins anew."""
    has_state = newest(path / STATE) is not None
    assert live(path, resume=has_state) == 0


# -- what came of it --------------------------------------------------------------------------


def weights(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What a finished run learnt: its result and its best weights."""
    return {name: load_file(path / name / "model.safetensors") for name in (MODEL, BEST)}


def state(path: Path) -> dict[str, torch.Tensor]:
    """Weights, optimiser and random generators, as they are saved."""
    place = newest(path / STATE)
    assert place is not None
    return load_file(place / TENSORS)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def story(record: RunRecord) -> list[tuple[Any, ...]]:
    """Every figure that a run tells, each once, without its time."""
    told: list[tuple[Any, ...]] = []
    for event in record.events:
        match event:
            case StepLogged():
                told.append((event.step, event.loss, event.learning_rate, event.grad_norm))
            case EvalLogged():
                told.append((event.step, event.loss, event.best))
            case ScoreLogged():
                told.append((event.step, event.score))
            case SampleGenerated():
                told.append((event.step, event.prompt, event.text))
    return sorted(told, key=repr)
