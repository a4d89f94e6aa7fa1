"""Where templates that somebody wrote are compiled and rendered: in a process that can be killed.

Jinja's own sandbox keeps a template from reaching Python, but not from taking all memory or all
time, and constant folding makes even compiling it dangerous. So a few child processes, kept warm,
do it under a limit of memory, with a clock that kills. What comes back is JSON and nothing else.
Templates that the lab ships itself render in this process.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from sft_core import templates
from sft_core.presets import PRESETS_SOURCES
from sft_core.templates import Conversation, Outcome
from sft_core.types import (
    BusyError,
    Example,
    Region,
    Rendered,
    Span,
    Template,
    TemplateError,
    TemplateLimitError,
)

SECONDS: Final = 2.0
"""How long one request may take; a chunk of rows gets a little more for each row."""
MEMORY: Final = 256 * 2**20
"""Bytes of address space that rendering may take beyond what the child has at its start."""
CHILDREN: Final = 2
_CHUNK: Final = 64
_SECONDS_A_ROW: Final = 0.02
_START_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 20.0
_PATIENCE: Final = 3  # rows in a row that may exceed the limits before the rest is given up
_LONGEST_REPLY: Final = 2**28
_ROOT: Final = Path(__file__).resolve().parent.parent
_LOG: Final = logging.getLogger(__name__)

_TOO_SLOW: Final = (
    "The template takes longer than {seconds:g} seconds for one conversation. "
    "Look for loops inside loops, or text that keeps growing."
)
_CRASHED: Final = (
    "The template brought its process down, most likely by taking too much memory. "
    "Look for text that is multiplied or doubled in a loop."
)
_BUSY: Final = "Other templates keep the sandbox busy. Wait a moment and try again."


def render(
    template: Template,
    example: Example,
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> Rendered:
    """A conversation as text with regions. Raises TemplateError where the template fails on it,
    TemplateLimitError where it takes too much time, memory or output."""
    if template.source in PRESETS_SOURCES:
        return templates.render(
            template, example, special_tokens, add_generation_prompt=add_generation_prompt
        )
    [result] = _ask(template, [example], special_tokens, add_generation_prompt)
    if isinstance(result, TemplateError):
        raise result
    return result


def render_many(
    template: Template,
    examples: Iterable[Example],
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> Iterator[Rendered | TemplateError]:
    """As ``render``, for each example in order; what fails is yielded as its error.

    While the caller works on one chunk of rows, the next is rendered.
    """
    if template.source in PRESETS_SOURCES:
        for example in examples:
            try:
                yield templates.render(
                    template, example, special_tokens, add_generation_prompt=add_generation_prompt
                )
            except TemplateError as error:
                yield error
        return
    rows = iter(examples)
    worker = _Chunks(template, special_tokens, add_generation_prompt)
    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming = ahead.submit(worker.render, list(itertools.islice(rows, _CHUNK)))
        while results := coming.result():
            coming = ahead.submit(worker.render, list(itertools.islice(rows, _CHUNK)))
            yield from results


class _Chunks:
    """Chunks of one data set. Rows that exceed the limits are looked for one by one; a template
    that exceeds them again and again is given up."""

    def __init__(
        self, template: Template, special_tokens: Mapping[str, str], generation_prompt: bool
    ) -> None:
        self._fixed = (template, special_tokens, generation_prompt)
        self._exceeded = 0
        self._verdict: TemplateLimitError | None = None

    def render(self, rows: Sequence[Example]) -> list[Rendered | TemplateError]:
        if not rows:
            return []
        if self._verdict is None:
            with suppress(TemplateLimitError):
                return self._ask(rows)
        return [self._one(row) for row in rows]

    def _one(self, row: Example) -> Rendered | TemplateError:
        if self._verdict is not None:
            return self._verdict
        try:
            [result] = self._ask([row])
        except TemplateLimitError as error:
            self._exceeded += 1
            self._verdict = error if self._exceeded >= _PATIENCE else None
            return error
        self._exceeded = 0
        return result

    def _ask(self, rows: Sequence[Example]) -> list[Rendered | TemplateError]:
        template, special_tokens, generation_prompt = self._fixed
        return _ask(template, rows, special_tokens, generation_prompt)


def _ask(
    template: Template,
    rows: Sequence[Example],
    special_tokens: Mapping[str, str],
    generation_prompt: bool,
) -> list[Rendered | TemplateError]:
    """One request. Raises TemplateLimitError where the child had to be killed."""
    request = {
        "source": template.source,
        "special_tokens": dict(special_tokens),
        "generation_prompt": generation_prompt,
        "conversations": [templates.conversation(row).as_json() for row in rows],
    }
    answers = _pool().ask(request, SECONDS + _SECONDS_A_ROW * (len(rows) - 1))
    return [_result(answer, row) for answer, row in zip(answers, rows, strict=True)]


def _result(answer: Mapping[str, Any], row: Example) -> Rendered | TemplateError:
    if "error" in answer:
        kind = TemplateLimitError if answer["limit"] else TemplateError
        return kind(answer["error"], answer["line"], answer["column"])
    spans = tuple(
        Span(start, end, Region(region), message) for start, end, region, message in answer["spans"]
    )
    return templates.dress(Outcome(answer["text"], spans, answer["method"]), row)


# -- the parent's side ----------------------------------------------------------------------------


class _GoneError(Exception):
    """The child ended before it answered."""


class _Child:
    """One process that renders. Starting it does not wait until it is ready."""

    def __init__(self) -> None:
        boot = (
            "import sys; sys.path.insert(0, sys.argv[1]); import sft_core.sandbox as s; s.serve()"
        )
        kept = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", boot, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in kept if name in os.environ},
            bufsize=0,
        )
        self._ready = False
        self.spent = False

    def ask(self, request: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
        """Raises TemplateLimitError after ``seconds``, _GoneError where the child is no more."""
        if not self._ready:
            self._timed(None, _START_SECONDS)
            self._ready = True
        reply = self._timed({**request, "seconds": seconds}, seconds)
        self.spent = bool(reply["spent"])
        if "bug" in reply:
            _LOG.error("The sandbox failed:\n%s", reply["bug"])
            raise TemplateError(
                "The lab failed on this template; its log says how. "
                "Please report it, and use another template for now."
            )
        answers: list[dict[str, Any]] = reply["answers"]
        return answers

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
                _write(_pipe(self._process.stdin), request)
            return _read(_pipe(self._process.stdout))
        except (EOFError, OSError, ValueError):
            self.spent = True
            if late.is_set():
                raise TemplateLimitError(_TOO_SLOW.format(seconds=seconds)) from None
            raise _GoneError from None
        finally:
            clock.cancel()

    def end(self) -> None:
        """Ends the process and waits for it, so that nothing is left behind."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()

    def forget(self) -> None:
        """Lets go of the process without ending it."""
        self._process.returncode = 0
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()


class _Pool:
    """A few children. One that was killed is replaced at once; callers beyond their number wait."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(CHILDREN)
        self._lock = threading.Lock()
        self._warm = [_Child() for _ in range(CHILDREN)]
        self._closed = False

    def ask(self, request: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
        if not self._free.acquire(timeout=_WAIT_SECONDS):
            raise BusyError(_BUSY)
        try:
            return self._asked_twice(request, seconds)
        finally:
            self._free.release()

    def _asked_twice(self, request: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
        """A child may have died while nobody looked; a template that ends two is to blame."""
        for _ in range(2):
            with self._lock:
                child = self._warm.pop()
            try:
                return child.ask(request, seconds)
            except _GoneError:
                continue
            finally:
                self._give_back(child)
        raise TemplateLimitError(_CRASHED)

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not child.spent and not self._closed:
                self._warm.append(child)
                return
            if not self._closed:
                # At the front: the next caller takes one that is ready, from the back.
                self._warm.insert(0, _Child())
        child.end()

    def close(self) -> None:
        """Ends the children that are at rest; those at work end with their request."""
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
    # The children belong to the process that was forked: here they are neither used nor ended.
    global _starting
    _starting = threading.Lock()
    for pool in _started:
        pool.forget()
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- what travels ---------------------------------------------------------------------------------


def _pipe(pipe: Any) -> BinaryIO:
    if pipe is None:
        raise _GoneError
    stream: BinaryIO = pipe
    return stream


def _write(pipe: BinaryIO, value: Any) -> None:
    data = json.dumps(value).encode("ascii")
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[pipe.write(view) or 0 :]


def _read(pipe: BinaryIO) -> Any:
    length = int.from_bytes(_exactly(pipe, 8), "big")
    if length > _LONGEST_REPLY:
        raise ValueError("a reply that no child of ours would send")
    return json.loads(_exactly(pipe, length))


def _exactly(pipe: BinaryIO, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = pipe.read(min(length - len(data), 2**20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


# -- the child's side -----------------------------------------------------------------------------


def serve() -> None:
    """The child: answers requests until its input ends."""
    requests, replies = sys.stdin.buffer.raw, os.fdopen(os.dup(1), "wb", buffering=0)  # type: ignore[attr-defined]
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (held until the process ends)
    enough = _limit_memory()
    _write(replies, "ready")
    while True:
        try:
            request = _read(requests)
        except EOFError:
            return
        _alarm(request["seconds"] + 5)
        reply = _reply(request)
        reply["spent"] = reply.get("spent", False) or _address_space() > enough
        _write(replies, reply)
        _alarm(0)


def _reply(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answers = [_answer(request, row) for row in request["conversations"]]
    except Exception:  # noqa: BLE001  (reported whole to the parent, which logs it)
        import traceback

        return {"bug": traceback.format_exc(), "spent": True}
    return {"answers": answers}


def _answer(request: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        outcome = templates.render_conversation(
            request["source"],
            Conversation(**row),
            request["special_tokens"],
            request["generation_prompt"],
        )
    except TemplateError as error:
        limit = isinstance(error, TemplateLimitError)
        return {"error": str(error), "limit": limit, "line": error.line, "column": error.column}
    return {"text": outcome.text, "spans": outcome.spans, "method": outcome.method}


def _limit_memory() -> int:
    """Limits what this process may take; gives the size at which it is better replaced. Where
    the system knows no such limit, the parent's clock must do."""
    base = _address_space()
    try:
        import resource
    except ImportError:
        return sys.maxsize
    for name, value in (
        ("RLIMIT_AS", base + MEMORY if base else None),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
    ):
        if value is not None:
            with suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, name), (value, value))
    return base + MEMORY // 2 if base else sys.maxsize


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _alarm(seconds: float) -> None:
    """Ends this process by itself, in case the parent is not there any more to do it."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
