"""Freed memory stays while it is wanted, and goes back afterwards."""

from __future__ import annotations

import resource

import psutil
import torch

from sft_core import heap

BLOCK = 8 << 20  # float32 numbers: 32 MB


def faults_of(times: int) -> int:
    """Pages that the kernel had to hand out while large blocks came and went."""
    torch.zeros(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_blocks_are_handed_out_once_inside_and_given_back_after() -> None:
    outside = faults_of(8)
    with heap.kept():
        inside = faults_of(8)
        held = psutil.Process().memory_info().rss
    if heap._glibc() is None:  # macOS, Windows, Alpine: nothing is changed there
        assert inside <= 2 * outside
        return
    assert inside < outside / 4
    assert psutil.Process().memory_info().rss <= held
    assert faults_of(8) > 4 * inside
