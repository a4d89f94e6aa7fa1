"""The children: started before they are needed, timed, killed, and replaced.

A template that is too slow costs its child and nothing else: the next caller gets another that
is warm already. Who is next, when there are more callers than children, is for ``line`` to say.
Nothing is forked; a child is a new interpreter.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from sft_core.provenance import Segment, Skeleton
from sft_core.sandbox import wire
from sft_core.sandbox.line import Line
from sft_core.types import BusyError, Region, TemplateError, TemplateLimitError

CHILDREN: Final = 3
_START_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 20.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from sft_core.sandbox.child import serve; serve()"
)
_LOG: Final = logging.getLogger(__name__)

_TOO_SLOW: Final = (
    "The template takes too long: more than {seconds:g} s for one conversation. "
    "Look for loops inside loops, or text that keeps growing."
)
_CRASHED: Final = (
    "The template brought its process down, most likely by taking too much memory. "
    "Look for text that is multiplied or doubled in a loop."
)
_FAILED: Final = (
    "The lab failed on this template; its log says how. "
    "Please report it, and use another template for now."
)
_BUSY: Final = "Other templates keep the sandbox busy. Wait a moment and try again."


Answer = dict[str, Any] | Skeleton
"""What a child says of a conversation, or the skeleton that it fits."""


def ask(request: Mapping[str, Any], seconds: float) -> list[Answer]:
    """The answers to a request, one for each of its conversations. Raises TemplateLimitError
    where it takes longer than ``seconds`` or brings its process down."""
    return _pool().ask(request, seconds)


class _GoneError(Exception):
    """The child ended before it answered."""


class _LateError(Exception):
    """The child was killed because its time was over."""


class _Child:
    """One process that renders. Starting it does not wait until it is ready."""

    def __init__(self) -> None:
        kept = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in kept if name in os.environ},
            bufsize=0,
        )
        self._input = cast(wire.Raw, self._process.stdin)
        self._output = cast(wire.Raw, self._process.stdout)
        self._ready = False
        self._skeletons: list[Skeleton] = []
        self.spent = False

    def get_ready(self) -> None:
        """Waits until it has started. Raises _GoneError or _LateError where it does not."""
        if not self._ready:
            self._timed(None, _START_SECONDS)
            self._ready = True

    def ask(self, request: Mapping[str, Any], seconds: float) -> list[Answer]:
        """Raises _LateError after ``seconds``, _GoneError where the child is no more."""
        reply = self._timed({**request, "seconds": seconds}, seconds)
        self.spent = bool(reply["spent"])
        if "bug" in reply:
            _LOG.error("The sandbox failed:\n%s", reply["bug"])
            raise TemplateError(_FAILED)
        self._skeletons += map(_skeleton, reply["skeletons"])
        known = self._skeletons
        return [known[answer] if type(answer) is int else answer for answer in reply["answers"]]

    def _timed(self, request: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        clock = threading.Timer(seconds, kill)
        clock.daemon = True
        clock.start()
        try:
            if request is not None:
                wire.ask(self._input, request)
            return cast(dict[str, Any], wire.receive(self._output))
        except (EOFError, OSError, ValueError):
            self.spent = True
            if late.is_set():
                raise _LateError from None
            raise _GoneError from None
        finally:
            clock.cancel()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Ends the process and waits for it, so that nothing is left behind."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Lets go of the process: it has ended, or it is another's."""
        if self._process.returncode is None:
            self._process.returncode = 0
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _skeleton(segments: Sequence[Sequence[Any]]) -> Skeleton:
    found = (
        Segment(literal, hole, field, Region(region), owner)
        for literal, hole, field, region, owner in segments
    )
    return Skeleton(tuple(found), ())


class _Pool:
    """A few children. One that was killed is replaced at once; callers beyond their number wait."""

    def __init__(self) -> None:
        self._line = Line(CHILDREN)
        self._lock = threading.Lock()
        self._closed = False
        self._warm = [_Child() for _ in range(CHILDREN)]

    def ask(self, request: Mapping[str, Any], seconds: float) -> list[Answer]:
        try:
            with self._line.place(request["source"], _WAIT_SECONDS):
                return self._ask_twice(request, seconds)
        except TimeoutError:
            raise BusyError(_BUSY) from None

    def _ask_twice(self, request: Mapping[str, Any], seconds: float) -> list[Answer]:
        """A child may die by chance; a template that ends two of them, or one late, is to blame.
        Both together get no more time than one."""
        left = seconds
        for _ in range(2):
            child = self._take()
            started = None
            try:
                child.get_ready()
                started = time.monotonic()
                answers = child.ask(request, left)
                self._line.took(request["source"], (time.monotonic() - started) / seconds)
                return answers
            except _LateError:
                if started is None:  # the machine is too busy to start a process
                    raise BusyError(_BUSY) from None
                self._line.took(request["source"], 1.0)
                raise TemplateLimitError(_TOO_SLOW.format(seconds=seconds)) from None
            except _GoneError:
                left -= time.monotonic() - started if started else 0.0
                if left < seconds / 2:
                    break
            finally:
                self._give_back(child)
        self._line.took(request["source"], 1.0)
        raise TemplateLimitError(_CRASHED)

    def _take(self) -> _Child:
        """A child, ready if there is one. One that somebody else ended is let go of."""
        with self._lock:
            while self._warm:
                child = self._warm.pop()
                if child.alive:
                    return child
                child.end()
            return _Child()

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not child.spent and not self._closed:
                self._warm.append(child)
                return
            while not self._closed and len(self._warm) < CHILDREN:
                # At the front: the next caller takes from the back one that is ready.
                self._warm.insert(0, _Child())
        child.end()

    def close(self) -> None:
        """Ends the children that are at rest; one at work ends with its request."""
        with self._lock:
            self._closed, children, self._warm = True, self._warm, []
        for child in children:
            child.end()

    def forget(self) -> None:
        """In a forked copy of the process: lets go of children that are not its own."""
        for child in self._warm:
            child.forget()


_started: list[_Pool] = []
_starting = threading.Lock()


def _pool() -> _Pool:
    with _starting:
        if not _started:
            _started.append(_Pool())
            atexit.register(close)
        return _started[0]


def warm_up() -> None:
    """Starts the children, so that the first visitor does not wait for them."""
    _pool()


def close() -> None:
    """Ends the children. The next render starts new ones."""
    with _starting:
        pools, _started[:] = list(_started), []
    for pool in pools:
        pool.close()


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()
    for pool in _started:
        pool.forget()
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
