"""Audits in the background: each visitor's own, one at a time, stopped, kept for a while."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sft_core.audit import audit
from sft_core.lessons import FROM_SCRATCH
from sft_core.settings import HOST
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import BusyError, Example, Message, Template
from sft_core.ui import audits as room
from sft_core.ui.audits import Audits, Plan, Progress, State

INST = Template("inst-resp", PRESETS["inst-resp"].source)


@pytest.fixture
def audits() -> Iterator[Audits]:
    made = Audits()
    yield made
    made.close()


def examples(count: int) -> list[Example]:
    return [
        Example(f"r{n}", (Message("user", f"Ask {n}"), Message("assistant", "Yes")))
        for n in range(count)
    ]


def plan(rows: Any, **values: Any) -> Plan:
    made = Plan(
        examples=rows,
        held_out=(),
        template=INST,
        tokenizer=load_tokenizer("bytes"),
        config=FROM_SCRATCH,
        max_length=20,
        key="k",
        held="h",
        title="t",
    )
    return replace(made, **values)


class Gated(list[Example]):
    """Rows of which the second waits until somebody opens the gate."""

    def __init__(self, rows: list[Example]) -> None:
        super().__init__(rows)
        self.reached, self.gate = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Example]:
        for at, row in enumerate(super().__iter__()):
            if at == 1:
                self.reached.set()
                assert self.gate.wait(20)
            yield row


def end_of(audits: Audits, id: str) -> Progress:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        progress = audits.get(id)
        assert progress is not None
        if progress.state.over:
            return progress
        time.sleep(0.005)
    raise AssertionError("The audit does not end.")


def test_an_audit_ends_with_the_figures_of_the_core_and_its_files(audits: Audits) -> None:
    rows = examples(300)
    made = plan(rows, held_out=rows[:2])
    ended = end_of(audits, audits.start(made))
    wanted = audit(rows, INST, made.tokenizer, made.config.policy, 20, held_out=rows[:2])
    assert (ended.state, ended.audit) == (State.DONE, wanted)
    figures, table, lines = ended.files
    assert json.loads(figures.read_text())["rows"] == 300
    assert "mean_length" in table.read_text()
    with lines.open(newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == [row.id for row in rows]


def test_two_visitors_have_an_audit_each_and_the_second_sees_its_place(audits: Audits) -> None:
    slow, quick = Gated(examples(200)), examples(50)
    first = audits.start(plan(slow))
    assert slow.reached.wait(20)
    second, third = audits.start(plan(quick)), audits.start(plan(quick))
    waiting = audits.get(third)
    assert waiting is not None
    assert (waiting.state, waiting.ahead) == (State.WAITING, 2)
    audits.stop(second)  # somebody else's Stop
    ended = end_of(audits, second)
    assert (ended.state, ended.text) == (State.STOPPED, "It had not begun.")
    slow.gate.set()
    assert end_of(audits, first).audit.rows == 200
    ended = end_of(audits, third)
    assert (ended.state, ended.audit.rows) == (State.DONE, 50)


def test_stop_keeps_the_figures_of_the_rows_so_far(audits: Audits) -> None:
    rows = Gated(examples(5000))
    id = audits.start(plan(rows))
    assert rows.reached.wait(20)
    audits.stop(id)
    rows.gate.set()
    ended = end_of(audits, id)
    assert ended.state is State.STOPPED
    assert 0 < ended.audit.rows < 5000
    assert ended.text == (f"The figures are those of the first {ended.audit.rows:,} of 5,000 rows.")
    with ended.files[2].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == ended.audit.rows


def test_an_audit_that_takes_too_long_ends_and_says_so() -> None:
    hasty = Audits(replace(HOST, max_minutes=1e-9))
    try:
        ended = end_of(hasty, hasty.start(plan(examples(500))))
        assert ended.state is State.STOPPED
        assert "An audit may take 0 s here." in ended.text
    finally:
        hasty.close()


def test_too_many_audits_at_once_are_refused() -> None:
    narrow = Audits(replace(HOST, queue_size=2))
    rows = Gated(examples(3))
    try:
        ids = [narrow.start(plan(rows)), narrow.start(plan(examples(1)))]
        with pytest.raises(BusyError, match="Try again"):
            narrow.start(plan(examples(1)))
        rows.gate.set()
        assert [end_of(narrow, id).state for id in ids] == [State.DONE] * 2
        assert end_of(narrow, narrow.start(plan(examples(1)))).state is State.DONE
    finally:
        rows.gate.set()
        narrow.close()


def test_the_oldest_are_let_go_with_their_files(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "KEPT", 2)
    ids = []
    for _ in range(5):
        ids.append(audits.start(plan(examples(2))))
        end_of(audits, ids[-1])
    assert [audits.get(id) is None for id in ids] == [True, True, False, False, False]
    kept = {end_of(audits, id).files[0].parent.name for id in ids[2:]}
    assert {path.name for path in audits._home().iterdir()} == kept == set(ids[2:])
    folder = audits._home()
    audits.close()
    assert not folder.exists()
    assert audits.get("no such") is None
    odd: Any
    for odd in (None, "", ["x"], {"a": 1}):  # a browser may send anything
        assert audits.get(odd) is None
        audits.stop(odd)


def test_what_goes_wrong_costs_one_audit_and_is_told(
    audits: Audits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*_: Any) -> Iterator[Any]:
        raise BusyError("Others keep it busy.")
        yield

    def broken(*_: Any) -> Iterator[Any]:
        raise ZeroDivisionError("what nobody foresaw")
        yield

    real = room.rows
    monkeypatch.setattr(room, "rows", busy)
    ended = end_of(audits, audits.start(plan(examples(2))))
    assert (ended.state, ended.text) == (State.FAILED, "Others keep it busy.")
    assert ended.files == ()
    monkeypatch.setattr(room, "rows", broken)
    ended = end_of(audits, audits.start(plan(examples(2))))
    assert "did not foresee" in ended.text
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(room, "rows", real)
    assert end_of(audits, audits.start(plan(examples(2)))).state is State.DONE


def test_figures_outlive_a_doctor_who_cannot_come(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise BusyError("Others keep it busy.")

    monkeypatch.setattr(room.doctor, "doctor", busy)
    ended = end_of(audits, audits.start(plan(examples(2))))
    assert (ended.state, ended.audit.rows, len(ended.files)) == (State.DONE, 2, 3)
    assert ended.text == "The doctor could not look at them: Others keep it busy."


def test_the_doctor_sees_rows_from_all_over_the_set(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SURVEYED", 7)
    rows = examples(20)
    rows[18] = Example("r18", (Message("user", "Ask"),))
    ended = end_of(audits, audits.start(plan(rows)))
    assert ended.surveyed == 7  # every third of twenty
    assert ("r18",) in {finding.rows for finding in ended.findings}
    assert end_of(audits, audits.start(plan(examples(3)))).surveyed == 3


def test_rows_that_cannot_be_written_as_they_are_become_escapes(audits: Audits) -> None:
    odd = Example("half \ud83d", (Message("user", "half \ud83d"), Message("assistant", "ok")))
    ended = end_of(audits, audits.start(plan([odd, *examples(1)])))
    assert (ended.state, ended.audit.failed) == (State.DONE, 1)
    assert all("half \\ud83d" in file.read_text() for file in (ended.files[0], ended.files[2]))


def test_nothing_is_made_before_the_first_audit(tmp_path: Path) -> None:
    made = Audits()
    assert made._folder is None
    assert made._thread is None
    made.close()


def test_what_a_killed_server_left_behind_is_swept_away(
    audits: Audits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone, alive = (tmp_path / f"sft-audits-{pid}-x" for pid in (ended.pid, os.getpid()))
    for folder in (gone, alive):
        folder.mkdir()
    end_of(audits, audits.start(plan(examples(1))))
    assert (gone.exists(), alive.exists()) == (False, True)
