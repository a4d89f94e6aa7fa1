"""The filters give what transformers' own processors give, and draws follow them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sft_core.config import GenerateConfig
from sft_core.sampling import Sampler, filtered, nucleus, penalised, top

SEEDS = st.integers(0, 10_000)


def logits(seed: int, size: int = 40) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


@given(SEEDS, st.floats(0.1, 3.0), st.lists(st.integers(0, 39), min_size=1, max_size=9))
@settings(deadline=None)
def test_repetition_penalty(seed: int, penalty: float, read: list[int]) -> None:
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([read]), logits(seed).unsqueeze(0).clone()
    )
    assert torch.allclose(penalised(logits(seed), read, penalty), theirs[0])


@given(SEEDS, st.integers(1, 60))
@settings(deadline=None)
def test_top_k(seed: int, count: int) -> None:
    theirs = TopKLogitsWarper(count)(torch.tensor([[0]]), logits(seed).unsqueeze(0))
    assert torch.equal(top(logits(seed), count), theirs[0])


@given(SEEDS, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_top_p(seed: int, share: float) -> None:
    theirs = TopPLogitsWarper(share)(torch.tensor([[0]]), logits(seed).unsqueeze(0))
    assert torch.equal(nucleus(logits(seed), share), theirs[0])


@given(
    SEEDS,
    st.floats(0.1, 5.0),
    st.integers(1, 50),
    st.floats(0.05, 0.99),
    st.floats(0.5, 2.0),
)
@settings(deadline=None)
def test_all_of_them_in_the_order_of_transformers(
    seed: int, temperature: float, count: int, share: float, penalty: float
) -> None:
    config = GenerateConfig(
        temperature=temperature, top_k=count, top_p=share, repetition_penalty=penalty
    )
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(count),
            TopPLogitsWarper(share),
        ]
    )
    theirs = processors(torch.tensor([[3, 5, 8]]), logits(seed).unsqueeze(0).clone())
    assert torch.allclose(filtered(logits(seed), [3, 5, 8], config), theirs[0], rtol=1e-5)


def test_ties_at_the_edge_of_top_k_stay() -> None:
    assert top(torch.tensor([1.0, 3.0, 3.0, 2.0]), 1).isfinite().tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_settings_that_keep_all_change_nothing() -> None:
    scores = logits(1)
    config = GenerateConfig(temperature=1.0)
    assert torch.equal(filtered(scores, [1, 2], config), scores)


def test_greedy_takes_the_best_after_the_penalty() -> None:
    scores = torch.tensor([1.0, 2.0, 1.9])
    assert Sampler(GenerateConfig(), [0]).draw(scores)[0] == 1
    assert Sampler(GenerateConfig(repetition_penalty=2.0), [1]).draw(scores)[0] == 2


def test_the_penalty_reaches_what_was_drawn() -> None:
    sampler = Sampler(GenerateConfig(repetition_penalty=2.0), [0])
    scores = torch.tensor([0.1, 2.0, 1.9])
    assert [sampler.draw(scores)[0] for _ in range(2)] == [1, 2]


def test_the_probability_is_the_models_own() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0])
    config = GenerateConfig(temperature=0.5, top_k=1, repetition_penalty=1.5)
    token, probability = Sampler(config, [2]).draw(scores)
    assert token == 2
    assert probability == pytest.approx(scores.softmax(-1)[2].item())


def test_a_seed_repeats_its_draws_and_another_does_not() -> None:
    def draws(seed: int) -> list[int]:
        sampler = Sampler(GenerateConfig(temperature=1.0, seed=seed), [])
        return [sampler.draw(torch.zeros(50))[0] for _ in range(20)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_draws_follow_the_distribution() -> None:
    sampler = Sampler(GenerateConfig(temperature=1.0), [])
    scores = torch.tensor([0.7, 0.2, 0.1]).log()
    counts = torch.bincount(torch.tensor([sampler.draw(scores)[0] for _ in range(3000)]))
    assert (counts / 3000).tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
