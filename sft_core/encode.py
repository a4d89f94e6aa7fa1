"""Rendered text + tokenizer + policy -> ids, each with the reason why it is trained or not.

``encode`` and ``encode_prompt`` tokenise by one rule: the text is cut where each answer starts,
and the parts are tokenised apart. So the ids before an answer in training are the ids that
generation sends, whatever the tokenizer would have merged across the cut. (They can therefore
differ from those of ``apply_chat_template``, which tokenises the whole text at once.)

Which reason a token gets that reaches over the border of two spans: the first of answer, end of
turn, excluded, end not trained, whole text that it touches; else that of the span it starts in. So
a token that holds the end of an answer and something behind it is trained. Added tokens, which may
have eaten whitespace around them, count as standing where their first visible character is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Final, NamedTuple

from sft_core import sandbox, templates
from sft_core.ahead import map_ahead
from sft_core.config import MaskPolicy
from sft_core.layout import Laid
from sft_core.reasons import Stretch
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, Range, assembled, encoded, tokenize
from sft_core.types import (
    Encoded,
    EncodeError,
    Example,
    LabError,
    Message,
    NothingTrainedError,
    Reason,
    Rendered,
    Run,
    Template,
    TemplateError,
)

ROWS_AT_ONCE: Final = 64
MOST_AT_ONCE: Final = 512
SOON: Final = 6 * ROWS_AT_ONCE
CHARACTERS_AT_ONCE: Final = 500_000
"""How many rows ``encode_many`` hands to the backend's threads together: few at first, so that
figures show soon, and more from row ``SOON`` on, because threads wait for each other at the end of
each chunk. After so many characters it hands over what there is: a tokenised text takes some
hundred times its own memory."""
CHUNKS_AHEAD: Final = 2
"""So many such chunks are tokenised while the caller works on an earlier one."""

_FIRST_AMONG: Final = (
    Reason.ANSWER,
    Reason.END_OF_TURN,
    Reason.EXCLUDED,
    Reason.END_NOT_TRAINED,
    Reason.WHOLE_TEXT,
)


def encode(
    rendered: Rendered, tokenizer: Tokenizer, policy: MaskPolicy, max_length: int | None = None
) -> Encoded:
    """One conversation as tokens with reasons, from which the labels follow.

    The first ``max_length`` tokens are kept, the others stand in ``dropped``. Nothing trained is
    no error here, since it must still be shown; ``require_trained`` makes it one. Raises
    EncodeError where the tokenizer cannot write the text.
    """
    row = Laid(rendered)
    (result,) = tokenize(tokenizer, [_cut(row)])
    if isinstance(result, EncodeError):
        raise result
    return _label(row, tokenizer, policy, max_length, result)


def encode_many(
    rendereds: Iterable[Rendered | LabError],
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
) -> Iterator[Encoded | LabError]:
    """What ``encode`` gives for each row, in order, only faster. A row that cannot be encoded
    gives its error and stops no other; errors among ``rendereds`` are passed on.

    Rows are drawn some chunks ahead: while the caller works on one chunk, the backend's threads
    tokenise the next.
    """
    for work, encodings in map_ahead(
        lambda work: (work, encoded(tokenizer, work.cuts)), _chunks(rendereds), CHUNKS_AHEAD
    ):
        results = iter(assembled(tokenizer, work.cuts, encodings))
        for row in work.rows:
            result = next(results) if isinstance(row, Laid) else row
            if isinstance(row, Laid) and isinstance(result, Pieces):
                yield _label(row, tokenizer, policy, max_length, result)
            elif isinstance(result, LabError):
                yield result


class _Chunk(NamedTuple):
    """Rows, and the cuts of those that were rendered."""

    rows: list[Laid | LabError]
    cuts: list[Cut]


def _chunks(rendereds: Iterable[Rendered | LabError]) -> Iterator[_Chunk]:
    rows: list[Laid | LabError] = []
    characters, most = 0, ROWS_AT_ONCE
    for number, row in enumerate(rendereds, 1):
        if isinstance(row, Rendered):
            characters += len(row.text)
            rows.append(Laid(row))
        else:
            rows.append(row)
        if len(rows) >= most or characters >= CHARACTERS_AT_ONCE:
            yield _chunk(rows)
            rows, characters = [], 0
            most = ROWS_AT_ONCE if number < SOON else MOST_AT_ONCE
    if rows:
        yield _chunk(rows)


def _chunk(rows: list[Laid | LabError]) -> _Chunk:
    return _Chunk(rows, [_cut(row) for row in rows if isinstance(row, Laid)])


def _cut(row: Laid) -> Cut:
    return Cut(row.rendered.text, row.cut_places(), row.written())


def encode_prompt(rendered: Rendered, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids to send for a conversation that was rendered with ``add_generation_prompt``: those
    that stand before the next answer in training. Raises EncodeError."""
    (result,) = tokenize(tokenizer, [_cut(Laid(rendered))])
    if isinstance(result, EncodeError):
        raise result
    return tuple(result.ids)


def require_trained(encoded: Encoded, id: str) -> Encoded:
    """``encoded`` itself. Raises NothingTrainedError, naming row ``id``, where no token of it is
    trained, and says whether the length limit is to blame."""
    if encoded.trained:
        return encoded
    if encoded.beyond[1]:
        raise NothingTrainedError(
            f"Row {id} has no trained token left: its answer begins behind the first "
            f"{len(encoded)} tokens, where it is cut off. Raise max_length, or drop the row."
        )
    if Reason.EXCLUDED in encoded.reasons:
        raise NothingTrainedError(
            f"Row {id} has no trained token: its answers have weight 0. Drop the row, or give an "
            "answer weight 1."
        )
    if Reason.UNTAGGED in encoded.reasons:
        raise NothingTrainedError(
            f"Row {id} has no trained token: the template's generation tags enclose nothing of it, "
            "and the policy trains nothing else. Choose the policy assistant, or put the answer "
            "between the tags."
        )
    raise NothingTrainedError(
        f"Row {id} has no trained token: the template prints no answer for it. Check that it has "
        "an assistant turn with text, and that the template prints it."
    )


# -- from characters to tokens ----------------------------------------------------------------


def _label(
    row: Laid,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None,
    pieces: Pieces,
) -> Encoded:
    runs = _spread(row, policy, pieces, tokenizer)
    if runs and runs[0].reason.trained:
        first = runs[0]
        runs[:1] = [first._replace(length=1, reason=Reason.FIRST_TOKEN)]
        if first.length > 1:
            runs.insert(1, first._replace(length=first.length - 1))
    forged = _touching(pieces.forged, pieces.offsets[:max_length]) if pieces.forged else ()
    return Encoded.of_runs(pieces.ids, runs, lambda: pieces.offsets, max_length, forged)


def _touching(ranges: Sequence[Range], offsets: Sequence[Range]) -> tuple[int, ...]:
    return tuple(
        index
        for index, (start, end) in enumerate(offsets)
        if any(start < b and end > a for a, b in ranges)
    )


def _spread(row: Laid, policy: MaskPolicy, pieces: Pieces, tokenizer: Tokenizer) -> list[Run]:
    """The tokens in runs of one reason and one owner, from those of the characters under them."""
    plan, ends = row.ends(policy)
    edges = pieces.before(ends)
    if edges is not None:
        return [
            Run(after - before, reason, owner)
            for before, after, (_, _, reason, owner) in zip([0, *edges], edges, plan, strict=False)
            if after > before
        ]
    why = _spread_each(row.rendered.text, row.stretches(policy), pieces, tokenizer)
    return [Run(len(list(same)), *key) for key, same in groupby(why)]


def _spread_each(
    text: str, plan: Sequence[Stretch], pieces: Pieces, tokenizer: Tokenizer
) -> list[tuple[Reason, int]]:
    """A reason and an owner for each token, where some token reaches across a border."""
    starts = [start for start, _ in pieces.offsets]
    if tokenizer.spelling.normalizes and starts != sorted(starts):
        chosen = [_choose(text, plan, pieces, index, tokenizer) for index in range(len(starts))]
        return [stretch[2:] for stretch in chosen]
    why: list[tuple[Reason, int]] = []
    for number, stretch in enumerate(plan):
        at = len(why)
        to = bisect_left(starts, stretch.end, at) if number + 1 < len(plan) else len(starts)
        why += [stretch[2:]] * (to - at)
        index = to - 1
        while index >= 0 and pieces.offsets[index][1] > stretch.end:
            why[index] = _choose(text, plan, pieces, index, tokenizer)[2:]
            index -= 1
    return why


def _choose(
    text: str, plan: Sequence[Stretch], pieces: Pieces, index: int, tokenizer: Tokenizer
) -> Stretch:
    """The stretch that decides about a token (see the top of this module)."""
    start, end = pieces.offsets[index]
    if pieces.ids[index] in tokenizer.added_ids:
        token = text[start:end]
        start += len(token) - len(token.lstrip())
        end = start + 1
    touched = [it for it in plan if it.start < max(end, start + 1) and it.end > start] or plan[-1:]
    for reason in _FIRST_AMONG:
        for stretch in touched:
            if stretch.reason is reason:
                return stretch
    return touched[0]


# -- what a template and a tokenizer have agreed on -------------------------------------------

_PROBES: Final = ("Yes.", "12", "a word", "\u00fc")


def end_of_turn(template: Template, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that training puts at the end of an assistant turn, on which generation stops; ()
    where the template prints nothing there, or where what it prints melts into each answer.

    Found by encoding small conversations. Raises TemplateError where the template renders none.
    """
    found = [_ending(template, tokenizer, probe) for probe in _spellable(tokenizer)]
    common = min(found, key=len, default=())
    while any(ids[len(ids) - len(common) :] != common for ids in found):
        common = common[1:]
    return common


def stop_sequences(
    template: Template, tokenizer: Tokenizer, stop_tokens: Sequence[str] = ()
) -> tuple[tuple[int, ...], ...]:
    """What ends an answer: the end of turn that training teaches and the end of text; or, where
    somebody chose ``stop_tokens``, the ids of those and nothing else. Raises TemplateError, and
    EncodeError where the tokenizer cannot write a chosen one."""
    if stop_tokens:
        return tuple(_ids(tokenizer, text) for text in stop_tokens)
    taught = end_of_turn(template, tokenizer)
    text = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    return tuple(dict.fromkeys(ids for ids in (taught, text) if ids))


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    (result,) = tokenize(tokenizer, [Cut(text)])
    if isinstance(result, EncodeError):
        raise result
    return tuple(result.ids)


def _spellable(tokenizer: Tokenizer) -> Sequence[str]:
    """A few answers that the tokenizer can write, of different endings."""
    if not any(isinstance(it, EncodeError) for it in tokenize(tokenizer, list(map(Cut, _PROBES)))):
        return _PROBES
    ids = (id for id in range(tokenizer.vocab_size) if id not in tokenizer.added_ids)
    texts = (tokenizer.id_to_text(id).strip() for id in ids)
    words = [text for text in islice(texts, 1000) if text.isprintable() and text]
    return words[: len(_PROBES)]


def _ending(template: Template, tokenizer: Tokenizer, word: str) -> tuple[int, ...]:
    encoded = encode(_probe(template, tokenizer, word), tokenizer, MaskPolicy())
    pairs = zip(encoded.ids, encoded.reasons, strict=True)
    return tuple(id for id, reason in pairs if reason is Reason.END_OF_TURN)


def _probe(template: Template, tokenizer: Tokenizer, word: str) -> Rendered:
    short = Example("probe", (Message("user", word), Message("assistant", word)))
    try:
        return sandbox.render(template, short, tokenizer.special_tokens)
    except TemplateError:  # some insist on a system turn
        longer = Example("probe", (Message("system", word), *short.messages))
        return sandbox.render(template, longer, tokenizer.special_tokens)


def missing_tokens(template: Template, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Markers that the template prints and the tokenizer splits into several tokens, in the order
    in which the template has them. A tokenizer's own template misses nothing: what it prints as
    several tokens, its model has learnt as several."""
    if template.source in tokenizer.chat_templates.values():
        return ()
    markers = templates.markers(template.source)
    return tuple(marker for marker in markers if not is_one_token(marker, tokenizer))


def is_one_token(text: str, tokenizer: Tokenizer) -> bool:
    """Whether ``text`` is one token, and not the unknown one."""
    if text in tokenizer.added:
        return True
    (result,) = tokenize(tokenizer, [Cut(text)])
    return isinstance(result, Pieces) and len(result.ids) == 1 and result.ids != [tokenizer.unk_id]
