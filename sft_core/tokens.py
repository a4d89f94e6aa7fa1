"""Tokens with the reason why each is trained or not, and the labels that follow from it.

A conversation has hundreds of tokens and a handful of reasons, so what is kept is runs: so many
tokens in a row, why, and whose. What stands beside each single token is derived when it is read.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError
from enum import StrEnum
from functools import cached_property
from itertools import groupby, islice
from typing import Any, Final, NamedTuple, NoReturn

IGNORE_INDEX: Final = -100
"""The label of a token that no loss is computed for (``ignore_index`` of torch's cross-entropy)."""

NO_MESSAGE: Final = -1
"""Stands in ``Encoded.owners`` for a token that belongs to no message."""

Range = tuple[int, int]


class Kind(StrEnum):
    """What a trained token is, for figures that tell tokens apart. Numbered by ``KINDS``."""

    ANSWER = "answer"  # what the assistant says
    TEMPLATE = "template"  # what the template prints behind an answer: the end of turn
    PROMPT = "prompt"  # all around the answers, trained by the policy "all": texts and markup


KINDS: Final = tuple(Kind)
"""A kind's number is its place here: answer 0, template 1, prompt 2."""


class Reason(StrEnum):
    """Why a token is trained, or why it is not. Labels follow from this and nothing else."""

    ANSWER = "answer"
    END_OF_TURN = "end_of_turn"
    WHOLE_TEXT = "whole_text"  # not an answer, trained because the policy trains everything
    PROMPT = "prompt"
    MARKUP = "markup"
    EARLIER_TURN = "earlier_turn"
    EXCLUDED = "excluded"  # by a message's weight
    END_NOT_TRAINED = "end_not_trained"  # an end of turn that the policy leaves out
    UNTAGGED = "untagged"  # an answer that the author's generation tags leave out
    PADDING = "padding"
    FIRST_TOKEN = "first_token"

    @property
    def trained(self) -> bool:
        return self in _TRAINED

    @property
    def kind(self) -> Kind:
        """Of a trained token; of others it means nothing."""
        return _KINDS.get(self, Kind.ANSWER)

    @property
    def sentence(self) -> str:
        """The reason in words, for a person who looks at one token."""
        return _SENTENCES[self]


# A tuple: what is in it is found by identity, without the hash that Enum computes in Python.
_TRAINED: Final = (Reason.ANSWER, Reason.END_OF_TURN, Reason.WHOLE_TEXT)
_KINDS: Final[Mapping[Reason, Kind]] = {
    Reason.END_OF_TURN: Kind.TEMPLATE,
    Reason.WHOLE_TEXT: Kind.PROMPT,
}
_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.ANSWER: "Trained: it is part of an answer that the model should learn to give.",
    Reason.END_OF_TURN: "Trained: it ends the answer, so this is how the model learns to stop.",
    Reason.WHOLE_TEXT: "Trained only because the policy trains everything.",
    Reason.PROMPT: "Masked: somebody else says it; the model reads it but is not graded on it.",
    Reason.MARKUP: "Masked: the template prints it, and so it will be there at generation too.",
    Reason.EARLIER_TURN: "Masked: it is an earlier answer, and the policy trains the last one.",
    Reason.EXCLUDED: "Masked: this message has weight 0 in the data.",
    Reason.END_NOT_TRAINED: "Masked: the policy leaves ends of turn out, so the model will not "
    "learn to stop here.",
    Reason.UNTAGGED: "Masked: the policy trains what the template's generation tags enclose, and "
    "they leave this out.",
    Reason.PADDING: "Masked: it only fills the batch up.",
    Reason.FIRST_TOKEN: "Masked: nothing stands before it, so nothing can predict it.",
}


class Token(NamedTuple):
    """One token: id, the characters ``text[start:end]`` that it stands for, why, and whose."""

    id: int
    start: int
    end: int
    reason: Reason
    owner: int

    @property
    def label(self) -> int:
        return self.id if self.reason.trained else IGNORE_INDEX


class Run(NamedTuple):
    """``length`` tokens in a row that have one reason and one owner."""

    length: int
    reason: Reason
    owner: int


_IGNORED: Final = array("i", [IGNORE_INDEX])


def _trained(runs: Sequence[Run]) -> int:
    return sum([length for length, reason, _ in runs if reason.trained])


class Encoded:
    """An example as tokens. ``ids``, ``offsets``, ``reasons`` and ``owners`` run in parallel.

    ``offsets[i]`` is the half-open range of characters of the rendered text; ``owners[i]`` the
    message index or ``NO_MESSAGE``. ``dropped`` are the tokens beyond the length limit, which
    no model sees. ``forged`` are positions in ``ids`` whose text spells a special token inside
    a message's content and was therefore encoded as plain text.

    It is a value: it cannot be changed, and it equals another one with the same columns. Columns
    are worked out from runs when they are first read, and then kept, so it has no slots.
    """

    _all_ids: Sequence[int]  # the kept tokens and then the dropped ones, as in the next two
    _runs: Sequence[Run]
    _places: Callable[[], Sequence[Range]]
    _kept: int
    forged: tuple[int, ...]

    def __init__(
        self,
        ids: Sequence[int],
        offsets: Sequence[Range],
        reasons: Sequence[Reason],
        owners: Sequence[int],
        dropped: Sequence[Token] = (),
        forged: Sequence[int] = (),
    ) -> None:
        if not len(ids) == len(offsets) == len(reasons) == len(owners):
            raise ValueError("ids, offsets, reasons and owners must have the same length")
        why = [*zip(reasons, owners, strict=True), *(token[3:] for token in dropped)]
        places = [*offsets, *(token[1:3] for token in dropped)]
        self.__dict__.update(
            _all_ids=[*ids, *(token.id for token in dropped)],
            _runs=[Run(len(list(same)), *key) for key, same in groupby(why)],
            _places=lambda: places,
            _kept=len(ids),
            forged=tuple(forged),
        )

    @classmethod
    def of_runs(
        cls,
        ids: Sequence[int],
        runs: Sequence[Run],
        places: Callable[[], Sequence[Range]],
        max_length: int | None = None,
        forged: tuple[int, ...] = (),
    ) -> Encoded:
        """From the ids of all tokens, the ``runs`` that they fall into, and what gives the
        offsets of all of them, should anybody ask. The first ``max_length`` are kept."""
        made = cls.__new__(cls)
        kept = len(ids) if max_length is None else min(max_length, len(ids))
        made.__dict__.update(_all_ids=ids, _runs=runs, _places=places, _kept=kept, forged=forged)
        return made

    # -- a value ------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _columns(self) -> tuple[Any, ...]:
        return self.ids, self.offsets, self.reasons, self.owners, self.dropped, self.forged

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoded) and self._columns() == other._columns()

    def __hash__(self) -> int:
        return hash(self._columns())

    def __reduce__(self) -> tuple[Any, ...]:
        return Encoded, self._columns()

    def __repr__(self) -> str:
        names = ("ids", "offsets", "reasons", "owners", "dropped", "forged")
        pairs = zip(names, self._columns(), strict=True)
        return f"Encoded({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __len__(self) -> int:
        return self._kept

    # -- its columns --------------------------------------------------------------------------

    @cached_property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._all_ids[: self._kept])

    @cached_property
    def offsets(self) -> tuple[Range, ...]:
        return tuple(self._places()[: self._kept])

    @cached_property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(reason for length, reason, _ in self._kept_runs() for _ in range(length))

    @cached_property
    def owners(self) -> tuple[int, ...]:
        return tuple(owner for length, _, owner in self._kept_runs() for _ in range(length))

    @cached_property
    def dropped(self) -> tuple[Token, ...]:
        if self._kept == len(self._all_ids):
            return ()
        why = [run[1:] for run in self._runs for _ in range(run.length)]
        rows = zip(self._all_ids, self._places(), why, strict=True)
        return tuple(
            Token(id, start, end, *reason)
            for id, (start, end), reason in islice(rows, self._kept, None)
        )

    @property
    def labels(self) -> tuple[int, ...]:
        """Ids where trained, ``IGNORE_INDEX`` elsewhere, each at the index of its own token."""
        return tuple(self.arrays()[1])

    def arrays(self) -> tuple[array[int], array[int]]:
        """The ids and the labels, four bytes a token."""
        ids = array("i", self._all_ids)
        if self._kept < len(ids):
            ids = ids[: self._kept]
        labels = ids[:0]
        at = 0
        for length, reason, _ in self._kept_runs():
            labels += ids[at : at + length] if reason.trained else _IGNORED * length
            at += length
        return ids, labels

    @property
    def kinds(self) -> array[int]:
        """The number of each kept token's kind (its place in ``KINDS``), one byte a token. It
        counts where a token is trained, and is 0 elsewhere."""
        kinds = array("B")
        for length, reason, _ in self._kept_runs():
            kinds += array("B", (KINDS.index(reason.kind) if reason.trained else 0,)) * length
        return kinds

    @cached_property
    def trained(self) -> int:
        """How many tokens are trained."""
        return _trained(self._kept_runs())

    @property
    def runs(self) -> Sequence[Run]:
        """All tokens in order, the dropped ones too, as runs."""
        return self._runs

    @property
    def beyond(self) -> tuple[int, int]:
        """How many tokens are dropped, and how many of those would be trained."""
        if self._kept == len(self._all_ids):
            return 0, 0
        return len(self._all_ids) - self._kept, _trained(self._runs) - self.trained

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The kept tokens, one value each."""
        return tuple(
            Token(id, start, end, reason, owner)
            for id, (start, end), reason, owner in zip(
                self.ids, self.offsets, self.reasons, self.owners, strict=True
            )
        )

    def _kept_runs(self) -> Sequence[Run]:
        """The runs of the kept tokens."""
        if self._kept == len(self._all_ids):
            return self._runs
        left, runs = self._kept, []
        for run in self._runs:
            if left <= 0:
                break
            runs.append(run if run.length <= left else run._replace(length=left))
            left -= run.length
        return runs
