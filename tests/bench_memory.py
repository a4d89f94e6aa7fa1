"""What runs really need of memory, beside the estimate: each case in a process of its own.

    python -m tests.bench_memory                 all cases
    python -m tests.bench_memory --only parrot   those with this in their name

A case opens a model, takes a few real optimiser steps of ``Learner`` on rows that are all of one
length, and reads the highest resident memory that the process ever had. What the process had after
steps of a very small model, when every library had been loaded, is taken off: that is the base.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sft_core.catalogue import BYTES_GPT, PARROT, SMOLLM2
from sft_core.config import LabConfig, ModelConfig, TrainConfig
from sft_core.types import IGNORE_INDEX

ROOT: Final = Path(__file__).resolve().parents[1]
MEGABYTE: Final = 1e6
STEPS: Final = 3
DISTILGPT2: Final = "distilgpt2-shape"
WARM: Final = ModelConfig(BYTES_GPT, width=16, depth=1, heads=2, context=64)


@dataclass(frozen=True)
class Case:
    """One run: ``rows`` rows of ``length`` tokens at once, of which ``trained`` have a loss."""

    name: str
    model: str
    rows: int
    length: int
    precision: str = "fp32"
    trained: int = 32
    checkpointing: bool = False
    method: str = "full"
    accumulation: int = 1
    shape: dict[str, Any] = field(default_factory=dict)


def _gpt(width: int, depth: int, rows: int, length: int, **more: Any) -> Case:
    name = f"bytes-gpt {width}x{depth}"
    shape = {"width": width, "depth": depth, "heads": max(2, width // 64), "context": length}
    return Case(name, BYTES_GPT, rows, length, shape=shape, **more)


CASES: Final = (
    _gpt(128, 2, 16, 256),
    _gpt(128, 2, 64, 256),
    _gpt(256, 4, 16, 256),
    _gpt(256, 4, 16, 256, precision="bf16"),
    _gpt(256, 4, 16, 256, checkpointing=True),
    _gpt(512, 6, 8, 256),
    _gpt(512, 6, 8, 256, precision="bf16"),
    _gpt(512, 6, 8, 256, checkpointing=True),
    _gpt(512, 6, 8, 256, precision="bf16", checkpointing=True),
    _gpt(512, 12, 2, 128),
    _gpt(512, 12, 2, 128, accumulation=4),
    Case("parrot", PARROT, 8, 128),
    Case("parrot", PARROT, 32, 256),
    Case("parrot", PARROT, 32, 256, checkpointing=True),
    Case("distilgpt2", DISTILGPT2, 4, 256),
    Case("distilgpt2", DISTILGPT2, 4, 256, precision="bf16"),
    Case("distilgpt2", DISTILGPT2, 4, 256, checkpointing=True),
    Case("distilgpt2", DISTILGPT2, 4, 256, precision="bf16", trained=200),
    Case("smollm2", SMOLLM2, 2, 256),
    Case("smollm2", SMOLLM2, 2, 256, precision="bf16"),
    Case("smollm2", SMOLLM2, 2, 256, precision="bf16", checkpointing=True),
)


@dataclass(frozen=True)
class Row:
    ids: tuple[int, ...]
    labels: tuple[int, ...]


# -- one case, in its own process ---------------------------------------------------------------


def _opened(case: Case) -> Any:
    from sft_core.models import Opened, _from_random, open_model
    from sft_core.tokenizer import load_tokenizer

    if case.model != DISTILGPT2:
        return open_model(ModelConfig(case.model, **case.shape), None, seed=0)
    model = _from_random(_configuration(case), seed=0)
    count = sum(part.numel() for part in model.parameters())
    return Opened(model, load_tokenizer("words"), (), count, count, 1024)


def _configuration(case: Case) -> Any:
    from transformers import GPT2Config

    from sft_core.models import configuration

    if case.model == DISTILGPT2:
        return GPT2Config(n_layer=6)
    return configuration(ModelConfig(case.model, **case.shape))


def _train(case: Case) -> TrainConfig:
    return TrainConfig(
        max_steps=STEPS,
        batch_size=case.rows,
        accumulation=case.accumulation,
        max_length=case.length,
        precision=case.precision,  # type: ignore[arg-type]
        gradient_checkpointing=case.checkpointing,
        method=case.method,  # type: ignore[arg-type]
        warmup_steps=0,
        learning_rate=1e-5,
    )


def _steps(opened: Any, case: Case) -> None:
    from sft_core.learner import Learner

    vocabulary = opened.model.config.vocab_size
    ids = tuple(number % (vocabulary - 1) for number in range(case.length))
    labels = (IGNORE_INDEX,) * (case.length - case.trained) + ids[case.length - case.trained :]
    rows = [Row(ids, labels)] * (case.rows * case.accumulation)
    learner = Learner(opened, _train(case), rows)
    for micro_batches in learner.steps():
        learner.optimise(micro_batches)


def measure(case: Case) -> dict[str, float]:
    """Bytes: the base, the estimate without it, and what was measured beyond it."""
    from sft_core.fitting import load_of
    from sft_core.machine import Machine, held
    from sft_core.memory import estimate
    from sft_core.models import open_model
    from sft_core.shapes import shape_of

    warm = replace(case, rows=2, length=48, trained=8)
    _steps(open_model(WARM, None, seed=0), warm)
    gc.collect()
    base = held()
    shape = shape_of(_configuration(case))
    _steps(_opened(case), case)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    machine = Machine("cpu", bf16=True, room=2**60)
    load, _ = load_of(shape, LabConfig(train=_train(case)), machine, [case.length] * case.rows)
    found = estimate(shape, replace(load, trained=case.trained * case.rows))
    return {
        "base": base,
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "casts": found.casts,
        "activations": found.activations,
        "estimate": found.total - found.base,
        "measured": peak - base,
    }


# -- all of them --------------------------------------------------------------------------------


def table(cases: Sequence[tuple[int, Case]]) -> None:
    columns = ("base", "weights", "gradients", "optimizer", "casts", "activations")
    heads = "".join(f"{name:>12}" for name in (*columns, "estimate", "measured"))
    print(f"{'megabytes':<58}{heads}   ratio")
    for number, case in cases:
        command = [sys.executable, "-m", "tests.bench_memory", "--case", str(number)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case.name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        found = json.loads(done.stdout)
        marks = [case.precision, "checkpointing" * case.checkpointing, f"{case.rows}x{case.length}"]
        marks += [f"{case.accumulation} micro-batches"] if case.accumulation > 1 else []
        name = ", ".join([case.name, *filter(None, marks)])
        shown = (*columns, "estimate", "measured")
        cells = "".join(f"{found[column] / MEGABYTE:>12,.1f}" for column in shown)
        print(f"{name:<58}{cells}{found['estimate'] / found['measured']:>8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(CASES[arguments.case])))
    else:
        table([(at, case) for at, case in enumerate(CASES) if arguments.only in case.name])


if __name__ == "__main__":
    main()
