"""Learning rates step by step, and who decays."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from sft_core.config import TrainConfig
from sft_core.schedule import factor, groups, optimizer, scheduler, warmup_steps
from tests.tensors import tiny_model


def rates(config: TrainConfig, total: int) -> list[float]:
    steps = optimizer(nn.Linear(2, 2), config)
    plan = scheduler(steps, config, total)
    found = []
    for _ in range(total):
        found.append(plan.get_last_lr()[0])
        steps.step()
        plan.step()
    return found


def test_a_constant_rate_after_warm_up() -> None:
    config = TrainConfig(schedule="constant", warmup_steps=3, learning_rate=1.0)
    assert rates(config, 8) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_a_line_down_to_zero() -> None:
    config = TrainConfig(schedule="linear", warmup_steps=0, learning_rate=1.0)
    assert rates(config, 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert factor("linear", 4, 0, 4) == 0


def test_half_a_cosine_as_transformers_has_it_after_the_warm_up() -> None:
    ours = TrainConfig(schedule="cosine", warmup_steps=5, learning_rate=1.0)
    steps = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(steps, 5, 20)
    expected = []
    for _ in range(20):
        expected.append(theirs.get_last_lr()[0])
        steps.step()
        theirs.step()
    assert rates(ours, 20)[5:] == pytest.approx(expected[5:])


def test_no_step_is_wasted_on_a_rate_of_zero() -> None:
    for schedule in ("constant", "linear", "cosine"):
        config = TrainConfig(schedule=schedule, warmup_steps=4, learning_rate=1.0)
        assert min(rates(config, 12)) > 0


def test_a_short_run_has_a_short_warm_up() -> None:
    assert warmup_steps(TrainConfig(warmup_steps=10), 100) == 10
    assert warmup_steps(TrainConfig(warmup_steps=10), 5) == 2
    assert warmup_steps(TrainConfig(warmup_steps=10), 1) == 0


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_decay_and_embeddings_norms_and_biases_do_not(tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied, attention_bias=True)
    decayed, kept = groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with_decay = {names[id(parameter)] for parameter in decayed["params"]}
    without = {names[id(parameter)] for parameter in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert with_decay | without == set(names.values())
    assert "model.layers.0.mlp.up_proj.weight" in with_decay
    assert ("lm_head.weight" in with_decay) is not tied
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= without
    assert "model.layers.0.self_attn.q_proj.bias" in without


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_model()
    model.get_input_embeddings().weight.requires_grad_(False)
    found = [parameter for group in groups(model, 0.1) for parameter in group["params"]]
    assert all(parameter.requires_grad for parameter in found)


def test_an_untouched_row_of_an_embedding_stays_as_it_is() -> None:
    """What decay on embeddings would do to tokens that fine-tuning never shows."""
    model = tiny_model()
    steps = optimizer(model, TrainConfig(weight_decay=0.5, learning_rate=0.1))
    before = model.get_input_embeddings().weight[60].clone()
    model.model(torch.tensor([[1, 2, 3]])).last_hidden_state.sum().backward()
    steps.step()
    assert torch.equal(model.get_input_embeddings().weight[60], before)
