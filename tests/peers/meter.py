"""What every contender is measured with, in the lab's environment and in the peers' alike: a clock,
the process's memory, and the exact loss. Nothing of the lab is imported here."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

MIB = 2**20
IGNORE = -100
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int | None:
    """Bytes of this process that lie in memory now; None where the system does not tell."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes of this process that ever lay in memory, or since ``forget_peak``.

    Not ``ru_maxrss`` where it can be avoided: on Linux a process inherits that from the one that
    started it.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def forget_peak() -> None:
    """Lets the peak start again from what is in memory now, where the system can do that."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(it.split()[1]) * 1024 for it in lines if it.startswith(f"{name}:")), None)


class Meter:
    """Times the ends of optimiser steps, and memory from the loaded model on.

    Make it when the model is loaded; ``tick`` after each step; ``result`` after the last one,
    before anything is saved.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.cuda = torch.cuda.is_available()
        for weights in model.parameters():
            weights.sum()  # a weight may lie in a file until it is read first
        self.start = peak()
        self.loaded = resident()
        self.ticks: list[float] = []
        self.processor: list[float] = []
        forget_peak()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def tick(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())
        self.processor.append(time.process_time())

    def result(self) -> dict[str, Any]:
        """Seconds since any moment at each step's end, and memory in MiB: the most until the model
        was loaded, what was held then, and the most from there on."""
        return {
            "ticks": self.ticks,
            "processor": self.processor,
            "loaded_mib": None if self.loaded is None else self.loaded / MIB,
            "start_mib": self.start / MIB,
            "peak_mib": peak() / MIB,
            "device_mib": torch.cuda.max_memory_allocated() / MIB if self.cuda else None,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def token_mean(model: Any, rows: Sequence[dict[str, list[int]]]) -> float:
    """The mean loss in nats over all labelled tokens of ``rows`` (``input_ids`` and ``labels``,
    each label at the index of its own token), in the model's own precision: one row at a time
    without padding, so that nothing of a trainer is in it."""
    device = next(model.parameters()).device
    total, count = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=device)
            following = torch.tensor(row["labels"][1:], device=device)
            logits = model(input_ids=ids).logits[0, :-1].float()
            total += float(F.cross_entropy(logits, following, ignore_index=IGNORE, reduction="sum"))
            count += int((following != IGNORE).sum())
    return total / count
