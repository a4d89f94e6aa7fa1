"""From characters that know their source to regions: what opens a turn, what it says, what ends it.

An answer begins where the generation prompt ends, because that is where the model takes over. It
ends with what the template prints to close the turn: the special token after the last character
that the message itself brought, or, where there is none, the next literal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sft_core.provenance import Source, source
from sft_core.tagged import SAME, Tagged, plain
from sft_core.types import Region, Span

ASSISTANT: Final = "assistant"

# <|im_end|>, </s>, <end_of_turn>, <｜User｜>, <turn|>, [/INST], <<SYS>>
_SPECIAL: Final = r"<[^<>\s]{1,60}>|\[/?[A-Z][A-Z_]{1,40}\]|<</?[A-Z]{1,20}>>"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a render besides its text.

    ``prompt_ends[i]`` is where the generation prompt of assistant turn i ends in the text;
    ``openings[i]`` is what a generation prompt adds for it, for where no prompt is a prefix.
    ``turn_end(i)`` is where a render of the messages up to i ends in the text, if it does;
    ``would_begin(i)`` is where the content of an empty message i would stand.
    """

    roles: Sequence[str]
    bos: str = ""
    eos: str = ""
    prompt_ends: Mapping[int, int] = field(default_factory=dict)
    openings: Mapping[int, str] = field(default_factory=dict)
    turn_end: Callable[[int], int | None] = lambda _: None
    would_begin: Callable[[int], int | None] = lambda _: None
    generation_prompt: bool = False

    def specials(self) -> re.Pattern[str]:
        """What looks like a special token, those that the tokenizer names included."""
        named = sorted({self.bos, self.eos} - {""}, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, named), _SPECIAL]))


class Run(NamedTuple):
    """``text[start:end]`` comes from one source."""

    start: int
    end: int
    source: Source

    @property
    def message(self) -> int | None:
        return self.source.message


class _Marks(NamedTuple):
    """Where the parts of one turn begin: content, end of turn, and what follows that."""

    content: int
    end: int
    after: int


def spans(tagged: Tagged, known: Known) -> tuple[Span, ...]:
    """Regions that cover the text from end to end, in order, without a gap."""
    text = plain(tagged)
    find = known.specials()
    bos = len(known.bos) if known.bos and text.startswith(known.bos) else 0
    runs = [
        Run(max(match.start(), bos), match.end(), source(match[1]))
        for match in SAME.finditer(tagged._tags)
        if match.end() > bos
    ]
    if bos and runs and runs[0].source.content and tagged._tags[0] == tagged._tags[bos - 1]:
        bos, runs[0] = 0, runs[0]._replace(start=0)
    runs = _without_quotes(runs, known.roles)
    openers = _openers(text, runs, known, find)
    runs = _adopted(text, runs, known, openers, find)
    marks = {
        message: _marks(text, runs, message, known, openers, find)
        for message in sorted({run.message for run in runs if run.message is not None})
    }
    pieces = [Span(0, bos, Region.BOS, None)] if bos else []
    for run in runs:
        pieces += _cut(run, marks, known)
    if known.generation_prompt and pieces and pieces[-1].message is None:
        pieces[-1] = pieces[-1]._replace(region=Region.HEADER)
    return tuple(_merged(pieces))


# -- whose is it ----------------------------------------------------------------------------------


def _without_quotes(runs: list[Run], roles: Sequence[str]) -> list[Run]:
    """An answer that another turn quotes is, there, a part of that turn."""
    made = list(runs)
    for at in range(1, len(runs) - 1):
        before, run, after = runs[at - 1 : at + 2]
        host = before.message
        if (
            run.source.content
            and run.message != host == after.message
            and host is not None
            and not before.source.content
            and not after.source.content
            and roles[run.message or 0] == ASSISTANT
            and any(other.source == run.source and other is not run for other in made)
        ):
            made[at] = run._replace(source=Source(host, False))
    return made


def _openers(text: str, runs: list[Run], known: Known, find: re.Pattern[str]) -> frozenset[str]:
    """Special tokens that stand before contents, and so open turns rather than end them."""
    spoken = {run.message for run in runs if run.source.content}
    seen: set[int | None] = {None}
    found: set[str] = set()
    for run in runs:
        if run.source.content:
            seen.add(run.message)
        starts = known.prompt_ends.get(-1 if run.message is None else run.message, run.end)
        if run.message not in seen and (run.message in spoken or run.message in known.prompt_ends):
            found |= set(find.findall(text, run.start, max(min(run.end, starts), run.start)))
    if len(runs) > 1 and runs[0].message is None and runs[1].source.content:
        found |= set(find.findall(text, runs[0].start, runs[0].end))
    return frozenset(found - {known.eos})


def _adopted(
    text: str, runs: list[Run], known: Known, openers: frozenset[str], find: re.Pattern[str]
) -> list[Run]:
    """Literals that no loop claims go to the turns beside them: an end to the one before, the
    rest to the one that follows, if those have none of their own there."""
    made: list[Run] = []
    for at, run in enumerate(runs):
        if run.message is not None:
            made.append(run)
            continue
        cut = run.start
        if at and made[-1].message is not None and _ends_at(runs, at - 1):
            cut = _tail_of(text, made, run, known, openers, find)
            if cut > run.start:
                made.append(Run(run.start, cut, Source(made[-1].message, False)))
        split, owner = _head_of(runs, at, cut, known)
        if split > cut:
            made.append(Run(cut, split, Source(None, False)))
        if run.end > split:
            made.append(Run(split, run.end, Source(owner, False)))
    return made


def _ends_at(runs: list[Run], at: int) -> bool:
    return all(run.message != runs[at].message for run in runs[at + 1 :])


def _begins_at(runs: list[Run], at: int) -> bool:
    return all(run.message != runs[at].message for run in runs[:at])


def _head_of(runs: list[Run], at: int, cut: int, known: Known) -> tuple[int, int | None]:
    """Whose turn the rest of an unclaimed run opens, and where that begins."""
    run, heir = runs[at], runs[at + 1] if at + 1 < len(runs) else None
    if heir is None or heir.message is None or not _begins_at(runs, at + 1):
        return cut, None
    if heir.source.content:
        return cut, heir.message
    return max(cut, min(known.prompt_ends.get(heir.message, run.end), run.end)), heir.message


def _tail_of(
    text: str,
    made: list[Run],
    run: Run,
    known: Known,
    openers: frozenset[str],
    find: re.Pattern[str],
) -> int:
    """How far an unclaimed ``run`` closes the turn before it."""
    before = made[-1]
    message = before.message or 0
    if not before.source.content and (
        known.roles[message] != ASSISTANT or find.search(text, before.start, before.end)
    ):
        return run.start
    for match in find.finditer(text, run.start, run.end):
        if match[0] not in openers:
            return match.end()
    if known.roles[message] != ASSISTANT or not before.source.content:
        return run.start
    if run.end == len(text) and not known.generation_prompt:
        return run.end
    end = known.turn_end(message)
    return end if end is not None and run.start <= end <= run.end else run.start


# -- where its parts begin ------------------------------------------------------------------------


def _marks(
    text: str,
    runs: list[Run],
    message: int,
    known: Known,
    openers: frozenset[str],
    find: re.Pattern[str],
) -> _Marks:
    own = [run for run in runs if run.message == message]
    content = [run for run in own if run.source.content]
    start = _content_start(text, runs, own, content, message, known, find)
    if start is None:
        start = _would_begin(text, own, message, known, openers, find)
    last = max(content[-1].end if content else _silent(own, message, known) or start, start)
    stop = _tail_end(runs, last, message)
    header, answer = (
        "\0".join(
            text[max(run.start, low) : min(run.end, high)]
            for run in own
            if not run.source.content and run.start < high and run.end > low
        )
        for low, high in ((0, start), (start, last))
    )
    end, after = closing(text, (last, stop), header, answer, openers, find)
    return _Marks(start, end, after)


def closing(
    text: str,
    tail: tuple[int, int],
    header: str,
    answer: str,
    openers: frozenset[str],
    find: re.Pattern[str],
) -> tuple[int, int]:
    """Where the end of turn lies in ``tail``, what the template prints after a turn's last own
    character; ``header`` and ``answer`` are what it printed in that turn before.

    It is the first special token that does not close something inside the turn, as </think>
    does; or else the last that closes what the header opened; or else all that follows.
    """
    found = list(find.finditer(text, *tail))
    outer = None
    inner = tail[0]
    for match in [match for match in found if match[0] not in openers] or found:
        pairs = counterparts(match[0])
        before = answer + "\0" + text[tail[0] : match.start()]
        if any(opener in before for opener in pairs):
            inner = match.end()
        elif any(opener in header for opener in pairs):
            outer = match.span()
        else:
            return match.span()
    return outer or (inner, tail[1])


def _content_start(
    text: str,
    runs: list[Run],
    own: list[Run],
    content: list[Run],
    message: int,
    known: Known,
    find: re.Pattern[str],
) -> int | None:
    """Where the turn's own words begin; None where it has none and no prompt tells."""
    if known.roles[message] == ASSISTANT:
        floor = max(
            (run.end for run in runs if run.end <= own[0].start and run.message is not None),
            default=0,
        )
        ceiling = content[-1].end if content else own[-1].end
        end = known.prompt_ends.get(message)
        if end is not None and floor <= end <= ceiling:
            return end
        shared = _shared_opening(
            text[own[0].start : ceiling], known.openings.get(message, ""), find
        )
        if shared:
            return own[0].start + shared
    return content[0].start if content else None


def _shared_opening(turn: str, opening: str, find: re.Pattern[str]) -> int:
    """How much of what a generation prompt adds is also how the turn begins; no special token
    is cut in two."""
    shared = len(os.path.commonprefix([turn, opening]))
    for text in (turn, opening):
        for match in find.finditer(text):
            if match.start() < shared < match.end():
                shared = match.start()
    return shared


def _silent(own: list[Run], message: int, known: Known) -> int | None:
    """In an assistant turn that says nothing: where what it says would stand."""
    if known.roles[message] != ASSISTANT:
        return None
    place = known.would_begin(message)
    return place if place is not None and own[0].start <= place <= own[-1].end else None


def _would_begin(
    text: str,
    own: list[Run],
    message: int,
    known: Known,
    openers: frozenset[str],
    find: re.Pattern[str],
) -> int:
    """In a turn that says nothing and that no prompt opens: where it ends."""
    place = _silent(own, message, known)
    if place is not None:
        return place
    for run in own:
        for match in find.finditer(text, run.start, run.end):
            if match[0] not in openers:
                return match.start()
    return own[-1].end


def _tail_end(runs: list[Run], last: int, message: int) -> int:
    """How far the literals of the turn go on after its last own character."""
    end = last
    for run in runs:
        if run.end > end and run.start <= end and run.message == message:
            end = run.end
    return end


def counterparts(closer: str) -> tuple[str, ...]:
    """What could have opened what a token closes: "</a>" -> "<a>", "<|x_end|>" -> "<|x_start|>"."""
    found = []
    if "/" in closer[:3]:
        opener = closer.replace("/", "", 1)
        found = [opener, f"{opener[:-1]} ", f"{opener[:-1]}="]
    if closer.endswith("|>") and not closer.startswith("<|"):
        found.append(f"<|{closer[1:-2]}>")
    for end, words in (("end", ("start", "begin")), ("END", ("START", "BEGIN"))):
        if end in closer:
            found += [closer.replace(end, word, 1) for word in words]
            found += [re.sub(f"[_▁-]?{end}[_▁-]?", "", closer, count=1)]
    return tuple(found)


# -- painting -------------------------------------------------------------------------------------


def _cut(run: Run, marks: Mapping[int, _Marks], known: Known) -> Iterable[Span]:
    """One run as spans, cut where its turn's parts begin."""
    if run.message is None:
        yield Span(run.start, run.end, Region.SEPARATOR, None)
        return
    content, end, after = marks[run.message]
    answer = known.roles[run.message] == ASSISTANT
    inside = Region.CONTENT if answer or run.source.content else Region.SEPARATOR
    opening = Region.HEADER if answer or not run.source.content else Region.CONTENT
    edges = (
        (content, opening),
        (end, inside),
        (after, Region.END_OF_TURN),
        (run.end, Region.SEPARATOR),
    )
    start = run.start
    for edge, region in edges:
        stop = min(edge, run.end)
        if stop > start:
            yield Span(start, stop, region, run.message)
            start = stop


def _merged(pieces: Iterable[Span]) -> list[Span]:
    made: list[Span] = []
    for piece in pieces:
        last = made[-1] if made else None
        if last and (last.region, last.message) == (piece.region, piece.message):
            made[-1] = last._replace(end=piece.end)
        else:
            made.append(piece)
    return made
