"""One pass of a batch: the same losses and gradients whichever way a model can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from sft_core.batch import Batch, collate
from sft_core.forward import Forward
from sft_core.loss import cross_entropy_sum
from tests.tensors import rows_of, tiny_model

ROWS = rows_of((5, 4), (3, 19), (7, 2), (1, 1))


def gpt2() -> Any:
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(shape)


MODELS = {"llama": tiny_model, "gpt2": gpt2}


def batches(forward: Forward, rows: Sequence[Any]) -> list[Batch]:
    """A micro-batch as it is computed."""
    lengths = [len(row.ids) for row in rows]
    cut = forward.cut(lengths, range(len(rows)))
    return [forward.lay([rows[at] for at in part]) for part in cut]


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_every_way_gives_the_padded_batch_s_gradients_to_1e_5(
    name: str, flat: bool, fused: bool
) -> None:
    """Packing's promise: gradients equal padding's."""
    padded = MODELS[name]()
    batch = collate(ROWS, 0)
    logits = padded(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    total, count = cross_entropy_sum(logits, batch.labels)
    (total / count).backward()
    model = MODELS[name]()
    forward = Forward(model, "fp32", 0)
    assert forward.flat
    assert forward.fused
    forward.flat, forward.fused = flat, fused
    losses = 0.0
    for part in batches(forward, ROWS):
        with forward.attending(part):
            found = forward(model, part, 1 / count)
            found.total.backward()
        losses += float(found.each.sum())
    assert losses == pytest.approx(total.item(), rel=1e-5)
    expected = gradients(padded)
    for key, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[key], atol=1e-5, rtol=0), key


def test_rows_lie_end_to_end_where_the_model_can_and_in_pieces_of_like_length_where_not() -> None:
    forward = Forward(tiny_model(), "fp32", 0)
    assert [tuple(b.input_ids.shape) for b in batches(forward, ROWS)] == [(1, 42)]
    forward.flat = False
    forward._worth = 4
    shapes = [tuple(b.input_ids.shape) for b in batches(forward, ROWS)]
    assert sum(rows for rows, _ in shapes) == len(ROWS)
    assert len(shapes) > 1


def test_checkpointed_layers_keep_to_their_documents_when_computed_again() -> None:
    plain, saving = tiny_model(), tiny_model()
    saving.activation_checkpointing_enable({"use_reentrant": False})
    for model in (plain, saving):
        model.train()
        forward = Forward(model, "fp32", 0)
        (part,) = batches(forward, ROWS)
        with forward.attending(part):
            forward(model, part).total.backward()
    expected = gradients(plain)
    for key, gradient in gradients(saving).items():
        assert torch.allclose(gradient, expected[key], atol=1e-6), key


def test_bf16_stays_near() -> None:
    single, half = tiny_model(), tiny_model()
    found = []
    for model, precision in ((single, "fp32"), (half, "bf16")):
        forward = Forward(model, precision, 0)
        (part,) = batches(forward, ROWS)
        with forward.attending(part):
            found.append(forward(model, part).total.item())
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[1] != found[0]
