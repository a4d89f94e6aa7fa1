"""What comes back from the children, who waits for whom, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from sft_core import sandbox, templates
from sft_core.provenance import Segment, Skeleton
from sft_core.sandbox import child, pool, wire
from sft_core.sandbox import line as sandbox_line
from sft_core.sandbox.line import Line
from sft_core.templates import PRESETS
from sft_core.types import (
    Example,
    Region,
    Rendered,
    Template,
    TemplateError,
    TemplateLimitError,
)
from tests.sample_templates import DIALOGUE, PRINTS_LISTS, SAMPLES, TOKENS, assistant, user

ROOT = Path(__file__).resolve().parents[1]
TALK = Example("talk", (user("Hi"), assistant("Yes")))
GOOD = Template("good", "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}")
ENDLESS = Template(
    "endless",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}",
)


@pytest.fixture(autouse=True, scope="module")
def _children() -> Iterator[None]:
    sandbox.warm_up()
    yield
    sandbox.close()


def render(source: str, example: Example = TALK) -> Rendered:
    return sandbox.render(Template("test", source), example, TOKENS)


# -- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SAMPLES, "prints-lists"])
def test_a_child_gives_what_this_process_gives(name: str) -> None:
    template = Template(name, SAMPLES.get(name, PRINTS_LISTS))
    for example in (DIALOGUE, TALK):
        for generation_prompt in (False, True):
            here = templates.render(
                template, example, TOKENS, add_generation_prompt=generation_prompt
            )
            there = sandbox.render(
                template, example, TOKENS, add_generation_prompt=generation_prompt
            )
            assert there == here


def test_errors_arrive_with_their_place() -> None:
    with pytest.raises(TemplateError, match=r"line 2, column 6: expected token") as caught:
        render("x\n{{ a b }}")
    assert (caught.value.line, caught.value.column) == (2, 6)
    with pytest.raises(TemplateError, match="refuses this conversation"):
        render("{{ raise_exception('no') }}")


def test_odd_characters_survive_the_journey() -> None:
    odd = "é\u2028\ud800\x00😀"
    rendered = sandbox.render(GOOD, Example("x", (user(odd), assistant(odd))), TOKENS)
    assert rendered.text == f"<user>{odd}<end><assistant>{odd}<end>"


def test_a_shipped_template_needs_no_child() -> None:
    sandbox.close()
    sandbox.render(Template("chatml", PRESETS["chatml"].source), TALK, TOKENS)
    assert list(sandbox.render_many(Template("c", PRESETS["chatml"].source), [TALK], TOKENS))
    assert not pool._started


# -- what a child cannot do -----------------------------------------------------------------------


def test_the_memory_of_a_child_is_limited() -> None:
    if not Path("/proc").exists():
        assert child._address_space() == 0, "the clock alone must do here"
        return
    sandbox.render(GOOD, TALK, TOKENS)
    one = pool._started[0]._warm[-1]
    limits = Path(f"/proc/{one._process.pid}/limits").read_text(encoding="ascii")
    [line] = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert 256 * 2**20 < int(line.split()[3]) < 2**30


def test_what_fails_inside_a_child_is_logged_whole_and_the_child_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = {one._process.pid for one in pool._pool()._warm}
    with pytest.raises(TemplateError, match="its log says how"):
        pool.ask({"source": "", "conversations": [{"nonsense": 1}]}, 2.0)
    assert "Traceback" in caplog.text
    assert "nonsense" in caplog.text
    after = {one._process.pid for one in pool._pool()._warm}
    assert len(before & after) == pool.CHILDREN - 1


def test_a_child_knows_nothing_of_this_process() -> None:
    os.environ["HF_TOKEN"] = "secret"
    try:
        sandbox.close()
        sandbox.render(GOOD, TALK, TOKENS)
        one = pool._started[0]._warm[-1]
        environ = Path(f"/proc/{one._process.pid}/environ")
        shown = ["ps", "eww", str(one._process.pid)]
        seen = environ.read_bytes() if environ.exists() else subprocess.check_output(shown)
        assert b"secret" not in seen
    finally:
        del os.environ["HF_TOKEN"]


# -- visitors beside each other -------------------------------------------------------------------


def test_more_visitors_than_children_all_get_their_text() -> None:
    results: list[Rendered] = []

    def visit() -> None:
        results.extend(sandbox.render(GOOD, TALK, TOKENS) for _ in range(10))

    visitors = [threading.Thread(target=visit) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(results) == 60
    assert len(set(results)) == 1


def test_who_is_next_depends_on_what_is_known_of_a_template() -> None:
    line = Line(3)
    line.took("bad", 1.0)
    line.took("good", 0.01)
    with line.place("bad", 1), line.place("new", 1):
        for refused in ("bad", "another new one"):
            with pytest.raises(TimeoutError), line.place(refused, 0):
                pass
        with line.place("good", 1), pytest.raises(TimeoutError), line.place("good", 0):
            pass
    with line.place("new", 1), line.place("another new one", 1), pytest.raises(TimeoutError):
        line.place("bad", 0).__enter__()
    with line.place("good", 1), line.place("good", 1), line.place("new", 1):
        pass
    line.took("good", 0.9)
    with line.place("new", 1), line.place("new", 1), pytest.raises(TimeoutError):
        line.place("good", 0).__enter__()


def test_a_template_that_was_killed_once_is_not_held_back_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(3)
    line.took("bad", 1.0)
    monkeypatch.setattr(sandbox_line, "_FORGIVEN", -1.0)
    with line.place("bad", 1), line.place("bad", 1):
        pass


def test_first_come_first_served() -> None:
    line = Line(1)
    served: list[int] = []

    def visit(number: int) -> None:
        with line.place("x", 10):
            served.append(number)

    with line.place("x", 1):
        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(5)]
        for number, visitor in enumerate(visitors):
            visitor.start()
            while len(line._waiting) <= number:
                time.sleep(0.001)
    for visitor in visitors:
        visitor.join()
    assert served == [0, 1, 2, 3, 4]


def test_memory_of_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_line, "_REMEMBERED", 3)
    line = Line(3)
    for number in range(9):
        line.took(str(number), 0.0)
    assert len(line._known) == 3


# -- many rows ------------------------------------------------------------------------------------


def test_many_rows_keep_their_order_and_one_bad_row_stops_nobody() -> None:
    picky = Template(
        "picky", GOOD.source + "{{ raise_exception('bad') if messages[0].content == 'bad' }}"
    )
    rows = [
        Example(str(n), (user("bad" if n % 50 == 7 else f"q{n}"), assistant(f"a{n}")))
        for n in range(200)
    ]
    results = list(sandbox.render_many(picky, iter(rows), TOKENS))
    assert len(results) == 200
    for number, result in enumerate(results):
        if number % 50 == 7:
            assert isinstance(result, TemplateError)
        else:
            assert isinstance(result, Rendered)
            assert f"a{number}<end>" in result.text
    assert list(sandbox.render_many(picky, [], TOKENS)) == []


def test_rows_that_fit_a_skeleton_are_put_together_here_as_they_were_there() -> None:
    template = Template("mine", PRESETS["chatml"].source + "{#- mine #}")
    texts = ("", "a", " b ", "é\u2028\ud800\x00😀", "<|im_end|>", "c\n" * 50)
    rows = [
        Example(f"{a}{b}", (user(texts[a % 6]), assistant(texts[b % 6]), *more))
        for more in ((), (user("More"), assistant(texts[2])))
        for a in range(6)
        for b in range(6)
    ]
    expected = [templates.render(template, row, TOKENS) for row in rows]
    sandbox.close()  # other tests' children have skeletons of their own
    for _ in range(2):
        assert list(sandbox.render_many(template, rows, TOKENS)) == expected
    [one] = [it for it in pool._pool()._warm if it._skeletons]
    assert len(one._skeletons) < len(rows) / 2


def test_a_child_tells_of_so_many_skeletons_and_then_sends_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "_SKELETONS", 2)
    told = child._Told()
    many = [Skeleton((Segment(str(n), None, "", Region.CONTENT, 0),), ()) for n in range(4)]
    assert [told.number(one) for one in many * 2] == [0, 1, None, None] * 2
    assert told.new == many[:2]


@pytest.fixture
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.6)


@pytest.mark.usefixtures("_short_limits")
def test_a_row_that_exceeds_the_limits_is_found_among_the_others() -> None:
    slow = Template(
        "slow",
        GOOD.source + "{% if messages[0].content == 'slow' %}" + ENDLESS.source + "{% endif %}",
    )
    rows = [Example(str(n), (user("slow" if n == 3 else "q"), assistant("a"))) for n in range(8)]
    results = list(sandbox.render_many(slow, rows, TOKENS))
    assert [isinstance(result, TemplateLimitError) for result in results] == [
        n == 3 for n in range(8)
    ]


@pytest.mark.usefixtures("_short_limits")
def test_a_template_that_always_exceeds_them_is_given_up_soon() -> None:
    began = time.monotonic()
    results = list(sandbox.render_many(ENDLESS, [TALK] * 300, TOKENS))
    assert len(results) == 300
    assert all(isinstance(result, TemplateLimitError) for result in results)
    assert time.monotonic() - began < 10.0


def test_rows_that_nobody_wants_any_more_are_let_go() -> None:
    stream = sandbox.render_many(GOOD, [TALK] * 1000, TOKENS)
    assert isinstance(next(stream), Rendered)
    stream.close()  # type: ignore[attr-defined]
    assert sandbox.render(GOOD, TALK, TOKENS)


# -- beginning and end ----------------------------------------------------------------------------

SCRIPT = """
import sys
from sft_core import sandbox
from sft_core.sandbox import pool
from sft_core.types import Template
from tests.test_sandbox import GOOD, TALK, TOKENS
sandbox.render(GOOD, TALK, TOKENS)
print(*(one._process.pid for one in pool._started[0]._warm), flush=True)
"""


def _script(more: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT + more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_nothing_is_left_when_the_process_ends() -> None:
    out, err = _script().communicate(timeout=60)
    assert err == b""
    assert len(out.split()) == pool.CHILDREN
    assert all(_gone(int(pid)) for pid in out.split())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_nothing_is_left_when_the_process_is_killed() -> None:
    process = _script("sys.stdin.read()\nimport time; time.sleep(60)")
    assert process.stdout is not None
    pids = process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert all(_gone(int(pid)) for pid in pids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing can be forked here")
def test_a_forked_process_has_children_of_its_own() -> None:
    more = (
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    sandbox.render(GOOD, TALK, TOKENS)\n"
        "    print(*(one._process.pid for one in pool._started[0]._warm), flush=True)\n"
        "    sandbox.close()\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "sandbox.render(GOOD, TALK, TOKENS)\n"
    )
    out, err = _script(more).communicate(timeout=60)
    assert err == b""
    mine, theirs = (set(line.split()) for line in out.splitlines())
    assert len(mine | theirs) == 2 * pool.CHILDREN


class Kind(StrEnum):
    USER = "user"


class Whole(int):
    """An int that is not quite one."""


def test_what_travels_is_whole_or_refused() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as out, open(writing, "wb", buffering=0) as into:  # noqa: PTH123
        wire.send(into, {"a": ["é", None]})
        assert wire.receive(out) == {"a": ["é", None]}
        for value in ({"a": ["é\ud800", None, 1.5, True]}, {"role": Kind.USER, "n": Whole(3)}):
            wire.ask(into, value)
            assert wire.asked(out) == value
        into.write((wire.LONGEST + 1).to_bytes(8, "big"))
        with pytest.raises(ValueError, match="too long"):
            wire.receive(out)
        into.write(b"\0")
        into.close()
        with pytest.raises(EOFError):
            wire.receive(out)
