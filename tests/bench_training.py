"""Training beside peers: speed, memory and losses of the lab, TRL and transformers' Trainer.

    python -m tests.bench --only training [--rows FILE] [--case distilgpt2] [--quick]
    python -m tests.bench --only linear [--rows FILE] [--case bytes-gpt]

Every run is a process of its own, the peers' in an environment of their own (``tests/peers``), and
contenders take turns, so that a drifting machine treats all alike.

**Held equal.** The same weights in float32 from one folder; the same encoded rows in the same
order, as the lab deals them (sequential sampling for the peers); labels on the answers alone; eight
rows to an optimiser step; AdamW with the same rate, betas and epsilon, without decay (the lab and
the Trainer group parameters differently), constant rate without warm-up, clipping at 1; no dropout,
which would make losses random; torch's own number of threads; losses logged at every step. What a
contender was given is counted where it enters the model, and other work is an error, not a row.

**Left at the peer's default.** The transformers Trainer computes in fp32, pads a batch to its
longest row and computes logits everywhere. TRL's SFTTrainer computes under bf16 autocast with
gradient checkpointing, and computes logits on target positions in tiles; ``use_cpu`` must be
given, or TRL refuses its own default on a machine without a GPU. The line "TRL, fp32" is run once
and is there for its losses. Fused AdamW is everybody's default. The lab is at its own defaults.

**Measured.** Time from the end of the first step to the end of the last, so that start-up and
warming up are out. Tokens are those of rows, padding not counted. Memory is the process's largest
resident size from the loaded model on ("MiB") and how far that lies above the loaded model
("+ MiB"); on a GPU it is what torch allocated there. "peak %" is the share of the machine's linear
peak that the useful work makes up (``figures.useful_flops``): the peak is the fastest
``torch.nn.functional.linear`` at the model's own shapes and a step's number of tokens, in the
precision that the contender computes in. "loss %" is the largest difference to transformers'
Trainer with batch 8 at every tenth step. "eval" is the exact token mean on rows kept back, computed
by one function in fp32 on the weights that each contender saved after its first run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM

from sft_core import data
from sft_core.config import DataConfig
from tests.peers.cases import (
    BUILD,
    CASES,
    Bits,
    Case,
    base_config,
    make_case,
    recipe,
    tiled,
    usable,
)
from tests.peers.environment import ROOT, peers_python, ready
from tests.peers.figures import HEAD, Result, line, loss_gap, summary
from tests.peers.meter import token_mean

TRIES: Final = 7
SIZES: Final = (100, 1_000, 10_000)
SIZES_BATCH: Final = 10  # divides all of them, so that no step is smaller
SIZES_STEPS: Final = 31  # 30 timed


@dataclass(frozen=True, slots=True)
class Contender:
    """``precision`` is "default" or "auto" where the contender chooses; ``computes`` is what it
    then computes in. ``once``: run in the first round only."""

    name: str
    trainer: Literal["lab", "trl", "transformers"]
    precision: str
    computes: Bits
    batch: int
    accumulation: int = 1
    once: bool = False


def contenders(batch: int, auto: Bits) -> list[Contender]:
    """TRL's default comes first and the first seed's Trainer third: ratios are to these."""
    return [
        Contender("TRL, its default (bf16)", "trl", "default", "bf16", batch),
        Contender(f"Trainer, batch {batch}", "transformers", "default", "fp32", batch),
        Contender(f"Trainer, batch 1 x {batch}", "transformers", "default", "fp32", 1, batch),
        Contender("TRL, fp32", "trl", "fp32", "fp32", batch, once=True),
        Contender("the lab, fp32", "lab", "fp32", "fp32", batch),
        Contender(f"the lab, precision auto ({auto})", "lab", "auto", auto, batch),
    ]


# -- the machine ------------------------------------------------------------------------------


def linear_rate(shape: tuple[int, int], tokens: int, bits: Bits) -> float:
    """FLOP a second of one product of (tokens, in) and (in, out), the best of several tries."""
    kind = torch.bfloat16 if bits == "bf16" else torch.float32
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    inputs = torch.randn(tokens, shape[0], dtype=kind, device=device)
    weights = torch.randn(shape[1], shape[0], dtype=kind, device=device)
    flops = 2 * tokens * shape[0] * shape[1]
    repeats = max(1, round(2e10 / flops)) if device.type == "cpu" else 50
    rates = []
    with torch.inference_mode():
        for _ in range(TRIES):
            _wait(device)
            started = time.perf_counter()
            for _ in range(repeats):
                F.linear(inputs, weights)
            _wait(device)
            rates.append(flops * repeats / (time.perf_counter() - started))
    return max(rates)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def linear_peaks(case: Case) -> dict[Bits, float]:
    """The fastest linear layer of the model at a step's number of tokens, by precision."""
    tokens = round(sum(case.work.tokens) / len(case.order))
    peaks: dict[Bits, float] = {}
    kinds: tuple[Bits, ...] = ("fp32", "bf16")
    for bits in kinds:
        rates = {shape: linear_rate(shape, tokens, bits) for shape in case.shapes}
        peaks[bits] = max(rates.values())
        each = ", ".join(f"{a}x{b} {rate / 1e9:,.0f}" for (a, b), rate in rates.items())
        print(f"linear, {tokens} tokens, {bits}, GFLOP/s: {each}")
    return peaks


# -- running ----------------------------------------------------------------------------------


def run(python: Path | str, module: str, job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs one contender in a process of its own and reads what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps({**job, "result": str(result)}))
    done = subprocess.run(
        [str(python), "-m", module, str(folder / "job.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def compete(case: Case, one: Contender, saved: Path | None) -> dict[str, Any]:
    """One run of one contender. Raises ValueError where it did other work than it was given."""
    train = asdict(case.train)
    job = {"model": str(case.folder), "rows": case.rows, "save": saved and str(saved)}
    if one.trainer == "lab":
        job |= {"train": train | {"precision": one.precision}}
        found = run(sys.executable, "tests.peers.run_lab", job, BUILD / case.name)
        if found["order"] != case.order:
            raise ValueError("The lab dealt its rows in another order than the peers got them.")
    else:
        job |= {"train": train, "order": case.order, **asdict(one)}
        found = run(peers_python(), "tests.peers.run_peer", job, BUILD / case.name)
    Result.read(found).require(case.work)
    return found


def measured(folder: Path, rows: Sequence[dict[str, list[int]]]) -> float:
    return token_mean(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), rows)


def rounds_of(
    case: Case, field: Sequence[Contender], rounds: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float]]:
    """Lets the contenders take turns; gives what each run wrote, and each one's eval loss."""
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in field}
    losses: dict[str, float] = {}
    for turn in range(rounds):
        for one in field:
            if turn and one.once:
                continue
            saved = None if turn else BUILD / case.name / "saved"
            found[one.name].append(compete(case, one, saved))
            if saved:
                losses[one.name] = measured(saved, case.held_out)
                shutil.rmtree(saved)
    return found, losses


# -- the tables -------------------------------------------------------------------------------


def race(case: Case, rounds: int) -> None:
    """Measures one case and prints its table; what every run wrote stays in build/bench."""
    steps, batch = len(case.order), case.train.batch_size
    print(
        f"\nTraining {case.name}: {steps} steps of {batch} rows, {len(case.rows)} rows, max_length "
        f"{case.train.max_length}, {sum(case.work.tokens):,} tokens, {sum(case.work.trained):,} of "
        f"them trained; {rounds} interleaved runs"
    )
    peaks = linear_peaks(case)
    field = contenders(batch, case.auto)
    found, losses = rounds_of(case, field, rounds)
    runs = {name: [Result.read(it) for it in each] for name, each in found.items()}
    reference = runs[field[1].name][0].losses
    rows = [
        summary(
            one.name,
            runs[one.name],
            case.work,
            weights=case.weights,
            linear_peak=peaks[one.computes],
            reference=reference,
            eval_loss=losses[one.name],
        )
        for one in field
    ]
    first = [case.rows[at] for at in case.order[0]]
    exact, before = measured(case.folder, first), measured(case.folder, case.held_out)
    print(HEAD)
    for row in rows:
        print(line(row, rows[0], rows[2]))
    print(f"loss before training: first step {exact:.4f}, eval {before:.4f}; first step as told:")
    for one in field:
        told = runs[one.name][0].losses[0]
        print(f"  {one.name:32s}{told:.4f}  {found[one.name][0]['settings']}")
    print("loss at every tenth step, the lab in fp32 against each peer in fp32, largest %:")
    lab = runs["the lab, fp32"][0].losses
    for one in field:
        if one.computes == "fp32" and one.trainer != "lab":
            print(f"  {one.name:32s}{100 * loss_gap(lab, runs[one.name][0].losses):.3f}")
    kept = {"rows": [asdict(row) for row in rows], "peaks": peaks, "runs": found}
    (BUILD / f"training-{case.name}.json").write_text(json.dumps(kept, indent=1))


def bench_training(
    source: str | None, steps: int, rounds: int, cases: Sequence[str] = CASES, batch: int = 8
) -> None:
    transformers.utils.logging.disable_progress_bar()
    if not ready():
        print("Setting up the peers' environment: the first time this takes some minutes.")
    peers_python()
    for name in cases:
        race(make_case(name, source, recipe(steps, batch, 256)), rounds)
        shutil.rmtree(BUILD / name)


# -- cost grows linearly ----------------------------------------------------------------------


def bench_linear(source: str | None, rounds: int, name: str = "bytes-gpt") -> None:
    """Tokens a second of the lab on 100, 1,000 and 10,000 rows, read, encoded and trained as a run
    does it: the same steps, timed from the end of the first. Memory: the most until the model is
    loaded, which is where rows are read and encoded; what is held then; the most in training."""
    train = recipe(SIZES_STEPS, SIZES_BATCH, 256)
    case = make_case(name, source, train)
    base = usable(name, source, SIZES[0], train)
    print(
        f"\nThe lab on {name}, {SIZES_STEPS - 1} steps of {SIZES_BATCH} rows (tokens/s, median of "
        f"{rounds} interleaved runs; MiB)\n{'rows':>8s}{'tok/s':>9s}{'least':>9s}{'most':>9s}"
        f"{'ratio':>8s}{'cpu us':>9s}{'start-up':>9s}{'loaded':>9s}{'peak':>9s}{'ratio':>8s}"
    )
    jobs = {}
    for size in SIZES:
        file = BUILD / name / f"rows-{size}.jsonl"
        data.write_jsonl(tiled(size, base, train), file)
        config = base_config(name, None).but(data=DataConfig(str(file), eval_rows=0), train=train)
        jobs[size] = {"model": str(case.folder), "config": config.to_dict(), "save": None}
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            found[size].append(run(sys.executable, "tests.peers.run_lab", jobs[size], BUILD / name))
    shutil.rmtree(BUILD / name)
    first = found[SIZES[0]]
    rate, memory = median(map(speed, first)), median(it["peak_mib"] for it in first)
    for size, runs in found.items():
        if runs[0]["step_tokens"] != first[0]["step_tokens"]:
            raise ValueError(f"The steps on {size:,} rows are other ones than on {SIZES[0]}.")
        rates, most = list(map(speed, runs)), median(it["peak_mib"] for it in runs)
        start, loaded = (median(it[key] or 0 for it in runs) for key in ("start_mib", "loaded_mib"))
        cpu = 1e6 * median(1 / speed(it, "processor") for it in runs)
        middle = median(rates)
        print(
            f"{size:8,d}{middle:9,.0f}{min(rates):9,.0f}{max(rates):9,.0f}{middle / rate:8.3f}"
            f"{cpu:9,.1f}{start:9,.0f}{loaded:9,.0f}{most:9,.0f}{most / memory:8.3f}"
        )


def speed(found: Mapping[str, Any], clock: str = "ticks") -> float:
    """Tokens of a lab's run a second of ``clock``, its first step left out."""
    return float(sum(found["step_tokens"][1:]) / (found[clock][-1] - found[clock][0]))
