"""The estimate, by hand for a model of a few numbers."""

from __future__ import annotations

from dataclasses import replace

from sft_core.memory import (
    BASE,
    BATCH_BYTES,
    HEAP_SHARE,
    LOGITS_AT_ONCE,
    LOGITS_IN_HAND,
    Load,
    Shape,
    adapter_parameters,
    estimate,
    layer_bytes,
    matrices,
    random_llama,
    tokens_within,
)
from sft_core.recipe import LoraConfig

# Width 12 in 3 heads of 4, 2 layers, intermediate 32, 10 words.
TINY = Shape.of_llama(random_llama(12, 2, 3, context=64, vocabulary=10))
LOAD = Load(tokens=5, longest=5, trained=3)


def test_parameters_are_counted() -> None:
    assert matrices(TINY.linears) == 2 * (4 * 12 * 12 + 3 * 12 * 32)
    assert TINY.parameters == 2 * (576 + 1152) + 5 * 12 + 10 * 12
    assert TINY.intermediate == 32


def test_a_layer_in_single_precision() -> None:
    norms = 2 * (2 * 12 + 1)
    inputs = 2 * 12
    attention = 4 * 12 + 3
    mlp = 4 * 32
    assert layer_bytes(TINY, LOAD) == 4 * (norms + inputs + attention + mlp)


def test_a_layer_in_half_precision_keeps_norms_in_single() -> None:
    half = replace(LOAD, precision="bf16")
    single = 2 * (2 * 12 + 1) + 3
    assert layer_bytes(TINY, half) == 4 * single + 2 * (5 * 12 + 4 * 12 + 4 * 32)


def test_dropout_on_scores_keeps_them_on_a_cpu_alone() -> None:
    dropping = replace(TINY, dropout=True)
    longer = replace(LOAD, longest=105)
    assert layer_bytes(dropping, longer) - layer_bytes(dropping, LOAD) == 3 * 3 * 100 * 4
    gpu = replace(LOAD, device="cuda")
    assert layer_bytes(dropping, gpu) == layer_bytes(TINY, gpu) + 2 * 12


def test_the_whole_by_hand() -> None:
    found = estimate(TINY, LOAD)
    count = TINY.parameters
    assert (found.weights, found.gradients, found.optimizer) == (4 * count, 4 * count, 8 * count)
    assert (found.base, found.casts) == (BASE["cpu"], 0)
    layers = 2 * layer_bytes(TINY, LOAD)
    ends = 4 * (2 * 12 + 2 * 4) + 4 * (2 * 32 + 2 * 12) + BATCH_BYTES
    assert found.a_token == layers + int(HEAP_SHARE * layers) + ends
    assert found.activations == 5 * found.a_token + 3 * 10 * (4 + 4)
    assert found.total == found.fixed + found.activations


def test_logits_never_exist_whole() -> None:
    crowd = 10_000_000
    many = estimate(TINY, replace(LOAD, tokens=crowd, trained=crowd))
    logits = many.activations - crowd * many.a_token
    assert LOGITS_AT_ONCE - 40 < logits - LOGITS_IN_HAND <= LOGITS_AT_ONCE
    assert logits < crowd * 10 * 4


def test_checkpointing_keeps_one_state_a_layer_and_one_layer() -> None:
    gpu = replace(LOAD, device="cuda")
    kept = estimate(TINY, gpu).a_token - estimate(TINY, replace(gpu, checkpointing=True)).a_token
    assert kept == layer_bytes(TINY, gpu) - 2 * 12 * 4


def test_half_precision_copies_what_multiplies() -> None:
    half = estimate(TINY, replace(LOAD, precision="bf16"))
    assert half.casts == 2 * (matrices(TINY.linears) + 10 * 12)
    assert half.weights == estimate(TINY, LOAD).weights


def test_adapters_alone_have_gradients_and_moments() -> None:
    lora = LoraConfig(rank=2)
    count = 2 * 2 * (4 * (12 + 12) + 3 * (12 + 32))
    assert adapter_parameters(TINY, lora) == count
    assert adapter_parameters(TINY, LoraConfig(rank=2, targets=("q_proj",))) == 2 * 2 * 24
    found = estimate(TINY, replace(LOAD, method="lora", lora=lora))
    assert (found.gradients, found.optimizer) == (4 * count, 8 * count)
    assert found.weights == 4 * (TINY.parameters + count)


def test_as_many_tokens_as_there_is_room_for() -> None:
    trained = replace(LOAD, tokens=1000, trained=1000)
    room = estimate(TINY, trained).total
    assert tokens_within(TINY, trained, room) == 1000
    assert tokens_within(TINY, trained, room - 1) == 999
    assert tokens_within(TINY, trained, 100) == 0
