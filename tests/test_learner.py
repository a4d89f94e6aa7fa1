"""One optimiser step: exact means over micro-batches and processes; stopping; NaN."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sft_core.batch import collate
from sft_core.config import TrainConfig
from sft_core.dealing import Plan
from sft_core.learner import Learner
from sft_core.loss import count_targets, token_mean_loss
from sft_core.models import Opened
from sft_core.tokenizer import load_tokenizer
from sft_core.types import NonFiniteLossError
from tests.tensors import Row, rows_of, tiny_model

ROOT = Path(__file__).resolve().parents[1]
ROWS = rows_of((5, 4), (3, 19), (7, 2), (1, 1))
PLAIN = TrainConfig(
    learning_rate=1e-3, schedule="constant", warmup_steps=0, max_grad_norm=0, precision="fp32"
)


def learner(
    rows: Sequence[Row] = ROWS,
    model: torch.nn.Module | None = None,
    parameters: int = 1,
    **changes: object,
) -> Learner:
    opened = Opened(model or tiny_model(), load_tokenizer("words"), (), parameters, 1, 64)
    return Learner(opened, replace(PLAIN, **changes), rows)


def weights(of: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in of.bare.parameters()]


def gradients(of: Learner, plan: Plan) -> list[Tensor]:
    """The gradients of one step, caught before the optimiser uses them."""
    caught: list[Tensor] = []

    def catch(*_: object) -> None:
        caught.extend(parameter.grad.clone() for parameter in of.bare.parameters())

    of._optimizer.register_step_pre_hook(catch)
    assert of.optimise(plan) is not None
    return caught


@pytest.mark.parametrize(
    "plan",
    [
        ((0, 1, 2, 3),),
        ((0, 1), (2, 3)),
        ((3, 0, 2), (1,)),
        ((0,), (1,), (2,), (3,)),
    ],
)
def test_micro_batches_of_unequal_length_give_the_whole_batchs_gradients(plan: Plan) -> None:
    model = tiny_model()
    batch = collate(ROWS, 0)
    logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    loss = token_mean_loss(logits, batch.labels)
    loss.backward()
    found = gradients(learner(), plan)
    expected = [parameter.grad for parameter in model.parameters()]
    assert all(
        torch.allclose(ours, whole, atol=1e-5, rtol=0)
        for ours, whole in zip(found, expected, strict=True)
    )
    learnt = learner().optimise(plan)
    assert learnt is not None
    assert learnt.loss == pytest.approx(loss.item(), abs=1e-5)
    assert (learnt.trained, learnt.tokens) == (26, 42)
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected))
    assert learnt.grad_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("plan", [((0, 1, 2, 3),), ((3, 0), (2, 1))])
def test_loss_by_kind_and_accuracy_are_those_of_single_tokens(plan: Plan) -> None:
    rows = [
        replace(row, kinds_given=(0,) * (len(row.ids) - 1) + (1,)) for row in ROWS
    ]  # the last token of each is the template's
    model = tiny_model()
    losses: dict[int, list[float]] = {0: [], 1: []}
    right = 0
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0]
        for at in range(1, len(row.ids)):
            if row.labels[at] >= 0:
                odds = logits[at - 1].log_softmax(-1)
                losses[row.kinds[at]].append(-odds[row.ids[at]].item())
                right += int(odds.argmax()) == row.ids[at]
    learnt = learner(rows).optimise(plan)
    assert learnt is not None
    assert [(part.kind, part.tokens) for part in learnt.kinds] == [("answer", 22), ("template", 4)]
    for part, values in zip(learnt.kinds, losses.values(), strict=True):
        assert part.loss == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert learnt.accuracy == pytest.approx(right / 26)


def test_a_kind_that_a_step_has_no_token_of_is_not_told() -> None:
    learnt = learner().optimise(((0, 1),))
    assert learnt is not None
    assert [part.kind for part in learnt.kinds] == ["answer"]


def test_a_packed_step_learns_what_its_rows_teach_one_by_one() -> None:
    """Rows that share a window neither see each other nor shift each other's positions."""
    packed = learner(packing=True, max_length=24, batch_size=2, epochs=1)
    (plan,) = packed.steps()
    assert sorted(row for batch in plan for row in batch) == [0, 1, 2, 3]
    found, loss = gradients(packed, plan), 0.0
    model = tiny_model()
    for row in ROWS:
        batch = collate([row], 0)
        logits = model(batch.input_ids).logits
        part = token_mean_loss(logits, batch.labels) * count_targets(batch.labels) / 26
        part.backward()
        loss += part.item()
    expected = [parameter.grad for parameter in model.parameters()]
    assert all(
        torch.allclose(ours, whole, atol=1e-5, rtol=0)
        for ours, whole in zip(found, expected, strict=True)
    )
    learnt = learner().optimise(plan)
    assert learnt is not None
    assert learnt.loss == pytest.approx(loss, abs=1e-5)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    plan = ((0, 1, 2, 3),)
    plain, saving = (
        gradients(learner(), plan),
        gradients(learner(gradient_checkpointing=True), plan),
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, saving, strict=True))


def test_clipping_bounds_the_gradient_and_tells_its_norm() -> None:
    free, clipped = learner(), learner(max_grad_norm=0.01)
    norm = free.optimise(((0, 1),))
    found = gradients(clipped, ((0, 1),))
    total = math.sqrt(sum(float(gradient.square().sum()) for gradient in found))
    assert total == pytest.approx(0.01, rel=1e-3)
    assert norm is not None
    assert norm.grad_norm > 0.01


def test_half_precision_trains_nearly_as_single() -> None:
    single, half = learner(max_steps=5), learner(max_steps=5, precision="bf16")
    for one, other in zip(single.steps(), half.steps(), strict=True):
        first, second = single.optimise(one), half.optimise(other)
        assert first is not None
        assert second is not None
        assert second.loss == pytest.approx(first.loss, rel=0.05)
    assert {parameter.dtype for parameter in half.bare.parameters()} == {torch.float32}


# -- which steps there are --------------------------------------------------------------------


def test_an_epoch_has_every_row_once_and_the_last_step_may_be_smaller() -> None:
    rows = rows_of(*[(1, 1)] * 11)
    one = learner(rows, batch_size=2, accumulation=2, epochs=1)
    steps = list(one.steps())
    assert (one.steps_per_epoch, one.total, len(steps)) == (3, 3, 3)
    assert [len(micro_batches) for micro_batches in steps] == [2, 2, 2]
    dealt = [row for step in steps for micro_batch in step for row in micro_batch]
    assert sorted(dealt) == list(range(11))


def test_half_an_epoch_and_a_number_of_steps() -> None:
    rows = rows_of(*[(1, 1)] * 8)
    assert learner(rows, batch_size=2, epochs=0.5).total == 2
    assert learner(rows, batch_size=2, epochs=0.1).total == 1
    many = learner(rows, batch_size=2, max_steps=9)
    assert (many.total, len(list(many.steps()))) == (9, 9)


def test_no_padding_is_computed() -> None:
    rows = rows_of((2, 2), (30, 20), (2, 1))
    (work,) = learner(rows)._work(((0, 1, 2),))
    assert tuple(work.input_ids.shape) == (1, 57)
    assert work.lengths() == [4, 50, 3]


# -- measuring and stopping -------------------------------------------------------------------


def test_the_mean_loss_weighs_tokens_and_not_batches() -> None:
    model = tiny_model()
    batch = collate(ROWS, 0)
    with torch.inference_mode():
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = token_mean_loss(logits, batch.labels).item()
    result = learner(batch_size=1).mean_loss(ROWS)
    assert result is not None
    assert result[0] == pytest.approx(expected, rel=1e-6)
    assert result[1] == 26


def test_measuring_changes_nothing() -> None:
    one = learner()
    before = weights(one)
    one.mean_loss(ROWS)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(one), strict=True))
    assert all(parameter.grad is None for parameter in one.bare.parameters())


@pytest.mark.parametrize("asked_before", [0, 1, 2])
def test_a_stop_between_micro_batches_leaves_the_weights(asked_before: int) -> None:
    one = learner()
    before = weights(one)
    answers = iter([False] * asked_before + [True])
    assert one.optimise(((0,), (1,), (2,)), lambda: next(answers)) is None
    assert all(torch.equal(a, b) for a, b in zip(before, weights(one), strict=True))
    # What was begun is forgotten: the next step is as if it had never been.
    again = one.optimise(((0, 1),))
    fresh = learner().optimise(((0, 1),))
    assert again == fresh
    assert one.mean_loss(ROWS, lambda: True) is None


# -- what is not finite -----------------------------------------------------------------------


def poisoned() -> torch.nn.Module:
    """A model in which one token's embedding is broken: its row makes every loss NaN."""
    model = tiny_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[ROWS[2].ids[0]] = torch.nan
    return model


def test_a_loss_that_is_not_finite_never_reaches_the_weights() -> None:
    one = learner(model=poisoned(), learning_rate=2e-3)
    assert one.optimise(((0, 1),)) is not None
    before = weights(one)
    with pytest.raises(NonFiniteLossError, match=r"loss of step 2 became nan.*now 0\.002"):
        one.optimise(((2,),))
    after = weights(one)
    assert all(
        torch.equal(*map(torch.nan_to_num, pair)) for pair in zip(before, after, strict=True)
    )
    with pytest.raises(NonFiniteLossError, match="evaluation rows became nan after step 1"):
        one.mean_loss(ROWS)


def test_an_overflowing_gradient_never_reaches_the_weights() -> None:
    model = tiny_model()
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * math.inf)
    one = learner(model=model)
    before = weights(one)
    with pytest.raises(NonFiniteLossError, match="gradient of step 1 became"):
        one.optimise(((0, 1),))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(one), strict=True))


def test_weights_that_are_not_finite_are_found() -> None:
    assert learner().finite()
    broken = learner(model=poisoned())
    assert not broken.finite()
    with pytest.raises(NonFiniteLossError, match="no finite numbers"):
        broken.require_finite()


# -- several processes ------------------------------------------------------------------------

TOGETHER = """
import torch
torch.set_num_threads(1)
from tests.test_learner import learner
one = learner(batch_size=3, max_steps=3, max_grad_norm=1.0)
losses = [one.optimise(plan).loss for plan in one.steps()]
evaluated = one.mean_loss(one._rows)
if one.leads:
    print(*losses, *evaluated, float(sum(p.abs().sum() for p in one.bare.parameters())))
one.processes.wait()
one.accelerator.end_training()
"""


def together(processes: int) -> list[float]:
    """What ``TOGETHER`` prints under so many processes that train one model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        environment = dict(os.environ, PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU="true")
        if processes > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", TOGETHER],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=180)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return [float(number) for number in outputs[0].split()]


def test_two_processes_learn_exactly_what_one_does() -> None:
    alone, shared = together(1), together(2)
    assert len(alone) == 6
    assert shared == pytest.approx(alone, rel=1e-5)
