"""The arithmetic of a step, counted by hand and by torch; what hardware is known to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from sft_core.loss import head_on_targets
from sft_core.peak import Arithmetic, Utilisation, arithmetic, of_card, peak
from sft_core.types import IGNORE_INDEX
from tests.tensors import tiny_model

CPU = torch.device("cpu")


def gpt2() -> Any:
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=24, n_layer=3, n_head=2)
    return GPT2LMHeadModel(config)


def counted(model: nn.Module) -> Arithmetic:
    found = arithmetic(model)
    assert found is not None
    return found


def test_a_llama_counted_by_hand() -> None:
    """Width 32, feed-forward 64, 4 heads of 8, 2 layers, 64 tokens in the vocabulary."""
    layer = 4 * 32 * 32 + 3 * 32 * 64  # query, key, value, output; gate, up, down
    found = counted(tiny_model())
    assert found.token == 2 * layer * 2 * 3  # multiply and add; layers; forward, twice backward
    assert found.target == 2 * 32 * 64 * 3
    assert found.pairs == ((None, 2 * 2 * 2 * 32 * 3),)
    # A row of 3 tokens has 6 pairs (1 + 2 + 3), one of 2 has 3; two of the 5 tokens are trained.
    expected = 5 * found.token + 2 * found.target + 9 * found.pairs[0][1]
    assert found.step([3, 2], 2) == expected
    assert found.step([], 0) == 0


def test_grouped_keys_and_values_cost_less_and_as_many_pairs() -> None:
    found = counted(tiny_model(num_key_value_heads=2))
    assert found.token == 2 * 3 * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert found.pairs == counted(tiny_model()).pairs


def measured(model: Any, rows: int, length: int, trained: int) -> int:
    """What torch counts, forward and backward, with the head on trained positions."""
    model.set_attn_implementation("eager")
    ids = torch.arange(rows * length).reshape(rows, length) % 50
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[:, -trained:] = ids[:, -trained:]
    with FlopCounterMode(display=False) as counter, head_on_targets(model.lm_head, labels):
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("make", [tiny_model, gpt2])
def test_torch_counts_the_same(make: Any) -> None:
    model = make()
    found = counted(model)
    rows, length, trained = 2, 12, 5
    # Eager attention computes the whole square, of which the causal triangle is needed.
    square = sum(cost * length**2 for _, cost in found.pairs)
    expected = rows * (length * found.token + square) + rows * trained * found.target
    assert measured(model, rows, length, trained) == pytest.approx(expected, rel=2e-3)


def test_frozen_matrices_have_no_gradients_of_their_own() -> None:
    """Torch agrees, where something in front of them is trained and so needs gradients."""
    model = tiny_model(tie_word_embeddings=False)
    whole = counted(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.requires_grad = False
    frozen = counted(model)
    assert (frozen.token * 3, frozen.target * 3) == (whole.token * 2, whole.target * 2)
    square = sum(cost * 10**2 for _, cost in frozen.pairs)
    expected = 10 * frozen.token + square + 4 * frozen.target
    assert measured(model, 1, 10, 4) == pytest.approx(expected, rel=2e-3)


def test_adapters_are_linear_layers_too() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=4, target_modules=["q_proj"])
    found = counted(inject_adapter_in_model(config, tiny_model()))
    layer = 4 * 32 * 32 + 3 * 32 * 64
    adapters = 2 * 4 * 32
    assert found.token == 2 * 2 * (2 * layer + 3 * adapters)
    assert found.target == 2 * 2 * 32 * 64


def test_a_window_bounds_what_a_token_sees() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = MistralForCausalLM(MistralConfig(**shape, **heads, sliding_window=3))
    found = counted(model)
    ((window, cost),) = found.pairs
    assert window == 3
    # Five tokens see 1, 2, 3, 3 and 3.
    assert found.step([5], 0) == 5 * found.token + 12 * cost
    assert found.step([2], 0) == 2 * found.token + 3 * cost


def test_layers_of_two_kinds_count_by_their_own_window() -> None:
    model = tiny_model()
    whole = counted(model)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    model.config.sliding_window = 2
    found = counted(model)
    half = whole.pairs[0][1] // 2  # one of two layers
    assert sorted(found.pairs, key=str) == [(2, half), (None, half)]
    # Four tokens see 1, 2, 2, 2 in one layer and 1, 2, 3, 4 in the other.
    assert found.step([4], 0) == 4 * found.token + (7 + 10) * half


def test_what_cannot_be_counted_has_no_share() -> None:
    model = tiny_model()
    model.extra = nn.ParameterList([nn.Parameter(torch.zeros(64, 64))])
    assert arithmetic(model) is None
    unknown = Utilisation(model, CPU, "fp32")
    assert unknown.needed([4], 2) == 0
    assert unknown.share(1e9) is None
    mixed = tiny_model()
    mixed.config.num_experts = 8
    assert arithmetic(mixed) is None
    other = tiny_model()
    other.config.layer_types = ["full_attention", "linear_attention"]
    assert arithmetic(other) is None


def test_the_share_is_what_is_done_by_what_can_be_done() -> None:
    alone, both = (Utilisation(tiny_model(), CPU, "fp32", count) for count in (1, 2))
    most = peak(CPU, "fp32")
    assert most is not None
    assert alone.share(most / 4) == pytest.approx(0.25)
    assert both.share(most / 4) == pytest.approx(0.125)
    assert alone.needed([3, 2], 2) == counted(tiny_model()).step([3, 2], 2)


def test_a_processor_is_measured_once_and_draws_no_random_number() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = peak(CPU, "bf16")
    assert first is not None
    assert first > 1e6
    assert peak(CPU, "bf16") == first
    assert torch.equal(torch.get_rng_state(), state)
    assert peak(torch.device("meta"), "fp32") is None


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA A10", "bf16", 125),
        ("Tesla T4", "fp32", 8.1),
        ("Tesla T4", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA GH200 480GB", "bf16", None),
        ("NVIDIA GeForce GTX 1080", "fp32", None),
    ],
)
def test_cards_by_the_names_that_they_give_themselves(
    name: str, precision: str, tera: float | None
) -> None:
    assert of_card(name, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def test_fp32_on_tensor_cores_is_faster_where_there_are_any() -> None:
    assert of_card("NVIDIA L4", "fp32", tf32=True) == pytest.approx(60e12)
    assert of_card("Tesla T4", "fp32", tf32=True) == pytest.approx(8.1e12)
