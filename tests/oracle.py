"""An independent judge of masks: it changes one character of a message and sees what moves.

It renders with transformers' own code and knows nothing of tags, runs or turns. What it holds a
mask to, over the plain text of a conversation:

- every character that moves with an answer, and stands where the model writes it, is trained;
- so is what stands between those characters, and what ends a turn;
- nothing is trained that moves with what somebody else says and not with the answer, nothing in
  front of where a generation prompt ends, and nothing behind a turn.

Where the model starts to write is where the generation prompt ends, and a turn reaches as far as a
render of the messages up to it. A conversation of which no beginning is a prefix of the whole, as
where a template forgets earlier thoughts, is judged by what moves alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from sft_core import templates
from sft_core.config import MaskPolicy
from sft_core.reasons import stretches
from sft_core.types import Example, Rendered

Plain = dict[str, Any]

_SPECIAL: Final = re.compile(r"<[^<>\s]{2,40}>|\[/?[A-Z_]{2,}\]")
_CLOSING: Final = re.compile(r"end|eo[st]|stop|/", re.IGNORECASE)
_PROBES: Final = ("Aq1", "Zk2")
_KINDS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "123456789",
    " \t",
    "\u0301\u0300\u0308",
    "éèë",
    "😀😺🎉👧👩",
    "?!.,;",
    "(){}[]<>`'%|",
)
"""Characters that take each other's place."""


class Complaint(NamedTuple):
    """What is wrong, as a stable cause and as a sentence about one place."""

    cause: str
    sentence: str


def reference(
    source: str, example: Example, tokens: Mapping[str, str], generation_prompt: bool = False
) -> str | None:
    """What transformers prints for an example; None where it raises."""
    return Prints(source, example, tokens)(
        templates.conversation(example).messages, generation_prompt
    )


def shapes(example: Example) -> Iterator[list[Plain]]:
    """The forms in which a user of transformers would write a conversation for one template or
    another; the standard one first."""
    messages = [dict(message) for message in templates.conversation(example).messages]
    yield messages
    typed = [m | {"content": _typed(m["content"])} for m in messages]
    yield typed
    if any(isinstance(m["content"], list) for m in messages):
        yield [m | {"content": _untyped(m["content"])} for m in messages]
    if any("tool_calls" in m for m in messages):
        silent = [m | {"content": m["content"] or None} for m in messages]
        silent = [m if "tool_calls" in m else m | {"content": m["content"] or ""} for m in silent]
        yield silent
        for form in (messages, silent, typed):
            yield [_written_arguments(m) for m in form]


def complaints(
    source: str, example: Example, rendered: Rendered, tokens: Mapping[str, str]
) -> list[Complaint]:
    """What is wrong with the text and the trained characters of an example, if all its answers
    are to be trained; messages with a weight of 0 are not known here."""
    prints = Prints(source, example, tokens)
    for messages in shapes(example):
        if prints(messages) == rendered.text:
            return list(_Case(prints, messages, rendered).complaints())
    return [Complaint("text differs", "transformers prints another text")]


class Prints:
    """A template as transformers prints it."""

    def __init__(self, source: str, example: Example, tokens: Mapping[str, str]) -> None:
        self._source = source
        self._tools = templates.conversation(example).tools
        self.variables = {**tokens, **templates.conversation(example).extra}
        self._kept: dict[tuple[str, bool], str | None] = {}

    def __call__(self, messages: Sequence[Plain], generation_prompt: bool = False) -> str | None:
        key = (json.dumps(messages), generation_prompt)
        if key not in self._kept:
            self._kept[key] = self._print(messages, generation_prompt)
        return self._kept[key]

    def _print(self, messages: Sequence[Plain], generation_prompt: bool) -> str | None:
        try:
            [text], _ = render_jinja_template(
                [list(messages)],
                tools=self._tools,
                chat_template=self._source,
                add_generation_prompt=generation_prompt,
                **self.variables,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
            return None
        return str(text)


class _Case:
    """One conversation in one form, with what moves in it."""

    def __init__(self, prints: Prints, messages: Sequence[Plain], rendered: Rendered) -> None:
        self.prints = prints
        self.messages = messages
        self.rendered = rendered
        self.text = rendered.text
        self.answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        self.moved = [self._moves(messages, at, self.text) for at in range(len(messages))]
        self.trained = {
            at
            for it in stretches(rendered, MaskPolicy())
            if it.reason.trained
            for at in range(it.start, it.end)
        }

    def complaints(self) -> Iterator[Complaint]:
        yield from self._others()
        yield from self._starts()
        for index in self.answers:
            yield from self._answer(index)
            yield from self._end(index)
        yield from self._headers()

    def _about(self, cause: str, at: int, index: int) -> Complaint:
        shown = f"{self.text[max(0, at - 16) : at]}»{self.text[at : at + 16]}"
        return Complaint(cause, f"message {index}, at {at}: {shown!r}")

    # -- the rules ----------------------------------------------------------------------------

    def _others(self) -> Iterator[Complaint]:
        """Nobody else's words are trained."""
        for index, moved in enumerate(self.moved):
            wrong = (moved - self.own) & self.trained if index not in self.answers else set()
            if wrong:
                yield self._about("another's words trained", min(wrong), index)

    def _starts(self) -> Iterator[Complaint]:
        """An answer starts where its prompt ends."""
        starts = dict(self.rendered.answer_starts())
        for index in self.answers:
            begin = self.begins[index]
            if begin is not None and starts.get(index, begin) != begin:
                yield self._about("answer starts elsewhere", starts[index], index)

    def _answer(self, index: int) -> Iterator[Complaint]:
        """An answer is trained, with what the template prints in it."""
        own = self._spoken(index)
        if not own:
            return
        begin = self.begins[index]
        first = min(own) if begin is None else begin
        wanted = set(range(first, max(own) + 1)) - self.foreign
        missing = wanted - self.trained
        if missing:
            cause = "answer not trained" if own & missing else "literal in answer not trained"
            yield self._about(cause, min(own & missing or missing), index)

    def _end(self, index: int) -> Iterator[Complaint]:
        """What ends a turn is trained: from behind the answer through its first special token and
        those that touch it, or all of it if it has none."""
        after, ending = self.ends[index], self._ending(index) or ""
        closed = after is not None and self.text[:after].endswith(ending)
        silent = not self.moved[index] and self.begins[index] is None
        if index in self.unprinted or (silent and not closed):
            return
        start = max(self._spoken(index), default=self._start(index) - 1) + 1
        if after is not None and closed and (silent or after - len(ending) >= start):
            start = after - len(ending)
        tail = self.text[start : self._closed(index, start)]
        wanted = self._closers(ending)
        at = tail.find(wanted) if wanted.strip() else -1
        if at >= 0:
            length = at + len(wanted)
        elif wanted.strip():
            return  # it ends in another way here, as after a call of a tool
        else:
            length = min(len(tail), len(ending), 1)
        missing = set(range(start, start + length)) - self.trained
        if missing:
            yield self._about("end of turn not trained", min(missing), index)

    def _closers(self, ending: str) -> str:
        """What an ending is made of, up to its first special tokens if it has any."""
        special = self._special(ending)
        if special is None:
            return ending.rstrip()
        stop = special.end()
        while (touching := _SPECIAL.match(ending, stop)) and _CLOSING.search(touching[0]):
            stop = touching.end()
        return ending[:stop].lstrip()

    def _headers(self) -> Iterator[Complaint]:
        """Nothing is trained but answers, with what is printed in them, and what closes them."""
        explained = set(self.own)
        for index in self.answers:
            begin = self._start(index)
            spoken = self._spoken(index)
            last = max(spoken, default=begin - 1) + 1
            explained.update(range(begin, self._closed(index, last)))
            late = max(self.moved[index], default=last - 1) + 1
            if late > last and late - 1 in self.trained:
                explained.update(range(late, self._closed(index, late)))
        wrong = self.trained - explained
        if wrong:
            yield self._about("header trained", min(wrong), len(self.messages) - 1)

    # -- what is known of a turn --------------------------------------------------------------

    @cached_property
    def own(self) -> set[int]:
        """What moves with any answer."""
        return {at for index in self.answers for at in self.moved[index]}

    @cached_property
    def foreign(self) -> set[int]:
        """What moves with somebody else's words only."""
        others = (self.moved[i] for i in range(len(self.messages)) if i not in self.answers)
        return set().union(*others) - self.own

    @cached_property
    def unprinted(self) -> set[int]:
        """Answers that a template leaves out altogether: nothing they could say would move."""
        found = set()
        for index in self.answers:
            said = [self._said(index, probe) for probe in _PROBES]
            one, other = (self._with(index, it) for it in said)
            if one == other:
                found.add(index)
        return found

    @cached_property
    def begins(self) -> dict[int, int | None]:
        """Where each answer begins, if a generation prompt tells."""
        found: dict[int, int | None] = {}
        for index in self.answers:
            prompt = self.prints(self.messages[:index], True)
            known = prompt is not None and self.text.startswith(prompt)
            found[index] = len(prompt or "") if known else None
        return found

    @cached_property
    def ends(self) -> dict[int, int | None]:
        """Where the turn of each answer ends, if a render up to it tells."""
        found: dict[int, int | None] = {}
        for index in self.answers:
            until = self.prints(self.messages[: index + 1])
            known = until is not None and self.text.startswith(until)
            known = known and len(until or "") >= (self.begins[index] or 0)
            found[index] = len(until or "") if known else None
        return found

    def _spoken(self, index: int) -> set[int]:
        """What moves with an answer and stands where the model writes it: not in front of its
        beginning, and not where a later turn quotes it."""
        begin, end = self.begins[index], self.ends[index]
        if begin is None:
            begin = self._prefilled(index)
        if end is None:
            end = self._latest_end(index)
        return {at for at in self.moved[index] if begin <= at < end}

    def _latest_end(self, index: int) -> int:
        """Before where the turn of an answer must have ended, if no render up to it tells: where
        the text would go on otherwise if somebody else spoke next, or something else were said."""
        later = [self.begins.get(i) for i in range(index + 1, len(self.messages))]
        bounds = [at for at in later if at is not None] + [len(self.text)]
        own = self.moved[index]
        for after in self.moved[index + 1 :]:
            bounds += [min(after)] if after and (not own or min(after) > min(own)) else []
        if index + 1 < len(self.messages):
            roles = {"user", "assistant", "tool"} - {self.messages[index + 1]["role"]}
            others = (self._followed_by(index, role) for role in sorted(roles))
            shared = [it for it in others if own and it > min(own)]
            bounds += [max(shared)] if shared else []
        return min(bounds)

    def _followed_by(self, index: int, role: str) -> int:
        """Up to where the text stays as it is if the conversation ends with another's turn."""
        text = self.prints([*self.messages[: index + 1], self._said(index, "Aq1") | {"role": role}])
        pairs = enumerate(zip(self.text, text or "", strict=False))
        return next((at for at, (one, other) in pairs if one != other), len(text or ""))

    def _start(self, index: int) -> int:
        """Where an answer begins, as far as anything tells."""
        known = self.begins[index]
        known = self._prefilled(index) if known is None else known
        if known:
            return known
        first = min(self._spoken(index), default=None)
        if first is None:
            first = self._silent_end(index)
        return min(self._as_if_last(index, first), len(self.text[:first].rstrip()))

    def _silent_end(self, index: int) -> int:
        """Where an answer that says nothing is closed."""
        ending, end = self._ending(index) or "", self.ends[index]
        if end is not None:
            return end - len(ending)
        earlier = max((at for moved in self.moved[:index] for at in moved), default=0)
        closer = self._special(ending)
        openings = [
            it.end() for it in _SPECIAL.finditer(self.text, earlier) if it[0] in self.openers
        ]
        found = self.text.find(closer[0], min(openings, default=earlier)) if closer else -1
        return found if found >= 0 else len(self.text)

    def _as_if_last(self, index: int, first: int) -> int:
        """Where the answer whose first own character is ``first`` would begin if it ended the
        conversation: the same literals must stand in front of it."""
        prompt = self.prints(self.messages[:index], True)
        text = self.prints(self.messages[: index + 1])
        if prompt is None or text is None:
            return first
        if not text.startswith(prompt):
            return self._behind_marker(prompt, first)
        moved = self._moves(self.messages[: index + 1], index, text)
        lead = text[len(prompt) : min((at for at in moved if at >= len(prompt)), default=0)]
        if self.text[:first].endswith(lead):
            return first - len(lead)
        return self._behind_marker(prompt, first)

    def _behind_marker(self, prompt: str, first: int) -> int:
        """Behind the last place before ``first`` where the special token stands with which a
        generation prompt ends, if it ends with one."""
        markers = _SPECIAL.findall(prompt)
        if not markers or not prompt.rstrip().endswith(markers[-1]):
            return first
        found = self.text.rfind(markers[-1], 0, first)
        return found + len(markers[-1]) if found >= 0 else first

    def _closed(self, index: int, start: int) -> int:
        """Up to where something may be trained that closes an answer whose last own character
        stands before ``start``. Where a template closes a turn only if another follows, that is
        its first special token, if it opens no turn, or else the space behind it."""
        end, ending = self.ends[index], self._ending(index) or ""
        if end is not None and ending:
            return end
        tail = self._tail(index, start)
        shared = _shared(self.text[start:], tail)
        closer = self._special(ending)
        if ending and (closer[0] in tail[:shared] if closer else 0 < shared == len(tail)):
            return start + shared
        later = [at for moved in self.moved[index + 1 :] for at in moved if at >= start]
        rest = self.text[start + shared : min(later, default=len(self.text))]
        said = self.text[self._start(index) : start + shared]
        special = next(
            (it for it in _SPECIAL.finditer(rest) if it[0].replace("</", "<") not in said), None
        )
        if closer and closer[0] in rest:
            return start + shared + rest.index(closer[0]) + len(closer[0])
        if special and special[0] not in self.openers:
            return start + shared + special.end()
        return start + shared + len(rest) - len(rest.lstrip())

    def _tail(self, index: int, start: int) -> str:
        """What is printed behind the last own character of an answer, at ``start`` in the text,
        if it ends a conversation."""
        text = self.prints(self.messages[: index + 1]) or ""
        if text[:start] == self.text[:start]:
            return text[start:]
        moved = self._moves(self.messages[: index + 1], index, text)
        return text[max(moved, default=len(text)) + 1 :]

    @cached_property
    def openers(self) -> set[str]:
        """Special tokens that stand in front of what is said, such as <|user|>, or around the
        role that stands there."""
        found: set[str] = set()
        for moved in self.moved:
            before = list(_SPECIAL.finditer(self.text, 0, min(moved, default=0)))[-2:]
            if before:
                found.add(before[-1][0])
            if len(before) > 1 and self.text[before[0].end() : before[1].start()].isalnum():
                found.add(before[0][0])
        closers = (self._special(self._ending(index) or "") for index in self.answers)
        return found - {closer[0] for closer in closers if closer}

    def _prefilled(self, index: int) -> int:
        """Up to where a turn is what a generation prompt opens, if that is no prefix: found by
        the last place in front of the answer that reads as the prompt's addition does, or as that
        does up to one of its special tokens; 0 where there is none."""
        before = self.prints(self.messages[:index])
        prompt = self.prints(self.messages[:index], True)
        if before is None or prompt is None or not prompt.startswith(before):
            return 0
        opening = prompt[len(before) :]
        if self.text.startswith(before) and (shared := _shared(self.text[len(before) :], opening)):
            return len(before) + shared
        earlier = max((at for moved in self.moved[:index] for at in moved), default=0)
        own = [at for at in self.moved[index] if at > earlier]
        cuts = {len(opening), *(at for it in _SPECIAL.finditer(opening) for at in it.span())}
        for cut in sorted(cuts - {0}, reverse=True):
            if own:
                found = self.text.rfind(opening[:cut], earlier, min(own))
            else:
                found = self.text.find(opening[:cut], earlier)
            if found >= 0:
                return found + cut
        return 0

    def _ending(self, index: int) -> str | None:
        """What is printed behind a plain answer in this place; None where that is not clear."""
        endings = set()
        for probe in _PROBES:
            text = self.prints([*self.messages[:index], self._said(index, probe)])
            if text is None or probe.lower() not in text.lower():  # some templates shout
                return None
            endings.add(text[text.lower().rindex(probe.lower()) + len(probe) :])
        return endings.pop() if len(endings) == 1 else None

    def _special(self, text: str) -> re.Match[str] | None:
        """The first special token in a text."""
        eos = str(self.prints.variables.get("eos_token") or "")
        return re.search(f"{_SPECIAL.pattern}|{re.escape(eos)}" if eos else _SPECIAL, text)

    # -- what moves ---------------------------------------------------------------------------

    def _said(self, index: int, text: str) -> Plain:
        typed = isinstance(self.messages[index]["content"], list)
        return {"role": "assistant", "content": _typed(text) if typed else text}

    def _with(self, index: int, message: Plain) -> str | None:
        return self.prints([*self.messages[:index], message, *self.messages[index + 1 :]])

    def _moves(self, messages: Sequence[Plain], index: int, text: str) -> set[int]:
        """The characters of a text that change with some character of a message."""
        moved: set[int] = set()
        for changed in _changed(messages[index]):
            other = self.prints([*messages[:index], changed, *messages[index + 1 :]])
            if other is not None and len(other) == len(text):
                pairs = zip(text, other, strict=True)
                moved |= {at for at, (a, b) in enumerate(pairs) if a != b}
        return moved


def _shared(one: str, other: str) -> int:
    """How many characters at their beginning two texts share, no special token cut in two."""
    pairs = enumerate(zip(one, other, strict=False))
    shared = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    for match in (*_SPECIAL.finditer(one), *_SPECIAL.finditer(other)):
        if match.start() < shared < match.end():
            shared = match.start()
    return shared


# -- a message with one of its characters replaced ---------------------------------------------


def _changed(message: Plain) -> Iterator[Plain]:
    content = message["content"]
    if isinstance(content, str):
        for text in _variants(content):
            yield message | {"content": text}
    for at, part in enumerate(content if isinstance(content, list) else ()):
        for text in _variants(part["text"]):
            yield message | {"content": [*content[:at], part | {"text": text}, *content[at + 1 :]]}
    for text in _variants(message.get("reasoning_content") or ""):
        yield message | {"reasoning_content": text, "thinking": text}
    calls = message.get("tool_calls", ())
    for at, call in enumerate(calls):
        for changed in _changed_call(call["function"]):
            yield message | {
                "tool_calls": [*calls[:at], call | {"function": changed}, *calls[at + 1 :]]
            }


def _changed_call(function: Plain) -> Iterator[Plain]:
    for name in _variants(function["name"]):
        yield function | {"name": name}
    arguments = function["arguments"]
    if isinstance(arguments, str):
        for text in _variants(arguments):
            if _is_json(text):
                yield function | {"arguments": text}
        return
    for key, value in arguments.items():
        for changed in _changed_value(value):
            yield function | {"arguments": arguments | {key: changed}}


def _changed_value(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield from _variants(value)
    elif isinstance(value, int) and not isinstance(value, bool) and 0 < value < 9:
        yield value + 1


def _variants(text: str) -> Iterator[str]:
    """``text`` with one character replaced by another of its kind: at both ends, in the midst,
    and wherever the kind changes."""
    places = [at for at, character in enumerate(text) if _replacement(character)]
    step = max(1, len(places) // 8)
    chosen = {*places[:2], *places[-2:], *places[::step]}
    chosen |= {at for at in places if not text[at].isascii()}
    for at in sorted(chosen):
        yield text[:at] + _replacement(text[at]) + text[at + 1 :]


def _replacement(character: str) -> str:
    for kind in _KINDS:
        if character in kind:
            return kind[(kind.index(character) + 1) % len(kind)]
    return ""


def _typed(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _untyped(content: Any) -> Any:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _written_arguments(message: Plain) -> Plain:
    calls = [
        call
        if isinstance(call["function"]["arguments"], str)
        else call
        | {
            "function": call["function"]
            | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
        }
        for call in message.get("tool_calls", ())
    ]
    return message | {"tool_calls": calls} if calls else message


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
