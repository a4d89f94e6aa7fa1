"""Perplexity of raw texts: how well a model predicts what no template has touched.

Measured before and after fine-tuning, on texts like those of pre-training, it says what the model
has forgotten. Texts are told apart as pre-training told them apart, each window is one row of a
batch, and the cross-entropy is that of ``loss.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from sft_core.batch import collate
from sft_core.events import Perplexity, PerplexityMeasured
from sft_core.generate import Ids, Voice
from sft_core.loss import head_on_targets, summed, target_mask, targets
from sft_core.models import arguments, pad_id, threads_for
from sft_core.pace import never
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, tokenize
from sft_core.types import IGNORE_INDEX, DataError, EncodeError, NonFiniteLossError

WINDOW: Final = 2048
"""Tokens of the longest window. A model may attend to many more, but time grows with the square,
and the figure would hardly change."""
POSITIONS: Final = 8192
"""Positions of a batch, padding included."""
LOGITS: Final = 2**26
"""Logits that are in memory at once, in float32: 256 MB."""
TEXTS: Final = 256
"""Texts that are tokenised at once."""
END_OF_TEXT: Final = "<|endoftext|>"


# -- texts become windows ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A row of a batch. ``labels`` are the ids of those tokens that are predicted here."""

    ids: Ids
    labels: Ids

    @property
    def kinds(self) -> Ids:
        """Raw text is of one kind."""
        return (0,) * len(self.ids)


@dataclass(frozen=True, slots=True)
class _Document:
    """A text's ids, and how many bytes those have that are predicted."""

    ids: Ids
    bytes: int


def separator(tokenizer: Tokenizer) -> int | None:
    """The id that stood before each document in pre-training; None where the tokenizer has none.

    That is BOS where the tokenizer's files put it in front of every text. Else it is
    ``<|endoftext|>`` where there is such a token: chat versions of models that were pre-trained
    with it (SmolLM2, Qwen) name their turn markers as BOS and EOS, and never read documents after
    those. Else it is BOS, or EOS.
    """
    if tokenizer.adds_bos:
        return tokenizer.bos_id
    candidates = (tokenizer.added.get(END_OF_TEXT), tokenizer.bos_id, tokenizer.eos_id)
    return next((id for id in candidates if id is not None), None)


def windows(ids: Sequence[int], before: int | None, size: int) -> Iterator[Window]:
    """Cuts a document's ``ids`` into windows of at most ``size`` tokens (at least 2), in which
    each of its tokens is predicted once.

    This is the strided evaluation of transformers' documentation ("Perplexity of fixed-length
    models"), with a stride of half a window: behind the first window, every token is predicted
    from at least ``size / 2`` tokens before it. Unlike there, each window begins with ``before``,
    since models that read BOS first in every training row predict badly without it; and the last
    window reaches back as far as there is room. Where ``before`` is None, nothing predicts the
    document's first token. No window comes of a document without a token to predict.

    The ids 5 6 7 8 9 behind 1, with a size of 4:  1 5 6 7   1 6 7 8   1 7 8 9
                                      predicted:     5 6 7         8         9
    """
    head = () if before is None else (before,)
    room = size - len(head)
    fresh = max(1, room - (size + 1) // 2)
    done = 1 - len(head)
    while done < len(ids):
        end = min(len(ids), done + fresh if done >= room else room)
        start = max(0, end - room)
        unpredicted = (IGNORE_INDEX,) * (len(head) + done - start)
        yield Window((*head, *ids[start:end]), (*unpredicted, *ids[done:end]))
        done = end


def _documents(
    texts: Sequence[str], first: int, tokenizer: Tokenizer, all_predicted: bool
) -> Iterator[_Document]:
    """The texts tokenised as plain text: a special token that is spelled in one is not one.
    ``first`` is the number of the first of them. Raises EncodeError."""
    cuts = [Cut(text, (), ((0, len(text)),)) for text in texts]
    for number, (text, pieces) in enumerate(
        zip(texts, tokenize(tokenizer, cuts), strict=True), first
    ):
        if isinstance(pieces, EncodeError):
            raise EncodeError(f"Text {number}: {pieces}")
        first_too = all_predicted or not pieces.ids
        left_out = 0 if first_too else _first_bytes(text, pieces, tokenizer)
        yield _Document(tuple(pieces.ids), len(text.encode()) - left_out)


def _first_bytes(text: str, pieces: Pieces, tokenizer: Tokenizer) -> int:
    """How many bytes of ``text`` its first token stands for, which may be a part of a character,
    or have a space in front that the text has not."""
    covered = len(text[: pieces.offsets[0][1]].encode())
    spelled = tokenizer.id_to_bytes(pieces.ids[0])
    return covered if spelled is None else min(covered, len(spelled))


# -- windows become a figure ------------------------------------------------------------------


def measure(
    voice: Voice,
    texts: Sequence[str],
    should_stop: Callable[[], bool] = never,
    positions: int = POSITIONS,
    *,
    ends: bool = False,
) -> Iterator[PerplexityMeasured]:
    """Yields one figure for all ``texts``, each a document of its own; nothing where it was
    stopped, since a part of the texts is no figure for the whole. ``positions`` bounds a batch
    and changes nothing else. With ``ends``, the separator after each text is predicted and counted
    as well, so that the figure holds all that there is to know about a text, its length included.

    Where the tokenizer has no document separator, the first token of each text is not counted,
    nor are its bytes. Texts without a token that is counted are no documents. Raises EncodeError
    where the tokenizer cannot write a text, DataError where there is nothing to predict, and
    NonFiniteLossError.
    """
    before = separator(voice.tokenizer)
    nats, tokens, size, count = 0.0, 0, 0, 0
    with threads_for(voice.model):
        for first in range(0, len(texts), TEXTS):
            some = texts[first : first + TEXTS]
            rows: list[Window] = []
            for document in _documents(some, first + 1, voice.tokenizer, before is not None):
                after = () if before is None or not ends else (before,)
                ids = (*document.ids, *after)
                cut = tuple(windows(ids, before, min(voice.context, WINDOW)))
                rows += cut
                size += document.bytes if cut else 0
                count += bool(cut)
            for batch in _batches(rows, positions):
                if should_stop():
                    return
                found = _nats(voice, batch)
                nats, tokens = nats + found[0], tokens + found[1]
    if not tokens:
        raise DataError(
            "No text holds a token that could be predicted. Bring texts of at least two words."
        )
    yield PerplexityMeasured(side=voice.side, perplexity=Perplexity(nats, tokens, size, count))


def _batches(rows: Sequence[Window], positions: int) -> Iterator[Sequence[Window]]:
    """Rows of like length together, the longest first; a batch is one row, or at most
    ``positions`` long times wide."""
    order = sorted(rows, key=lambda row: -len(row.ids))
    at = 0
    while at < len(order):
        count = max(1, positions // len(order[at].ids))
        yield order[at : at + count]
        at += count


@torch.inference_mode()
def _nats(voice: Voice, rows: Sequence[Window]) -> tuple[float, int]:
    """The summed cross-entropy of the predicted tokens of ``rows``, and their number."""
    model: Any = voice.model.eval()
    head = model.get_output_embeddings()
    batch = collate(rows, pad_id(voice.tokenizer)).to(model.device)
    nats, tokens = 0.0, 0
    for labels in _portions(batch.labels, max(1, LOGITS // head.weight.shape[0])):
        with head_on_targets(head, labels):
            out = model(
                **arguments(
                    model,
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    position_ids=batch.position_ids,
                    use_cache=False,
                )
            )
        ids = targets(labels)
        nats += float(summed(out.logits[0], ids))
        tokens += len(ids)
    if not nats < float("inf"):
        raise NonFiniteLossError(
            f"The {voice.side} model's loss on these texts is {nats}, so its weights are spoilt. "
            "Train again with a lower learning_rate."
        )
    return nats, tokens


def _portions(labels: Tensor, most: int) -> Iterator[Tensor]:
    """``labels`` (B, T) again and again, each time with the next ``most`` of its targets alone.
    Only where the vocabulary is large is one time not enough; the model then reads a batch
    several times, which is slow and exact whatever it does to its logits."""
    wanted = labels != IGNORE_INDEX
    number = wanted.flatten().cumsum(0).view_as(labels) - 1
    for start in range(0, int(target_mask(labels).sum()), most):
        yield labels.where((number >= start) & (number < start + most), IGNORE_INDEX)
