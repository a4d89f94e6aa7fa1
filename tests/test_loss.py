"""The shift, the sum and the count: figures that can be checked by hand or by torch itself."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sft_core.batch import collate
from sft_core.loss import (
    count_targets,
    cross_entropy_sum,
    head_on_targets,
    per_token_loss,
    shift,
    summed,
    target_mask,
    targets,
    token_mean_loss,
)
from sft_core.types import IGNORE_INDEX, NothingTrainedError
from tests.tensors import Row, rows_of, tiny_model

# The worked example of a tutorial: after "The", "The cat" and "The cat sat", six words to choose
# from. Its table says 0.337; its own logits say otherwise.
TUTORIAL = torch.tensor(
    [
        [
            [0.1, 0.2, 2.0, 0.5, 0.3, 0.1],
            [0.1, 0.1, 0.2, 2.5, 0.4, 0.2],
            [0.2, 0.1, 0.1, 0.3, 3.0, 0.5],
        ]
    ]
)


def tutorial_at_own_index() -> tuple[Tensor, Tensor]:
    """The example with labels where their tokens stand: The cat sat on, "The" predicted by
    nothing, and the logits after "on", which predict nothing in it."""
    after_on = torch.zeros(1, 1, 6)
    return torch.cat([TUTORIAL, after_on], dim=1), torch.tensor([[IGNORE_INDEX, 2, 3, 4]])


def test_the_tutorials_logits_give_0_437() -> None:
    loss = token_mean_loss(*tutorial_at_own_index())
    assert loss.item() == pytest.approx(0.437, abs=5e-4)


def test_the_tutorials_single_losses() -> None:
    losses = per_token_loss(*tutorial_at_own_index())[0].tolist()
    assert math.isnan(losses[0])
    assert losses[1:] == pytest.approx([0.626, 0.408, 0.278], abs=5e-4)
    assert [math.exp(-loss) for loss in losses[1:]] == pytest.approx(
        [0.535, 0.665, 0.757], abs=5e-4
    )


def test_shift_lines_predictions_up_with_what_they_predict() -> None:
    logits = torch.arange(12.0).reshape(1, 4, 3)
    labels = torch.tensor([[10, 11, 12, 13]])
    predicted, following = shift(logits, labels)
    assert torch.equal(predicted, logits[:, :3])
    assert following.tolist() == [[11, 12, 13]]


def test_masks_targets_and_count_agree() -> None:
    labels = torch.tensor([[-100, 5, -100, 6], [-100, -100, 7, -100]])
    assert target_mask(labels).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
    ]
    assert targets(labels).tolist() == [5, 6, 7]
    assert count_targets(labels) == 3


def test_sum_over_count_is_torchs_mean() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[:, :3] = IGNORE_INDEX
    total, count = cross_entropy_sum(logits, labels)
    expected = F.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
    assert count == 12
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.nansum(per_token_loss(logits, labels)).item() == pytest.approx(total.item())


def test_labels_beside_the_last_prediction_and_the_first_token_change_nothing() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 5, 4)
    labels = torch.tensor([[-100, 1, 2, 3, 0]])
    before = token_mean_loss(logits, labels)
    logits[:, -1] += 100
    labels[:, 0] = 3
    assert torch.equal(token_mean_loss(logits, labels), before)


def test_a_batch_without_targets_is_an_error_and_not_a_nan() -> None:
    labels = torch.full((2, 3), IGNORE_INDEX)
    assert cross_entropy_sum(torch.randn(2, 3, 5), labels)[1] == 0
    with pytest.raises(NothingTrainedError, match="No token of this batch is trained"):
        token_mean_loss(torch.randn(2, 3, 5), labels)


def test_half_precision_logits_are_graded_in_single_precision() -> None:
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 6, 50).bfloat16(), torch.randint(0, 50, (2, 6))
    total, _ = cross_entropy_sum(logits, labels)
    assert total.dtype is torch.float32
    assert torch.equal(total, cross_entropy_sum(logits.float(), labels)[0])


# -- on a model -------------------------------------------------------------------------------


def test_prompt_only_positions_get_a_gradient_of_exactly_zero() -> None:
    model = tiny_model()
    batch = collate(rows_of((4, 3), (2, 6)), pad_id=0)
    logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    logits.retain_grad()
    token_mean_loss(logits, batch.labels).backward()
    graded = target_mask(batch.labels)
    assert torch.count_nonzero(logits.grad[~graded]) == 0
    assert bool((logits.grad[graded].abs().sum(dim=-1) > 0).all())
    # The last prompt token predicts the first answer token, so it is graded; all before are not.
    assert graded[0].tolist() == [False, False, False, True, True, True, False, False]


def test_it_is_what_hugging_face_computes_from_the_same_labels() -> None:
    model = tiny_model()
    batch = collate(rows_of((4, 3), (2, 6), (1, 1)), pad_id=0)
    theirs = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    assert token_mean_loss(logits, batch.labels).item() == pytest.approx(theirs.item(), rel=1e-6)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def loss_and_gradients(
    model: PreTrainedModel, rows: list[Row], length: int | None = None
) -> tuple[float, dict[str, Tensor]]:
    batch = collate(rows, pad_id=0, length=length)
    logits = model(
        batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
    ).logits
    loss = token_mean_loss(logits, batch.labels)
    loss.backward()
    return loss.item(), gradients(model)


def test_twice_the_padding_changes_neither_loss_nor_gradients() -> None:
    model = tiny_model()
    rows = rows_of((5, 4), (3, 9), (7, 2))
    loss, exact = loss_and_gradients(model, rows)
    padded_loss, padded = loss_and_gradients(model, rows, length=24)
    assert padded_loss == pytest.approx(loss, rel=1e-6)
    assert all(torch.allclose(exact[name], padded[name], atol=1e-6, rtol=0) for name in exact)


def test_what_padding_changes_is_rounding_alone() -> None:
    """In double precision nothing is left of the difference, so it was none of the mask's."""
    model = tiny_model().double()
    rows = rows_of((5, 4), (3, 9), (7, 2))
    _, exact = loss_and_gradients(model, rows)
    _, padded = loss_and_gradients(model, rows, length=24)
    # The loss itself is computed in single precision, which leaves 1e-7 of its gradients.
    assert all(torch.allclose(exact[name], padded[name], atol=2e-7, rtol=0) for name in exact)


@pytest.mark.parametrize(
    "extra",
    [{}, {"tie_word_embeddings": False}],
    ids=["tied", "untied"],
)
def test_the_head_on_targets_alone_gives_the_same_loss_and_gradients(
    extra: dict[str, bool],
) -> None:
    model = tiny_model(**extra)
    rows = rows_of((5, 4), (3, 9), (7, 2))
    loss, whole = loss_and_gradients(model, rows)
    batch = collate(rows, pad_id=0)
    with head_on_targets(model.get_output_embeddings(), batch.labels):
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    assert logits.shape == (1, 15, model.config.vocab_size)
    ids = targets(batch.labels)
    narrow_loss = summed(logits[0], ids) / len(ids)
    narrow_loss.backward()
    narrow = gradients(model)
    assert narrow_loss.item() == pytest.approx(loss, abs=1e-6)
    assert all(torch.allclose(whole[name], narrow[name], atol=1e-6, rtol=0) for name in whole)


def test_the_head_is_whole_again_afterwards_even_after_an_error() -> None:
    model = tiny_model()
    labels = torch.tensor([[-100, 1, 2]])
    with (
        pytest.raises(RuntimeError, match="meanwhile"),
        head_on_targets(model.get_output_embeddings(), labels),
    ):
        raise RuntimeError("meanwhile")
    assert model(torch.tensor([[0, 1, 2]])).logits.shape[1] == 3


def test_a_capped_head_stays_capped() -> None:
    """Gemma caps its logits after the projection; narrowing the input must not skip that."""
    from transformers import Gemma2Config

    config = Gemma2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.05,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    batch = collate(rows_of((4, 3), (2, 2)), pad_id=0)
    whole = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    with head_on_targets(model.get_output_embeddings(), batch.labels):
        narrow = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    assert float(whole.detach().abs().max()) <= 0.05
    assert torch.allclose(narrow[0], whole[target_mask(batch.labels)], atol=1e-6)


def test_accumulated_micro_batches_of_unequal_length_give_the_whole_batchs_gradients() -> None:
    model = tiny_model()
    rows = rows_of((5, 4), (3, 19), (7, 2), (1, 1))
    _, whole = loss_and_gradients(model, rows)
    count = sum(count_targets(collate([row], 0).labels) for row in rows)
    for parts in (1, 2, 4):
        size = len(rows) // parts
        for start in range(0, len(rows), size):
            batch = collate(rows[start : start + size], pad_id=0)
            logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
            total, _ = cross_entropy_sum(logits, batch.labels)
            (total / count).backward()
        summed_up = gradients(model)
        assert all(torch.allclose(whole[n], summed_up[n], atol=1e-5, rtol=0) for n in whole)


def test_a_mean_of_means_would_not() -> None:
    """The mistake that the sum and the count are there for, so that the test above can fail."""
    model = tiny_model()
    rows = rows_of((3, 19), (1, 1))
    _, whole = loss_and_gradients(model, rows)
    for row in rows:
        batch = collate([row], pad_id=0)
        (token_mean_loss(model(batch.input_ids).logits, batch.labels) / 2).backward()
    mean_of_means = gradients(model)
    assert not all(torch.allclose(whole[n], mean_of_means[n], atol=1e-5, rtol=0) for n in whole)
