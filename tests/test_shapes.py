"""A shape counts what autograd really keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from sft_core.catalogue import BYTES_GPT
from sft_core.config import ModelConfig
from sft_core.memory import Load, adapter_parameters, layer_bytes
from sft_core.models import configuration, size
from sft_core.recipe import LoraConfig
from sft_core.shapes import machine, shape_of
from sft_core.ui.memory_line import builtin_shape

TOKENS, HIDDEN, RANK = 48, 64, 4
Make = Callable[[int], PretrainedConfig]
WORDS = {"vocab_size": 80, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


def llama(layers: int, heads: int = 4) -> PretrainedConfig:
    return LlamaConfig(
        **WORDS,
        hidden_size=HIDDEN,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=heads,
    )


def grouped(layers: int) -> PretrainedConfig:
    return llama(layers, heads=2)


def gpt2(layers: int, dropout: float = 0.0) -> PretrainedConfig:
    return GPT2Config(
        **WORDS,
        n_embd=HIDDEN,
        n_layer=layers,
        n_head=4,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
    )


def dropping(layers: int) -> PretrainedConfig:
    return gpt2(layers, dropout=0.1)


def qwen3(layers: int) -> PretrainedConfig:
    return Qwen3Config(
        **WORDS,
        hidden_size=HIDDEN,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )


def neox(layers: int) -> PretrainedConfig:
    return GPTNeoXConfig(
        **WORDS,
        hidden_size=HIDDEN,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
    )


def gemma2(layers: int) -> PretrainedConfig:
    return Gemma2Config(
        **WORDS,
        hidden_size=HIDDEN,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )


def saved(config: PretrainedConfig, half: bool, lora: bool) -> int:
    """Bytes that the backward pass of a model without its head keeps, besides its own weights and
    their copies, each storage once."""
    model: Any = AutoModelForCausalLM.from_config(config)
    if lora:
        named = [one.name for one in shape_of(config).linears]
        conv = config.model_type == "gpt2"
        chosen = PeftConfig(r=RANK, target_modules=named, fan_in_fan_out=conv)
        model = inject_adapter_in_model(chosen, model)
    own = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        is_a_copy = tensor.dim() == 2 and TOKENS not in tensor.shape
        if tensor.untyped_storage().data_ptr() not in own and not is_a_copy:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so no place is taken twice
        return tensor

    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        model.train()
        model.base_model(input_ids=ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("make", [llama, grouped, gpt2, dropping, qwen3])
def test_a_layer_keeps_what_is_counted(make: Make, half: bool, lora: bool) -> None:
    a_layer = (saved(make(3), half, lora) - saved(make(2), half, lora)) / TOKENS
    load = Load(
        tokens=TOKENS,
        longest=TOKENS,
        trained=TOKENS,
        precision="bf16" if half else "fp32",
        method="lora" if lora else "full",
        lora=LoraConfig(rank=RANK),
    )
    counted = layer_bytes(shape_of(make(2)), load)
    assert counted == pytest.approx(a_layer, rel=0.025)


def test_a_shape_is_read_off_the_model() -> None:
    shape = shape_of(gpt2(2))
    assert (shape.hidden, shape.layers, shape.heads, shape.intermediate) == (HIDDEN, 2, 4, 256)
    assert (shape.attention_inputs, shape.mlp_inputs, shape.mlp_kept) == (1, 1, 5)
    assert not shape.rms
    assert shape_of(neox(2)).mlp_kept == 2
    assert shape_of(gemma2(2)).norms == 4
    assert shape_of(qwen3(2)).head_norms
    assert shape_of(dropping(1)).dropout


@pytest.mark.parametrize("name", [BYTES_GPT, "parrot"])
def test_the_page_knows_the_lab_s_own_models_without_torch(name: str) -> None:
    chosen = ModelConfig(name)
    counted = shape_of(configuration(chosen))
    assert builtin_shape(chosen) == counted
    assert counted.parameters == size(chosen).parameters


def test_adapters_are_counted_as_peft_makes_them() -> None:
    model: Any = AutoModelForCausalLM.from_config(qwen3(2))
    shape = shape_of(qwen3(2))
    named = [one.name for one in shape.linears]
    inject_adapter_in_model(PeftConfig(r=RANK, target_modules=named), model)
    made = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert adapter_parameters(shape, LoraConfig(rank=RANK)) == made


def test_this_machine_has_room() -> None:
    found = machine(torch.device("cpu"))
    assert found.device == "cpu"
    assert found.room > 10**8
