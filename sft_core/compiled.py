"""Layers handed to torch.compile, where that pays.

A compiler fuses what lies between the matrix products, and takes its time first: on two cores
SmolLM2 gained 5 % of its speed for 40 seconds of compiling, so on a CPU it is only done on
request. A GPU gains more, and a long run has the time. Layers are compiled one by one: they are
alike, so the work is done once, and attention (``documents``), whose shape is another one in every
batch, stays outside. Only training runs compiled; reading and writing answers does not.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from sft_core import documents
from sft_core.config import TrainConfig

WORTH_STEPS: Final = 200
"""A run of fewer steps is over before compiling has paid."""


def decide(
    config: TrainConfig, device: torch.device, steps: int, *, on_lease: bool
) -> tuple[bool, str]:
    """Whether to compile, and a sentence where it was asked for and cannot be. ``on_lease`` says
    that the GPU is lent by the second (ZeroGPU), where nothing outlasts a call."""
    if config.compile == "off":
        return False, ""
    if config.compile == "auto":
        pays = device.type == "cuda" and steps >= WORTH_STEPS and not on_lease
        return pays and not _hindrance(config, device), ""
    why = _hindrance(config, device)
    if why:
        return False, f"The model is not compiled: {why}. The run goes on without."
    return True, ""


def _hindrance(config: TrainConfig, device: torch.device) -> str:
    """Why this cannot be compiled here, or nothing."""
    if config.gradient_checkpointing:
        return "gradient checkpointing computes layers twice, which a compiler does not follow"
    if device.type == "cuda" and find_spec("triton") is None:
        return "that needs the package triton"
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "that needs a C++ compiler on this machine"
    if device.type not in ("cuda", "cpu"):
        return f"torch does not compile for {device.type}"
    return ""


def compile_layers(model: Any) -> int:
    """Has each layer of a transformers model compiled at its first use inside ``compiling``, and
    gives their number. What the compiler cannot do is computed as before."""
    layers = max(
        (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)),
        key=len,
        default=nn.ModuleList(),
    )
    for layer in layers:
        layer.compile(dynamic=True)
    if len(layers):
        torch._dynamo.config.suppress_errors = True
        documents.stay_uncompiled()
        # Reading and writing answers would have other graphs compiled, for nothing.
        torch.compiler.set_stance("force_eager")
    return len(layers)


def compiling(wanted: bool) -> AbstractContextManager[Any]:
    """Inside, compiled layers run so where that is ``wanted``; elsewhere they do not."""
    # The compiler is imported where it is needed alone: that takes seconds.
    return torch.compiler.set_stance("default") if wanted else nullcontext()
