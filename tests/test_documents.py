"""Attention within documents: what stands end to end is what each row alone would be."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft_core import documents
from sft_core.batch import flat
from tests.tensors import rows_of, tiny_model

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def gpt2() -> PreTrainedModel:
    shape = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=400, initializer_range=0.3
    )
    return GPT2LMHeadModel(shape)


MODELS = {
    "llama": lambda: tiny_model(max_position_embeddings=400),
    "gpt2": gpt2,
    "mistral, window 6": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=6)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "gemma3, window 6": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SHAPE,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=8,
        )
    ),
}


def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def hidden(model: Any, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        state: Tensor = model.base_model(use_cache=False, **inputs).last_hidden_state
    return state


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lengths", [(2, 9, 1, 14), (40, 150, 90, 30)], ids=["dense", "apart"])
def test_rows_end_to_end_are_what_each_is_alone(name: str, lengths: tuple[int, ...]) -> None:
    model = model_of(name)
    torch.manual_seed(1)
    rows = [torch.randint(2, 64, (1, length)) for length in lengths]
    alone = torch.cat([hidden(model, input_ids=row) for row in rows], dim=1)
    assert documents.teach(model, nullcontext)
    ids = torch.cat(rows, dim=1)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    with documents.within(lengths):
        together = hidden(model, input_ids=ids, position_ids=positions)
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4)
    with documents.within((sum(lengths),)):
        leaking = hidden(model, input_ids=ids, position_ids=positions)
    assert not torch.allclose(leaking, alone, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_a_taught_model_still_reads_padded_rows_and_writes_with_a_cache(name: str) -> None:
    model = model_of(name)
    ids = torch.randint(2, 64, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    before = hidden(model, input_ids=ids, attention_mask=mask)
    written = model.generate(ids[:1], max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert documents.teach(model, nullcontext)
    after = hidden(model, input_ids=ids, attention_mask=mask)
    assert torch.allclose(before[mask.bool()], after[mask.bool()], atol=1e-5)
    again = model.generate(ids[:1], max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(written, again)


@pytest.mark.parametrize("name", MODELS)
def test_short_documents_in_bf16_are_near_those_in_fp32_forwards_and_backwards(name: str) -> None:
    """They take a way of their own there; rounding may tell it from the other, nothing else."""
    lengths = (40, 150, 90, 30)
    rows = torch.randint(2, 64, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    found = []
    for precise in (True, False):
        model = model_of(name)
        assert documents.teach(model, nullcontext)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise), documents.within(lengths):
            body: Any = model.base_model
            state = body(input_ids=rows, position_ids=positions, use_cache=False).last_hidden_state
            (state.float() * torch.linspace(-1, 1, state.shape[-1])).sum().backward()
        slopes = [p.grad.flatten() for p in body.parameters() if p.grad is not None]
        found.append((state.detach().float(), torch.cat(slopes)))
    (exact, wanted), (near, ours) = found
    assert float((near - exact).norm() / exact.norm()) < 0.05
    assert float(torch.nn.functional.cosine_similarity(wanted, ours, dim=0)) > 0.99


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_in_bf16_short_documents_take_their_own_way_whatever_rotary_angles_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    short = documents._short

    def counted(query: Tensor, *rest: Any) -> Tensor:
        taken.append(query.shape[2])
        return short(query, *rest)

    monkeypatch.setattr(documents, "_short", counted)
    model = model_of(name)
    assert documents.teach(model, nullcontext)
    positions = torch.cat([torch.arange(150), torch.arange(130)]).unsqueeze(0)
    with torch.autocast("cpu", torch.bfloat16), documents.within((150, 130)):
        hidden(model, input_ids=torch.arange(280).unsqueeze(0) % 64, position_ids=positions)
    assert taken == [150, 130] * 2


def test_what_evaluation_asked_for_first_does_for_training() -> None:
    model: Any = model_of("llama")
    assert documents.teach(model, nullcontext)
    ids = torch.arange(280).unsqueeze(0) % 64
    positions = torch.cat([torch.arange(150), torch.arange(130)]).unsqueeze(0)
    for reading in (True, False):
        with torch.autocast("cpu", torch.bfloat16), documents.within((150, 130)):
            with torch.inference_mode(reading):
                out = model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
            if not reading:
                out.last_hidden_state.float().sum().backward()
    assert all(p.grad is not None for p in model.model.layers.parameters())


def test_models_that_measure_distance_on_their_own_keep_their_padding() -> None:
    shape = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    bloom = BloomForCausalLM(shape).eval()
    before = bloom.config._attn_implementation
    assert not documents.teach(bloom, nullcontext)
    assert bloom.config._attn_implementation == before


def test_a_model_that_counts_positions_from_the_mask_is_found_out_or_right() -> None:
    """OPT works its positions out of the attention mask unless it is told them."""
    torch.manual_seed(0)
    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, ffn_dim=64, num_attention_heads=4,
            word_embed_proj_dim=32, init_std=0.3, dropout=0.0,
        )
    ).eval()  # fmt: skip
    ids = [torch.tensor([[3, 4, 5, 6]]), torch.tensor([[9, 8, 7]])]
    alone = torch.cat([hidden(opt, input_ids=row) for row in ids], dim=1)
    if documents.teach(opt, nullcontext):
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
        with documents.within((4, 3)):
            together = hidden(opt, input_ids=torch.cat(ids, dim=1), position_ids=positions)
        assert torch.allclose(together, alone, atol=1e-4)


def test_a_model_that_ignores_who_may_see_whom_is_refused(monkeypatch: Any) -> None:
    model = tiny_model()
    monkeypatch.setattr(documents, "_mask", lambda *_: torch.ones(12, 12).tril().bool())
    assert not documents.teach(model, nullcontext)
    assert model.config._attn_implementation == "sdpa"


def test_the_flat_batch_restarts_positions_and_numbers_documents() -> None:
    batch = flat(rows_of((2, 1), (1, 1)))
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5]]
    assert batch.labels.tolist() == [[-100, -100, 3, -100, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2]]
    assert batch.attention_mask.tolist() == [[1] * 5]
    assert batch.lengths() == [3, 2]
