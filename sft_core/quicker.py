"""Parts of a model replaced by others that compute the same in fewer passes over memory."""

from __future__ import annotations

from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

_TANH_GELUS = (NewGELUActivation, FastGELUActivation)


def quicken(model: nn.Module) -> int:
    """Replaces activations that transformers writes out term by term, keeping a copy of each for
    the way back, by torch's single kernel for the same formula (Hendrycks & Gimpel 2016, with
    tanh). Weights and configuration stay as they are. Gives the number of replacements."""
    found = [
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) in _TANH_GELUS
    ]
    for module, name in found:
        setattr(module, name, nn.GELU(approximate="tanh"))
    return len(found)
