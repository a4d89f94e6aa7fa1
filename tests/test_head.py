"""Vocabulary projection and loss in one: the losses and gradients of plain cross-entropy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CohereConfig, CohereForCausalLM, GPT2Config, GPT2LMHeadModel

from sft_core import head
from sft_core.batch import Batch, collate
from sft_core.head import can_fuse, losses_from_head
from sft_core.loss import cross_entropy_sum, target_mask
from tests.tensors import rows_of, tiny_model

ROWS = rows_of((5, 4), (3, 19), (7, 2), (1, 1))
SCALE = 0.25


def untied() -> Any:
    return tiny_model(tie_word_embeddings=False)


def with_bias() -> Any:
    model: Any = tiny_model(tie_word_embeddings=False)
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, 64))
    return model


def with_padding_rows() -> Any:
    """The embedding of id 3 learns nothing as an input, though it does as an output."""
    return tiny_model(pad_token_id=3)


MODELS = {"tied": tiny_model, "untied": untied, "bias": with_bias, "padding": with_padding_rows}


def run(model: Any, batch: Batch) -> Any:
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("small", [False, True], ids=["whole", "in chunks"])
def test_losses_hits_and_gradients_are_those_of_plain_logits(
    name: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        monkeypatch.setattr(head, "CHUNK", 64 * 7 * 4)
        monkeypatch.setattr(head, "BLOCK", 64 * 3)
        monkeypatch.setattr(head, "STRIPE", 10)
    model, batch = MODELS[name](), collate(ROWS, 0)
    logits = run(model, batch).logits
    total, count = cross_entropy_sum(logits, batch.labels)
    (total * SCALE).backward()
    expected = gradients(model)
    with losses_from_head(model, batch.labels, SCALE) as found:
        run(model, batch)
    (ours,) = found
    ours.total.backward()
    assert len(ours.each) == count
    assert float(ours.each.sum()) == pytest.approx(total.item(), rel=1e-5)
    assert ours.total.item() == pytest.approx(total.item() * SCALE, rel=1e-5)
    mask = target_mask(batch.labels)
    following = batch.labels[:, 1:][mask[:, :-1]]
    assert torch.equal(ours.right, logits[mask].argmax(-1) == following)
    learnt = gradients(model)
    assert learnt.keys() == expected.keys()
    for key, gradient in expected.items():
        assert torch.allclose(learnt[key], gradient, atol=1e-5, rtol=1e-4), key


def test_micro_batches_add_up_where_head_and_embedding_share_their_weights() -> None:
    model = tiny_model()
    for rows in (ROWS[:2], ROWS[2:]):
        batch = collate(rows, 0)
        total, _ = cross_entropy_sum(run(model, batch).logits, batch.labels)
        total.backward()
    expected = gradients(model)
    for rows in (ROWS[:2], ROWS[2:]):
        batch = collate(rows, 0)
        with losses_from_head(model, batch.labels, 1.0) as found:
            run(model, batch)
        found[0].total.backward()
    learnt = gradients(model)
    assert all(torch.allclose(learnt[key], expected[key], atol=1e-5) for key in expected)


def test_a_frozen_head_gets_no_gradient_and_still_passes_one_on() -> None:
    model, batch = tiny_model(), collate(ROWS, 0)
    model.get_input_embeddings().weight.requires_grad_(False)
    total, _ = cross_entropy_sum(run(model, batch).logits, batch.labels)
    total.backward()
    expected = gradients(model)
    with losses_from_head(model, batch.labels, 1.0) as found:
        run(model, batch)
    found[0].total.backward()
    learnt = gradients(model)
    assert learnt.keys() == expected.keys()
    assert "model.embed_tokens.weight" not in learnt
    assert all(torch.allclose(learnt[key], expected[key], atol=1e-5) for key in expected)


def test_without_gradients_only_losses_are_computed() -> None:
    model, batch = tiny_model(), collate(ROWS, 0)
    with torch.no_grad(), losses_from_head(model, batch.labels, 1.0) as found:
        run(model, batch)
    total, _ = cross_entropy_sum(run(model, batch).logits, batch.labels)
    assert float(found[0].each.sum()) == pytest.approx(total.item(), rel=1e-5)
    assert not found[0].total.requires_grad


def test_a_batch_in_which_nothing_is_trained_has_gradients_of_zero() -> None:
    model, batch = tiny_model(), collate(ROWS, 0)
    labels = torch.full_like(batch.labels, -100)
    with losses_from_head(model, labels, 1.0) as found:
        run(model, batch)
    found[0].total.backward()
    assert found[0].total.item() == 0
    assert all(not p.grad.any() for p in model.parameters())


def test_the_model_is_afterwards_what_it_was() -> None:
    model, batch = tiny_model(), collate(ROWS, 0)
    before = run(model, batch).logits
    with losses_from_head(model, batch.labels, 1.0):
        run(model, batch)
    assert torch.equal(run(model, batch).logits, before)


def test_half_precision_loses_little() -> None:
    model, batch = tiny_model(), collate(ROWS, 0)
    total, _ = cross_entropy_sum(run(model, batch).logits, batch.labels)
    total.backward()
    expected = gradients(model)
    with torch.autocast("cpu", torch.bfloat16), losses_from_head(model, batch.labels, 1.0) as got:
        run(model, batch)
    got[0].total.backward()
    assert got[0].total.item() == pytest.approx(total.item(), rel=0.02)
    for key, gradient in gradients(model).items():
        assert F.cosine_similarity(gradient.flatten(), expected[key].flatten(), dim=0) > 0.99


def test_logits_that_are_scaled_afterwards_keep_the_model_s_own_way() -> None:
    shape: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "bos_token_id": None, "pad_token_id": None, "eos_token_id": 1,
    }  # fmt: skip
    assert not can_fuse(CohereForCausalLM(CohereConfig(**shape, logit_scale=0.5)))
    assert can_fuse(tiny_model())
    assert can_fuse(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4)))
