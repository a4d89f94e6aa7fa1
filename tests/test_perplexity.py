"""Perplexity of raw text: equal to the plain loop, whatever is batched, cut or padded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from sft_core import perplexity
from sft_core.events import Perplexity, PerplexityMeasured, Side
from sft_core.generate import Voice
from sft_core.perplexity import measure, separator, windows
from sft_core.tokenizer import Tokenizer, load_tokenizer
from sft_core.types import IGNORE_INDEX, DataError, EncodeError, NonFiniteLossError
from tests.tensors import tiny_model

END = 259
CONTEXT = 64
TEXTS = (
    "Lima is the capital of Peru.",
    "",
    "Ein Schaf hat Lämmer. 👋🏽",
    "What is two and two? What is three and three? " * 6,
    "a",
    "x" * (CONTEXT - 1),
    "y" * CONTEXT,
)


def bytes_with(**special: str) -> Tokenizer:
    return Tokenizer("bytes", load_tokenizer("bytes").with_tokens([]).backend, special)


ENDED = bytes_with(eos_token="<END>", pad_token="<END>")
"""Filled up with the very token that stands before a document."""


def llama() -> PreTrainedModel:
    return tiny_model(vocab_size=260, max_position_embeddings=CONTEXT)


def gpt2() -> PreTrainedModel:
    """Absolute positions, which only exist as far as the context goes."""
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(
        GPT2Config(
            vocab_size=260,
            n_positions=CONTEXT,
            n_embd=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()


def voice(model: PreTrainedModel | None = None, tokenizer: Tokenizer = ENDED) -> Voice:
    return Voice(Side.TUNED, model or llama(), tokenizer, CONTEXT)


def measured(speaker: Voice, texts: Sequence[str], positions: int = 8192) -> Perplexity:
    (event,) = measure(speaker, texts, positions=positions)
    assert event.side is Side.TUNED
    return event.perplexity


def plain(model: PreTrainedModel, texts: Sequence[str]) -> tuple[float, int]:
    """The same by hand: one document after the other, 32 new tokens at a time, no batch."""
    nats, tokens = 0.0, 0
    for text in texts:
        ids = list(text.encode())
        done = 0
        while done < len(ids):
            end = min(len(ids), done + (CONTEXT // 2 - 1 if done else CONTEXT - 1))
            row = [END, *ids[max(0, end - CONTEXT + 1) : end]]
            with torch.no_grad():
                logits = model(torch.tensor([row])).logits[0]
            new = end - done
            expected = torch.tensor(row[-new:])
            nats += F.cross_entropy(
                logits[-new - 1 : -1].double(), expected, reduction="sum"
            ).item()
            tokens += new
            done = end
    return nats, tokens


# -- windows ----------------------------------------------------------------------------------


def predicted(ids: Sequence[int], before: int | None, size: int) -> Iterator[tuple[int, int]]:
    """(id, how many of the document's tokens stand before it in its window), as they come."""
    for window in windows(ids, before, size):
        assert 2 <= len(window.ids) <= size
        assert len(window.labels) == len(window.ids)
        assert window.labels[0] == IGNORE_INDEX
        assert before is None or window.ids[0] == before
        own = 0 if before is None else 1
        for at, label in enumerate(window.labels):
            if label != IGNORE_INDEX:
                assert label == window.ids[at]
                yield label, at - own


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("before", [None, 999])
def test_every_token_is_predicted_once_from_half_a_window(before: int | None, size: int) -> None:
    room = size - (before is not None)
    for length in range(4 * size):
        found = list(predicted(range(length), before, size))
        first = 1 if before is None else 0
        assert [id for id, _ in found] == list(range(first, length))
        for id, context in found:
            assert context >= min(id, size // 2, room - 1)


def test_windows_are_the_ones_that_the_docstring_draws() -> None:
    found = [(window.ids, window.labels) for window in windows((5, 6, 7, 8, 9), 1, 4)]
    no = IGNORE_INDEX
    assert found == [
        ((1, 5, 6, 7), (no, 5, 6, 7)),
        ((1, 6, 7, 8), (no, no, no, 8)),
        ((1, 7, 8, 9), (no, no, no, 9)),
    ]


def test_a_window_follows_its_document_without_a_gap() -> None:
    for window in windows(range(100), None, 16):
        assert window.ids == tuple(range(window.ids[0], window.ids[0] + len(window.ids)))


# -- what stands before a document ------------------------------------------------------------


def test_documents_are_told_apart_as_pre_training_did() -> None:
    assert separator(load_tokenizer("bytes")) == END
    assert separator(bytes_with()) is None
    assert separator(bytes_with(bos_token="<INST>", eos_token="<END>")) == 256


def test_turn_markers_that_a_chat_version_calls_bos_are_passed_over() -> None:
    chat = bytes_with(bos_token="<INST>", eos_token="<END>").with_tokens(["<|endoftext|>"])
    assert separator(chat) == chat.token_to_id("<|endoftext|>") == 260


def test_a_bos_that_the_files_put_before_every_text_goes_first() -> None:
    backend = load_tokenizer("bytes").with_tokens(["<|endoftext|>"]).backend
    backend.post_processor = TemplateProcessing("<INST> $A", special_tokens=[("<INST>", 256)])
    assert separator(Tokenizer("bytes", backend, {"bos_token": "<INST>"})) == 256


# -- the figure -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [llama, gpt2])
def test_it_is_what_the_plain_loop_finds(make: type[PreTrainedModel]) -> None:
    model = make()
    found = measured(voice(model), TEXTS)
    nats, tokens = plain(model, TEXTS)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.tokens == found.bytes == tokens == sum(len(text.encode()) for text in TEXTS)
    assert found.documents == 6, "an empty text is none"
    assert found.loss == pytest.approx(nats / tokens, rel=1e-5)


def test_with_ends_the_separator_after_each_text_counts_too() -> None:
    model = llama()
    texts = [text for text in TEXTS if len(text.encode()) < CONTEXT - 1]
    (event,) = measure(voice(model), texts, ends=True)
    nats, tokens = 0.0, 0
    for text in texts:
        row = torch.tensor([[END, *text.encode(), END]])
        with torch.no_grad():
            logits = model(row).logits[0, :-1]
        nats += F.cross_entropy(logits, row[0, 1:], reduction="sum").item()
        tokens += row.shape[1] - 1
    assert event.perplexity.nats == pytest.approx(nats, rel=1e-5)
    assert event.perplexity.tokens == tokens
    assert event.perplexity.bytes == sum(len(text.encode()) for text in texts)
    assert event.perplexity.documents == len(texts), "an empty text is one: its end is told"


@pytest.mark.parametrize("positions", [1, 70, 200])
def test_the_size_of_a_batch_changes_nothing(positions: int) -> None:
    found, whole = measured(voice(), TEXTS, positions), measured(voice(), TEXTS)
    assert found.nats == pytest.approx(whole.nats, rel=1e-5)
    assert (found.tokens, found.bytes) == (whole.tokens, whole.bytes)


def test_texts_that_are_tokenised_in_turns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(voice(), TEXTS)
    monkeypatch.setattr(perplexity, "TEXTS", 2)
    assert measured(voice(), TEXTS).nats == pytest.approx(whole.nats, rel=1e-5)


def test_no_more_logits_than_allowed_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = voice()
    whole = measured(speaker, TEXTS)
    seen: list[int] = []
    hook = speaker.model.get_output_embeddings().register_forward_hook(
        lambda head, inputs, output: seen.append(output.shape[:-1].numel())
    )
    monkeypatch.setattr(perplexity, "LOGITS", 260 * 50)
    found = measured(speaker, TEXTS)
    hook.remove()
    assert max(seen) == 50
    assert sum(seen) == found.tokens == whole.tokens
    assert found.nats == pytest.approx(whole.nats, rel=1e-5)


def test_a_special_token_that_a_text_spells_is_text() -> None:
    found = measured(voice(), ["a<END>b"])
    assert (found.tokens, found.bytes) == (7, 7)


def test_without_a_separator_first_tokens_are_not_counted() -> None:
    speaker = voice(tokenizer=bytes_with())
    found = measured(speaker, ["abc", "d", "👋"])
    assert (found.tokens, found.bytes, found.documents) == (2 + 3, 2 + 3, 2)
    with torch.no_grad():
        logits = speaker.model(torch.tensor([list(b"abc")])).logits[0]
    alone = F.cross_entropy(logits[:-1], torch.tensor(list(b"bc")), reduction="sum")
    assert measured(speaker, ["abc"]).nats == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("texts", [(), ("", "")])
def test_nothing_to_predict_is_one_sentence(texts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="could be predicted"):
        list(measure(voice(), texts))


def test_a_text_that_cannot_be_written_is_named() -> None:
    with pytest.raises(EncodeError, match="Text 2: The text holds half a character"):
        list(measure(voice(), ["fine", "\ud83d"]))


def test_a_stop_half_way_gives_no_figure() -> None:
    asked = iter((False, True))
    found: list[PerplexityMeasured] = list(measure(voice(), TEXTS, lambda: next(asked), 1))
    assert found == []
    assert next(asked, None) is None, "it was asked again after the first batch"


def test_spoilt_weights_are_one_sentence() -> None:
    model = llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="tuned model's loss"):
        list(measure(voice(model), ["abc"]))
