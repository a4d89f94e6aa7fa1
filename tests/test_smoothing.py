"""The running mean against its closed form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core.smoothing import Smoothed

VALUES = st.lists(st.floats(-50, 50), min_size=1, max_size=60)


@given(VALUES, st.floats(0.01, 1))
def test_it_weighs_each_value_by_its_age(values: list[float], share: float) -> None:
    smoothed = Smoothed(share)
    found = [smoothed.add(value) for value in values][-1]
    weights = [share * (1 - share) ** age for age in range(len(values))]
    expected = sum(w * v for w, v in zip(weights, reversed(values), strict=True)) / sum(weights)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_first_mean_is_the_first_value_and_a_steady_one_stays() -> None:
    smoothed = Smoothed()
    assert [smoothed.add(3.0) for _ in range(5)] == pytest.approx([3.0] * 5)


@given(VALUES, VALUES)
def test_a_restored_one_goes_on_to_the_last_bit(before: list[float], after: list[float]) -> None:
    whole = Smoothed()
    for value in before:
        whole.add(value)
    resumed = Smoothed()
    resumed.restore(json.loads(json.dumps(whole.state())))
    assert [resumed.add(value) for value in after] == [whole.add(value) for value in after]
