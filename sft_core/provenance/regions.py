"""From characters that know their source to regions: what opens a turn, what it says, what ends it.

An answer begins where the generation prompt ends, because that is where the model takes over. It
ends with what the template prints to close the turn. ``turns`` finds those places; this room
decides whose a literal is that no loop claims, and paints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sft_core.provenance.sources import ASSISTANT, TOOL, Source, source
from sft_core.provenance.tagged import SAME, Tagged, plain
from sft_core.provenance.turns import Known, Marks, Run, Text, marks_of
from sft_core.types import Region, Span


class Painted(NamedTuple):
    """Spans that cover a text from end to end, which stretches of its contents the template
    printed itself, and which the author's generation tags enclose, where that is known."""

    spans: tuple[Span, ...]
    literals: tuple[tuple[int, int], ...]
    tagged: tuple[tuple[int, int], ...] | None = None


def painted(tagged: Tagged, known: Known) -> Painted:
    """The regions of a traced text."""
    text = plain(tagged)
    bos, runs = _runs(tagged, known)
    view = Text(text, runs, known)
    view = view.of(_without_quotes(view))
    view = view.of(_with_silent(view))
    view = view.of(_adopted(view))
    view = view.of(_given_back(view))
    runs = _handed_over(view)
    view = view.of(runs)
    messages = sorted({run.message for run in runs if run.message is not None})
    marks = {message: marks_of(view, message) for message in messages}
    pieces = [Span(0, bos, Region.BOS, None)] if bos else []
    literals: list[tuple[int, int]] = []
    for run in runs:
        cut = list(_cut(run, marks, known))
        pieces += cut
        if not run.source.content:
            literals += [span[:2] for span in cut if span.region is Region.CONTENT]
    if known.generation_prompt and pieces and pieces[-1].message is None:
        pieces[-1] = pieces[-1]._replace(region=Region.HEADER)
    return Painted(merged(pieces), tuple(literals))


def _runs(tagged: Tagged, known: Known) -> tuple[int, list[Run]]:
    """How long the bos token at the very start is, and what follows it, run by run."""
    runs = [
        Run(match.start(), match.end(), source(match[1])) for match in SAME.finditer(tagged._tags)
    ]
    bos = len(known.bos) if known.bos and plain(tagged).startswith(known.bos) else 0
    if not bos or any(run.source.content for run in runs if run.start < bos):
        return 0, runs
    return bos, [run._replace(start=max(run.start, bos)) for run in runs if run.end > bos]


# -- whose is it ----------------------------------------------------------------------------------


def _without_quotes(view: Text) -> list[Run]:
    """An answer that another turn quotes is, there, something that this turn says."""
    made = list(view.runs)
    for at, run in enumerate(made):
        if run.start in view.quoted and view.known.roles[run.message or 0] == ASSISTANT:
            made[at] = run._replace(source=Source(made[at - 1].message, True))
    return made


def _with_silent(view: Text) -> list[Run]:
    """An answer that is empty, and whose turn no loop claims, has what follows its prompt."""
    made: list[Run] = list(view.runs)
    present = {run.message for run in made}
    for message, place in view.known.prompt_ends.items():
        at = next((n for n, run in enumerate(made) if run.start <= place < run.end), None)
        if message in present or at is None or made[at].message is not None:
            continue
        run = made[at]
        closers = [m.end() for m in view.specials(place, run.end) if m[0] not in view.openers]
        end = closers[0] if closers else view.known.turn_end(message) or run.end
        edges = (run.start, place, min(end, run.end), run.end)
        made[at : at + 1] = [
            Run(start, stop, Source(owner, False))
            for start, stop, owner in zip(edges, edges[1:], (None, message, None), strict=False)
            if stop > start
        ]
    return made


def _adopted(view: Text) -> list[Run]:
    """Literals that no loop claims go to the turns beside them: an end to the one before, the
    rest to the one that follows, if those have none of their own there."""
    made: list[Run] = []
    for at, run in enumerate(view.runs):
        if run.message is not None:
            made.append(run)
            continue
        cut = run.start
        if made and made[-1].message is not None and _ends_at(view.runs, at - 1):
            cut = _tail_of(view, made[-1], run)
        split, owner = _head_of(view, at, cut)
        edges = (run.start, cut, split, run.end)
        owners = (made[-1].message if made else None, None, owner)
        made += [
            Run(start, end, Source(message, False))
            for start, end, message in zip(edges, edges[1:], owners, strict=False)
            if end > start
        ]
    return made


def _given_back(view: Text) -> list[Run]:
    """What closes an answer also where the conversation ends with it belongs to it, though the
    template prints it when it has come to the next message."""
    made: list[Run] = list(view.runs)
    for message in sorted({run.message for run in made if run.message is not None}):
        follower = view.known.roles[message + 1 : message + 2]
        if view.known.roles[message] != ASSISTANT or not follower or follower[0] == ASSISTANT:
            continue
        at = max(n for n, run in enumerate(made) if run.message == message)
        after = made[at + 1 : at + 2]
        if not after or after[0].source.content or after[0].message is None:
            continue
        if follower[0] != TOOL and not made[at].source.content:
            continue
        end = view.known.turn_end(message)
        if end is not None and made[at].end < end <= after[0].end:
            rest = [after[0]._replace(start=end)] if end < after[0].end else []
            made[at + 1 : at + 2] = [Run(made[at].end, end, Source(message, False)), *rest]
    return made


def _handed_over(view: Text) -> list[Run]:
    """Where a prompt ends before all is printed that closes the turn before it, the model has to
    print the rest: it is the first that the answer says."""
    made: list[Run] = list(view.runs)
    for message, place in sorted(view.known.prompt_ends.items()):
        first = next((run.start for run in made if run.message == message), None)
        if first is None or first <= place:
            continue
        between = [run for run in made if run.start < first and run.end > place]
        if all(not run.source.content and run.message is not None for run in between):
            made = _given(made, between, place, message)
    return made


def _given(runs: Sequence[Run], between: Sequence[Run], place: int, message: int) -> list[Run]:
    """``runs`` with what of those in ``between`` lies behind a place given to a message."""
    made: list[Run] = []
    for run in runs:
        if run not in between:
            made.append(run)
            continue
        if run.start < place:
            made.append(run._replace(end=place))
        made.append(Run(max(run.start, place), run.end, Source(message, False)))
    return made


def _ends_at(runs: Sequence[Run], at: int) -> bool:
    return all(run.message != runs[at].message for run in runs[at + 1 :])


def _begins_at(runs: Sequence[Run], at: int) -> bool:
    return all(run.message != runs[at].message for run in runs[:at])


def _head_of(view: Text, at: int, cut: int) -> tuple[int, int | None]:
    """Where in an unclaimed run, after ``cut``, the next turn opens, and whose that is."""
    run, heir = view.runs[at], view.runs[at + 1] if at + 1 < len(view.runs) else None
    if heir is None or heir.message is None or not _begins_at(view.runs, at + 1):
        return cut, None
    prompt_end = view.known.prompt_ends.get(heir.message, run.end)
    if heir.source.content or (heir.start == prompt_end and not _speaks(view, heir.message)):
        return cut, heir.message
    return max(cut, min(prompt_end, run.end)), heir.message


def _speaks(view: Text, message: int) -> bool:
    return any(run.source.content for run in view.own(message))


def _tail_of(view: Text, before: Run, run: Run) -> int:
    """Up to where an unclaimed ``run`` closes the turn before it."""
    message = before.message or 0
    answer = view.known.roles[message] == ASSISTANT
    if not before.source.content and (not answer or view.specials(before.start, before.end)):
        return run.start
    for match in view.specials(run.start, run.end):
        if match[0] not in view.openers:
            return match.end()
    if not answer or not before.source.content:
        return run.start
    if run.end == len(view.text) and not view.known.generation_prompt:
        return run.end
    end = view.known.turn_end(message)
    return end if end is not None and run.start <= end <= run.end else run.start


# -- painting -------------------------------------------------------------------------------------


def _cut(run: Run, marks: Mapping[int, Marks], known: Known) -> Iterable[Span]:
    """One run as spans, cut where its turn's parts begin."""
    if run.message is None:
        yield Span(run.start, run.end, Region.SEPARATOR, None)
        return
    content, end, after = marks[run.message]
    answer = known.roles[run.message] == ASSISTANT
    if run.source.content and not answer:
        yield Span(run.start, run.end, Region.CONTENT, run.message)
        return
    start = run.start
    for edge, region in (
        (content, Region.HEADER),
        (end, Region.CONTENT if answer else Region.SEPARATOR),
        (after, Region.END_OF_TURN),
        (run.end, Region.SEPARATOR),
    ):
        stop = min(edge, run.end)
        if stop > start:
            yield Span(start, stop, region, run.message)
            start = stop


def merged(pieces: Iterable[Span]) -> tuple[Span, ...]:
    """Neighbours that say the same made one."""
    made: list[Span] = []
    for piece in pieces:
        if made and made[-1][2:] == piece[2:]:
            made[-1] = made[-1]._replace(end=piece.end)
        else:
            made.append(piece)
    return tuple(made)
