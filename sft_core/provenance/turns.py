"""Where the parts of one turn begin: its content, the end of turn, and what follows that."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, NamedTuple

from sft_core.provenance.sources import ASSISTANT, Source

# Such as <|im_end|>, </s>, <end_of_turn>, <turn|>, [/INST], <<SYS>>.
_SPECIAL: Final = r"<[^<>\s]{1,60}>|\[/?[A-Z][A-Z_]{1,40}\]|<</?[A-Z]{1,20}>>"


def special_pattern(*named: str) -> re.Pattern[str]:
    """Finds what looks like a special token, and what is ``named`` as one."""
    longest_first = sorted(filter(None, set(named)), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest_first), _SPECIAL]))


@dataclass(frozen=True)
class Known:
    """What is known about a render besides its text.

    ``prompt_ends[i]`` is where the generation prompt of assistant turn i ends in the text;
    ``openings[i]`` is what a generation prompt adds for it, for where no prompt is a prefix;
    ``bare_prompts[i]`` is how such a prompt ends that adds nothing.
    ``turn_end(i)`` is where a render of the messages up to i ends in the text, if it does;
    ``would_begin(i)`` is where the content of an empty message i would stand.
    """

    roles: Sequence[str]
    bos: str = ""
    eos: str = ""
    prompt_ends: Mapping[int, int] = field(default_factory=dict)
    openings: Mapping[int, str] = field(default_factory=dict)
    bare_prompts: Mapping[int, str] = field(default_factory=dict)
    turn_end: Callable[[int], int | None] = lambda _: None
    would_begin: Callable[[int], int | None] = lambda _: None
    generation_prompt: bool = False


class Run(NamedTuple):
    """``text[start:end]`` comes from one source."""

    start: int
    end: int
    source: Source

    @property
    def message(self) -> int | None:
        return self.source.message


class Marks(NamedTuple):
    """Positions in the text: of the content, of the end of turn, and behind it."""

    content: int
    end: int
    after: int


@dataclass(frozen=True)
class Text:
    """A rendered text with its runs, and what is known of it."""

    text: str
    runs: Sequence[Run]
    known: Known

    def of(self, runs: Sequence[Run]) -> Text:
        return replace(self, runs=runs)

    def own(self, message: int) -> list[Run]:
        return [run for run in self.runs if run.message == message]

    @cached_property
    def quoted(self) -> frozenset[int]:
        """Where runs of content begin that stand in the midst of another message's turn, though
        the message has a turn of its own."""
        found: set[int] = set()
        for before, run, after in zip(self.runs, self.runs[1:], self.runs[2:], strict=False):
            host = before.message
            if (
                run.source.content
                and host is not None
                and run.message != host == after.message
                and not before.source.content
                and not after.source.content
                and any(other.source == run.source and other != run for other in self.runs)
            ):
                found.add(run.start)
        return frozenset(found)

    def specials(self, start: int, end: int) -> list[re.Match[str]]:
        """What looks like a special token in a stretch of the text."""
        return list(self._pattern.finditer(self.text, start, end))

    def literals(self, message: int, low: int, high: int) -> str:
        """What the template printed for a turn between two places."""
        return "\0".join(
            self.text[max(run.start, low) : min(run.end, high)]
            for run in self.own(message)
            if not run.source.content and run.start < high and run.end > low
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return special_pattern(self.known.bos, self.known.eos)

    @cached_property
    def openers(self) -> frozenset[str]:
        """Special tokens that stand before contents, and so open turns rather than end them."""
        ends = self.known.prompt_ends
        spoken = {run.message for run in self.runs if run.source.content}
        begun: set[int | None] = {None}
        found: list[re.Match[str]] = []
        for run in self.runs:
            if run.source.content:
                begun.add(run.message)
            if run.message is None or run.message in begun:
                continue
            if run.message in spoken or run.message in ends:
                found += self.specials(run.start, min(run.end, ends.get(run.message, run.end)))
        if len(self.runs) > 1 and self.runs[0].message is None and self.runs[1].source.content:
            found += self.specials(self.runs[0].start, self.runs[0].end)
        return frozenset({match[0] for match in found} - {self.known.eos})


def marks_of(view: Text, message: int) -> Marks:
    """Where the parts of a turn begin. Its own content ends with the last character that the
    message brought; what the template prints after that closes the turn."""
    own = view.own(message)
    spoken = [run for run in own if run.source.content]
    content = [run for run in spoken if run.start not in view.quoted] or spoken
    silent = None if content else _silent(view, message, own)
    start = _content_start(view, message, own, content)
    if start is None:
        start = silent if silent is not None else _first_closer(view, own)
    last = max(content[-1].end if content else silent or start, start)
    stop = last
    for run in own:
        if run.start <= stop < run.end:
            stop = run.end
    # Where no prompt opens the turn, the answer opens it, and is still not closed by that.
    opened = start
    if start <= own[0].start:
        opened = max(content[0].start, start) if content else last
    header = view.literals(message, 0, opened)
    answer = view.literals(message, opened, last)
    closers = view.specials(last, stop)
    outer = [match for match in closers if match[0] not in view.openers] or closers
    return Marks(start, *closing(view.text, (last, stop), outer, header, answer))


def closing(
    text: str,
    tail: tuple[int, int],
    closers: Sequence[re.Match[str]],
    header: str,
    answer: str,
) -> tuple[int, int]:
    """Where the end of turn lies in ``tail``, what the template prints after a turn's last own
    character; ``header`` and ``answer`` are what it printed in that turn before.

    It is the first special token that does not close something inside the turn, as </think>
    does, or the second of two equal quotes; or else the last that closes what the header opened;
    or else all that follows.
    """
    outer = None
    inner = tail[0]
    for at, match in enumerate(closers):
        pairs = counterparts(match[0])
        before = answer + "\0" + text[tail[0] : match.start()]
        quotes = answer.count(match[0]) % 2 and any(it[0] not in answer for it in closers)
        opens = any(match[0] in counterparts(later[0]) for later in closers[at + 1 :])
        if quotes or opens or any(opener in before for opener in pairs):
            inner = match.end()
        elif any(opener in header for opener in pairs):
            outer = match.span()
        else:
            return match.span()
    return outer or (inner, tail[1])


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
            found.append(re.sub(f"[_▁-]?{end}[_▁-]?", "", closer, count=1))
    return tuple(filter(None, found))


# -- where content begins -------------------------------------------------------------------------


def _content_start(
    view: Text, message: int, own: Sequence[Run], content: Sequence[Run]
) -> int | None:
    """Where the turn's own words begin; None where it has none and no prompt tells."""
    if view.known.roles[message] == ASSISTANT:
        ceiling = content[-1].end if content else own[-1].end
        end = view.known.prompt_ends.get(message)
        if end is not None and _floor(view, own[0].start) <= end <= ceiling:
            return end
        opening = view.known.openings.get(message, "")
        shared = _shared(view, own[0].start, ceiling, opening)
        if shared or (content and _unopened(view, message, own[0].start, content[0].start)):
            return own[0].start + shared
    return content[0].start if content else None


def _unopened(view: Text, message: int, start: int, content: int) -> bool:
    """Whether no prompt opens an answer: what is printed between its start and its content, such
    as what opens a tool call, is neither how the prompt ends nor part of anybody else's turn."""
    prompt = view.known.bare_prompts.get(message)
    head = {match[0] for match in view.specials(start, content)}
    if prompt is None or not head or any(special in prompt for special in head):
        return False
    others = (run for run in view.runs if not run.source.content and not _answers(view, run))
    return head.isdisjoint(it[0] for run in others for it in view.specials(run.start, run.end))


def _answers(view: Text, run: Run) -> bool:
    return run.message is not None and view.known.roles[run.message] == ASSISTANT


def _floor(view: Text, start: int) -> int:
    """Where the last turn before a place ends."""
    before = (run.end for run in view.runs if run.end <= start and run.message is not None)
    return max(before, default=0)


def _shared(view: Text, start: int, end: int, opening: str) -> int:
    """How much of what a generation prompt adds is also how the turn begins; no special token
    is cut in two."""
    turn = view.text[start:end]
    shared = common_length(turn, opening)
    for text in (turn, opening):
        for match in special_pattern(view.known.bos, view.known.eos).finditer(text):
            if match.start() < shared < match.end():
                shared = match.start()
    return shared


def common_length(*texts: str) -> int:
    """How many characters at their beginning all texts share."""
    low, high = min(texts), max(texts)
    for at, character in enumerate(low):
        if high[at] != character:
            return at
    return len(low)


def _silent(view: Text, message: int, own: Sequence[Run]) -> int | None:
    """In an assistant turn that says nothing: where what it says would stand."""
    if view.known.roles[message] != ASSISTANT:
        return None
    place = view.known.would_begin(message)
    return place if place is not None and own[0].start <= place <= own[-1].end else None


def _first_closer(view: Text, own: Sequence[Run]) -> int:
    """In a turn that says nothing and whose content has no place: where it ends."""
    for run in own:
        for match in view.specials(run.start, run.end):
            if match[0] not in view.openers:
                return match.start()
    return own[-1].end
