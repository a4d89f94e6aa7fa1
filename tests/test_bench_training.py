"""The arithmetic behind the training table, and that the lab's side of it is what it says."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sft_core.batch import collate
from sft_core.loss import token_mean_loss
from sft_core.prepare import Row
from tests.bench_training import Contender, compete, contenders, measured
from tests.peers.cases import dealt, linear_shapes, make_case, recipe, tiled
from tests.peers.figures import HEAD, Result, Work, line, loss_gap, summary, useful_flops, work
from tests.peers.meter import token_mean

ROWS = [
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
    {"input_ids": [8, 9, 4, 3], "labels": [-100, -100, -100, 3]},
]
GIVEN = Work((10, 30, 50), (4, 10, 20))


def written(**changes: Any) -> dict[str, Any]:
    """A result file: two steps of 4 seconds each after the first one's end."""
    return {
        "ticks": [100.0, 104.0, 108.0],
        "processor": [10.0, 16.0, 26.0],
        "losses": [3.0, 2.0, 1.0],
        "tokens": 90,
        "trained": 34,
        "loaded_mib": 300.0,
        "peak_mib": 500.0,
        "device_mib": None,
        "threads": 2,
        **changes,
    }


def test_work_counts_tokens_and_targets_of_each_step() -> None:
    given = work(ROWS, [[0, 1], [1, 1], [0]])
    assert given == Work((7, 8, 3), (3, 2, 2))
    assert given.steady == (11, 4)


def test_a_first_token_is_no_target() -> None:
    assert work([{"input_ids": [1, 2], "labels": [1, 2]}], [[0]]).trained == (1,)


def test_a_result_leaves_the_first_step_out() -> None:
    result = Result.read(written())
    assert (result.seconds, result.processor) == (8.0, 16.0)
    assert (result.peak, result.grown) == (500.0, 200.0)
    result.require(GIVEN)


def test_memory_is_the_device_s_where_there_is_one() -> None:
    result = Result.read(written(device_mib=7000.0))
    assert (result.peak, result.grown) == (7000.0, 7000.0)


@pytest.mark.parametrize("changes", [{"losses": [3.0, 2.0]}, {"ticks": [1.0], "losses": [1.0]}])
def test_a_missing_step_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        Result.read(written(**changes))


@pytest.mark.parametrize("changes", [{"tokens": 91}, {"trained": 33}])
def test_other_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="instead of"):
        Result.read(written(**changes)).require(GIVEN)


def test_useful_flops_by_hand() -> None:
    # Two matrices of 3 x 4 for each of 10 tokens, a head of 4 x 100 for 5 of them.
    assert useful_flops(24, 400, 10, 5) == 6 * 24 * 10 + 6 * 400 * 5


def test_losses_are_compared_at_every_tenth_step() -> None:
    reference = [1.0] * 21
    drifted = [5.0] * 9 + [1.01] + [5.0] * 9 + [0.98] + [5.0]
    assert loss_gap(drifted, reference) == pytest.approx(0.02)
    assert loss_gap([9.0, 1.1], [1.0, 1.0]) == pytest.approx(0.1)


def test_a_line_by_hand() -> None:
    runs = [Result.read(written(ticks=[0.0, 1.0, end])) for end in (10.0, 8.0, 5.0)]
    row = summary(
        "the lab",
        runs,
        GIVEN,
        weights=(1_000_000, 2_000_000),
        linear_peak=1e9,
        reference=[3.0, 2.0, 0.8],
        eval_loss=1.5,
    )
    assert (row.rate, row.least, row.most) == (10.0, 8.0, 16.0)
    assert (row.trained, row.processor) == (30 / 8, 16 / 80 * 1e6)
    assert row.share == pytest.approx(6 * (80e6 + 60e6) / 8 / 1e9)
    assert row.gap == pytest.approx(0.25)
    slow = summary(
        "TRL",
        [Result.read(written(ticks=[0.0, 1.0, 40.0], peak_mib=1000.0))],
        GIVEN,
        weights=(1, 1),
        linear_peak=1.0,
        reference=[1.0, 1.0, 1.0],
        eval_loss=1.5,
    )
    told = line(row, slow, row)
    assert len(told) == len(HEAD)
    assert told.split()[2:7] == ["10", "8", "16", "5.00", "1.00"]
    assert told.split()[9:13] == ["500", "0.50", "200", "0.29"]


def test_head_and_body_of_gpt2_are_told_apart() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=50))
    assert linear_shapes(model) == [(8, 24), (8, 8), (8, 32), (32, 8)] * 2


def test_the_exact_loss_is_the_lab_s() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50)).eval()
    rows = [
        Row("", array("i", ids), array("i", it["labels"]), array("B", bytes(len(ids))), 0, 0)
        for it in ROWS
        if (ids := it["input_ids"])
    ]
    batch = collate(rows, 0)
    with torch.inference_mode():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert token_mean(model, ROWS) == pytest.approx(float(token_mean_loss(logits, batch.labels)))


def test_more_rows_deal_out_the_same_steps() -> None:
    train, base = recipe(31, 10, 256), list(range(100))
    many = tiled(1000, base, train)
    assert [[many[at] for at in step] for step in dealt(1000, train)] == [
        [base[at] for at in step] for step in dealt(100, train)
    ]
    assert set(many) == set(base)


def test_ratios_are_to_trl_s_default_and_the_first_seed() -> None:
    field = contenders(8, "bf16")
    assert (field[0].trainer, field[0].precision) == ("trl", "default")
    assert (field[2].trainer, field[2].batch, field[2].accumulation) == ("transformers", 1, 8)
    assert {one.batch * one.accumulation for one in field} == {8}


def test_the_lab_is_measured_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.peers.cases.BUILD", tmp_path)
    monkeypatch.setattr("tests.bench_training.BUILD", tmp_path)
    case = make_case("bytes-gpt", None, recipe(2, 4, 64))
    saved = tmp_path / "saved"
    found = compete(case, Contender("the lab", "lab", "fp32", "fp32", 4), saved)
    result, step = Result.read(found), [case.rows[at] for at in case.order[0]]
    assert result.seconds > 0
    assert 0 < result.grown <= result.peak
    assert result.losses[0] == pytest.approx(measured(case.folder, step), rel=1e-5)
    assert measured(saved, step) < result.losses[0]
