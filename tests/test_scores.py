"""Figures are computed from counts, once, at the end."""

from __future__ import annotations

import math

import pytest

from sft_core.scores import Perplexity, Tally


def test_a_share_of_nothing_is_zero() -> None:
    assert Tally("none", 0, 0, 0).share == 0.0
    assert Tally("some", 4, 3, 4).share == 0.75


def test_a_guess_among_256_bytes_is_eight_bits_a_byte() -> None:
    found = Perplexity(nats=10 * math.log(256), tokens=10, bytes=10, documents=2)
    assert found.loss == pytest.approx(math.log(256))
    assert found.perplexity == pytest.approx(256)
    assert found.bits_per_byte == pytest.approx(8)


def test_bits_per_byte_do_not_depend_on_how_text_is_cut_into_tokens() -> None:
    fine, coarse = Perplexity(12.0, 12, 24, 1), Perplexity(12.0, 6, 24, 1)
    assert fine.bits_per_byte == coarse.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert fine.perplexity < coarse.perplexity


def test_figures_beyond_all_numbers_are_infinite() -> None:
    assert Perplexity(1e6, 10, 10, 1).perplexity == math.inf
    assert Perplexity(1.0, 1, 0, 1).bits_per_byte == math.inf
