"""Quicker parts compute what the model's own did."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sft_core.quicker import quicken
from tests.tensors import tiny_model


def test_gpt2_s_gelu_becomes_one_kernel_with_the_same_values_and_gradients() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    ).eval()
    ids = torch.arange(20).unsqueeze(0)
    before = model(ids).logits
    before.square().sum().backward()
    slopes = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    names = list(model.state_dict())
    assert quicken(model) == 2
    assert list(model.state_dict()) == names
    after = model(ids).logits
    after.square().sum().backward()
    assert torch.allclose(before, after, atol=1e-5)
    for slope, parameter in zip(slopes, model.parameters(), strict=True):
        assert torch.allclose(slope, parameter.grad, rtol=1e-3, atol=1e-3)
    assert quicken(model) == 0


def test_other_models_stay_as_they_are() -> None:
    assert quicken(tiny_model()) == 0
