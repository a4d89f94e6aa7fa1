"""The process in which templates run. It imports Jinja and the rooms that it needs, no more."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sft_core import provenance
from sft_core.provenance import Conversation, Skeleton, dialect
from sft_core.sandbox import wire
from sft_core.types import TemplateError, TemplateLimitError

MEMORY: Final = 256 * 2**20
"""Bytes of address space that rendering may take beyond what the child has at its start."""
_SKELETONS: Final = 4096
_GRACE: Final = 5.0  # seconds after which a child whose parent is gone ends by itself


def serve() -> None:
    """Answers requests until there are no more."""
    requests = io.FileIO(os.dup(0), "r")
    replies = io.FileIO(os.dup(1), "w")
    # Whatever else might read or print must not get between the messages.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    enough = _limit_memory()
    wire.send(replies, "ready")
    told = _Told()
    while True:
        try:
            request = wire.asked(requests)
        except EOFError:
            return
        _end_after(request["seconds"] + _GRACE)
        reply = _reply(request, told)
        # What is left over from one visitor's template must not cost the next one's.
        reply["spent"] = "bug" in reply or _address_space() > enough
        wire.send(replies, reply)
        _end_after(0)


class _Told:
    """The skeletons that the lab was told of, by the numbers that it knows them by. A row that
    fits one travels back as its number: the lab has the messages, and fills them in itself."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Skeleton] = []
        self.new: list[Skeleton] = []

    @property
    def has_room(self) -> bool:
        """Whether any skeleton that comes now will get a number."""
        return len(self._kept) < _SKELETONS

    def number(self, skeleton: Skeleton) -> int | None:
        """None where there are too many already."""
        found = self._numbers.get(id(skeleton))
        if found is None and len(self._kept) < _SKELETONS:
            found = self._numbers[id(skeleton)] = len(self._kept)
            self._kept.append(skeleton)  # so that its id stays its own
            self.new.append(skeleton)
        return found


def _reply(request: Mapping[str, Any], told: _Told) -> dict[str, Any]:
    try:
        told.new = []
        answers = [_answer(request, row, told) for row in request["conversations"]]
        return {"answers": answers, "skeletons": [new.segments for new in told.new]}
    except Exception:  # noqa: BLE001  (goes to the parent, which logs it whole)
        return {"bug": traceback.format_exc()}


def _answer(
    request: Mapping[str, Any], row: Mapping[str, Any], told: _Told
) -> dict[str, Any] | int:
    try:
        outcome = provenance.render_conversation(
            request["source"],
            Conversation(**row),
            request["special_tokens"],
            request["generation_prompt"],
            skeleton_suffices=told.has_room,
        )
    except TemplateError as error:
        return _refusal(error)
    except (MemoryError, RecursionError) as error:  # while its text was taken apart
        return _refusal(dialect.explained(error, None))
    if outcome.skeleton is not None:
        number = told.number(outcome.skeleton)
        if number is not None:
            return number
    return {
        "text": outcome.text,
        "spans": outcome.spans,
        "method": outcome.method,
        "literals": outcome.literals,
        "tagged": outcome.tagged,
        "given": outcome.given,
    }


def _refusal(error: TemplateError) -> dict[str, Any]:
    limit = isinstance(error, TemplateLimitError)
    return {"error": str(error), "limit": limit, "line": error.line, "column": error.column}


# -- limits ---------------------------------------------------------------------------------------


def _limit_memory() -> int:
    """Limits what this process may take; gives the size at which it is better replaced. Where
    the system knows no such limit, the parent's clock must do."""
    base = _address_space()
    try:
        import resource
    except ImportError:
        return sys.maxsize
    limits = {"RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0} | ({"RLIMIT_AS": base + MEMORY} if base else {})
    for name, value in limits.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))
    return base + MEMORY // 2 if base else sys.maxsize


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _end_after(seconds: float) -> None:
    """Ends this process by itself, should its parent be gone; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
