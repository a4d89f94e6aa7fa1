"""A model's shape, read off the model without its weights, and what this machine has for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from sft_core.config import LabConfig, ModelConfig
from sft_core.fitting import Fit, fit
from sft_core.machine import Machine, room
from sft_core.memory import Linear, Shape
from sft_core.models import configuration, device, has_bf16
from sft_core.weights import context_of, quiet

MLP_KEPT: Final = {"gelu_new": 5, "gelu_fast": 5, "quick_gelu": 3}
"""Tensors of the intermediate size that the backward pass of an MLP without a gate needs, by its
activation: these are written out in Python, and every step of theirs keeps what it read."""
FUSED_KEPT: Final = 2
"""The same where the activation is one kernel: what it read and what it gave."""
GATED_KEPT: Final = 4
"""And with a gate: the gate, what its activation gave, the other factor, the product."""


def shape_of(config: PretrainedConfig) -> Shape:
    """The shape of the model that ``config`` describes, without memory for its weights.

    Raises ValueError, KeyError, TypeError or RuntimeError for one that this transformers cannot
    build. A kind of model that keeps more than a decoder like GPT-2 or Llama does (experts,
    recurrences) is counted as one of those.
    """
    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    text: Any = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    heads = int(text.num_attention_heads)
    head_size = int(getattr(text, "head_dim", None) or hidden // heads)
    intermediate = _intermediate(text, hidden)
    linears = _linears(model)
    queries = heads * head_size
    gates = _a_layer(linears, layers, lambda one: one.outputs in (intermediate, 2 * intermediate))
    gated = gates > 1 or any(one.outputs == 2 * intermediate for one in linears)
    readers = _a_layer(linears, layers, lambda one: one.inputs == hidden)
    rms, norms, head_norms = _norms(model, hidden, head_size, layers)
    head = model.get_output_embeddings()
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_value_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_size=head_size,
        intermediate=intermediate,
        vocabulary=int(text.vocab_size),
        context=context_of(config),
        tied=head is None or head.weight is model.get_input_embeddings().weight,
        linears=linears,
        # What reads the hidden state but is neither the MLP's nor attention's way out.
        attention_inputs=max(1, readers - max(1, gates) - (queries == hidden)),
        mlp_inputs=max(1, gates),
        mlp_kept=GATED_KEPT if gated else MLP_KEPT.get(_activation(text), FUSED_KEPT),
        norms=norms,
        rms=rms,
        head_norms=head_norms,
        dropout=_dropout(text) > 0,
        saves=bool(model.supports_gradient_checkpointing),
    )


def known_shape(config: ModelConfig) -> Shape | None:
    """The shape of a model by its name; None where this transformers cannot build it, or where it
    has no layers, heads or hidden size by these names. Raises ModelError or HubError."""
    return found_shape(configuration(config))


def found_shape(config: PretrainedConfig) -> Shape | None:
    """``shape_of``, or None where it cannot tell."""
    try:
        return shape_of(config)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError):
        return None


def foresee(config: LabConfig, lengths: Sequence[int] | None = None) -> Fit | None:
    """What the run that ``config`` describes needs, against what there is here; None where the
    model cannot be measured. Raises ModelError or HubError where there is no such model."""
    shape = known_shape(config.model)
    return fit(shape, config, machine(), lengths) if shape else None


def _linears(model: nn.Module) -> tuple[Linear, ...]:
    """The projections but the head, by name and size."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    found: Counter[tuple[str, int, int]] = Counter()
    for name, module in model.named_modules():
        if module is head or not isinstance(module, (nn.Linear, Conv1D)):
            continue
        rows, columns = module.weight.shape
        inputs, outputs = (rows, columns) if isinstance(module, Conv1D) else (columns, rows)
        found[name.rpartition(".")[2], int(inputs), int(outputs)] += 1
    return tuple(Linear(*key, count) for key, count in found.items())


def _a_layer(linears: tuple[Linear, ...], layers: int, which: Any) -> int:
    return round(sum(one.count for one in linears if which(one)) / layers)


def _norms(model: nn.Module, hidden: int, head_size: int, layers: int) -> tuple[bool, int, bool]:
    """Whether norms are RMS norms, how many of the hidden state a layer has, and whether heads
    are normed as well."""
    found = [
        (type(module).__name__, weight.numel())
        for module in model.modules()
        if type(module).__name__.endswith("Norm")
        and isinstance(weight := getattr(module, "weight", None), nn.Parameter)
    ]
    count = sum(size == hidden for _, size in found)
    rms = any("RMS" in name for name, _ in found)
    heads = head_size != hidden and any(size == head_size for _, size in found)
    return rms, max(1, count // layers), heads


def _intermediate(text: Any, hidden: int) -> int:
    experts = getattr(text, "num_experts_per_tok", None)
    each = getattr(text, "moe_intermediate_size", None)
    if experts and each:
        return int(experts) * int(each)
    for name in ("intermediate_size", "n_inner", "ffn_dim"):
        value = getattr(text, name, None)
        if isinstance(value, int):
            return value
    return 4 * hidden


def _activation(text: Any) -> str:
    for name in ("activation_function", "hidden_act", "hidden_activation"):
        value = getattr(text, name, None)
        if isinstance(value, str):
            return value
    return ""


def _dropout(text: Any) -> float:
    for name in ("attn_pdrop", "attention_dropout"):
        value = getattr(text, name, None)
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def machine(place: torch.device | None = None) -> Machine:
    """What this process finds on the device that it trains on."""
    place = place or device()
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        held = torch.cuda.memory_reserved(place)
        return Machine("cuda", has_bf16(place), int(free + held))
    return Machine(place.type, has_bf16(place), room())
