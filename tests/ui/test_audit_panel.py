"""The audit as a view: what it says and shows, what starts it, and which row a click opens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sft_core.audit import audit
from sft_core.config import DataConfig, MaskPolicy
from sft_core.lessons import FROM_SCRATCH
from sft_core.templates import PRESETS
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, Example, LimitError, Message, Template
from sft_core.ui import audit_panel, findings
from sft_core.ui.audit_view import lists_value, plot_values, summary_value
from sft_core.ui.audits import Audits, Progress, State
from sft_core.ui.sources import Pick, pack, rows_of
from tests.ui.controls import from_scratch

SKIP = gr.skip()
INST = Template("inst-resp", PRESETS["inst-resp"].source)


@pytest.fixture
def audits() -> Iterator[Audits]:
    made = Audits()
    yield made
    made.close()


def followed(audits: Audits, id: str) -> tuple[Any, ...]:
    """What the page gets once the audit is over."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        progress = audits.get(id)
        assert progress is not None
        if progress.state.over:
            return audit_panel.follow(audits, id, None)
        time.sleep(0.005)
    raise AssertionError("The audit does not end.")


def row(id: str, question: str, answer: str) -> Example:
    return Example(id, (Message("user", question), Message("assistant", answer)))


def progress(*rows: Example, state: State = State.DONE, limit: int = 40, **values: Any) -> Progress:
    held_out = values.pop("held_out", ())
    found = audit(rows, INST, load_tokenizer("bytes"), MaskPolicy(), limit, held_out=held_out)
    return Progress(
        state, found, values.pop("total", len(rows)), FROM_SCRATCH, "k", "h", "t", **values
    )


# -- values ----------------------------------------------------------------------------------


def test_figures_come_with_how_they_were_computed() -> None:
    value = summary_value(progress(row("a", "H" * 45, "no room"), row("b", "Hi", "Yes")))
    figures = {it["name"]: it for it in value["figures"]}
    assert figures["trained tokens"]["figure"] == "8.3 %"  # 4 of 40 + 8
    assert figures["tokens per row"]["beside"] == "on average; the longest has 55"
    assert figures["trained tokens lost"]["figure"] == "67 %"
    padding = figures["padding, if there were any"]  # the one row with something to train has 8
    assert (padding["figure"], padding["beside"]) == ("80 %", "at 40 tokens a row; packed 80 %")
    assert all(len(it["how"]) > 40 for it in value["figures"])
    texts = " ".join(it["text"] for it in value["notes"])
    assert "1 row has nothing to train on" in texts
    assert "1 row is longer than 40 tokens. What stands behind is lost: 67 %" in texts
    assert "A limit of 55 keeps" in texts


def test_rows_that_fail_are_told_in_a_sentence() -> None:
    broken = row("x", "half \ud83d", "ok")
    (note,) = summary_value(progress(broken, row("b", "Hi", "Yes")))["notes"]
    assert note["level"] == "warning"
    assert note["text"].startswith("1 row could not be made into tokens and is in no figure. The")
    (note,) = summary_value(progress(broken))["notes"]
    assert note["level"] == "error"
    assert all(value["figure"] is None for value in plot_values(progress(broken)))
    lists = {it["key"]: it for it in lists_value(progress(broken))["lists"]}
    assert lists["failed"]["rows"][0]["row"] == "x"


def test_what_an_audit_does_is_told_from_queue_to_end() -> None:
    assert "which rows repeat" in summary_value(None)["text"]
    assert lists_value(None) == {"lists": []}
    told = summary_value(progress(state=State.WAITING, ahead=2, total=9))
    assert told["text"] == "2 audits stand before this one"
    assert summary_value(progress(state=State.WAITING))["text"] == "next in the queue"
    running = summary_value(progress(row("a", "Hi", "Yes"), state=State.RUNNING, total=4))
    assert (running["text"], running["share"], running["over"]) == ("1 of 4 rows", 0.25, False)
    stopped = summary_value(progress(state=State.STOPPED, text="It was early."))
    assert (stopped["text"], stopped["level"]) == ("It was early.", "info")


def test_lists_name_what_there_is_and_leave_out_what_there_is_not() -> None:
    rows = [row("a", "Hi", "Yes"), row("b", "Hi", "Yes"), row("c", "Hi", "No"), row("d", "Q", "A")]
    told = progress(*rows, held_out=[row("h", "Q", "?")])
    lists = {it["key"]: it for it in lists_value(told)["lists"]}
    assert set(lists) == {"worst", "truncated", "duplicates", "conflicts", "leaked"}
    assert lists["duplicates"]["rows"] == [{"row": "b", "other": "a"}]
    assert lists["conflicts"]["rows"] == [{"row": "c", "other": "a"}]
    assert lists["leaked"]["rows"] == [{"row": "d", "other": "h"}]
    assert "d that of h" in summary_value(told)["notes"][0]["text"]
    assert lists["truncated"]["rows"] == []


# -- handlers --------------------------------------------------------------------------------


def test_a_small_set_is_audited_when_somebody_looks_and_again_when_something_changed(
    audits: Audits,
) -> None:
    id, drawn, _ = audit_panel.enter(audits, from_scratch(), "gone")
    assert drawn is None
    shown = followed(audits, id)
    assert len(shown) == audit_panel.FOLLOWED
    assert json.loads(shown[1])["text"] == "all 160 training rows"
    assert json.loads(shown[1])["title"] == (
        "INST / RESP; answers, with end of turn; at most 256 tokens"
    )
    assert shown[10]["visible"] is True
    names = [Path(it["value"]).name for it in shown[11:]]
    assert names == ["audit.json", "audit-figures.csv", "audit-rows.csv"]
    assert audit_panel.follow(audits, id, shown[0]) == (SKIP,) * audit_panel.FOLLOWED
    assert audit_panel.enter(audits, from_scratch(), id)[0] == SKIP
    assert audit_panel.enter(audits, from_scratch(width=64), id)[0] == SKIP, (
        "no token depends on it"
    )
    assert audit_panel.revisit(audits, from_scratch(), "gone") == (SKIP,) * 3
    assert audit_panel.revisit(audits, from_scratch(), id)[0] == SKIP
    other, _, _ = audit_panel.revisit(audits, from_scratch(end_of_turn=False), id)
    assert other != id
    before, after = (json.loads(followed(audits, it)[1])["figures"][0] for it in (id, other))
    assert before["figure"] != after["figure"]


def test_a_large_set_waits_for_its_button_and_says_when_it_is_stale(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_panel, "AT_ONCE_ROWS", 10)
    assert audit_panel.enter(audits, from_scratch(), "")[:2] == (SKIP, SKIP)
    id, _, line = audit_panel.start(audits, from_scratch(), "")
    assert json.loads(line)["text"] == ""
    followed(audits, id)
    assert json.loads(audit_panel.enter(audits, from_scratch(), id)[2])["text"] == ""
    changed = audit_panel.enter(audits, from_scratch(max_length=30), id)
    assert changed[0] == SKIP
    assert json.loads(changed[2])["text"].startswith("This audit is of other")


def test_a_long_audit_is_not_given_up_because_a_new_page_holds_a_small_set(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_panel, "AT_ONCE_ROWS", 159)
    id, _, _ = audit_panel.start(audits, from_scratch(), "")
    small = from_scratch(held=pack(DataConfig("six-tasks", rows=40)))
    assert len(rows_of(DataConfig("six-tasks", rows=40)).splits.train) < 159
    begun, _, line = audit_panel.enter(audits, small, id)
    assert begun == SKIP
    assert json.loads(line)["level"] == "warning"
    assert audit_panel.enter(audits, small, "")[0] != SKIP


def test_starting_again_stops_the_audit_before(audits: Audits, tmp_path: Path) -> None:
    rows = [{"prompt": f"Ask {n} " + "why " * 50, "response": "So."} for n in range(6000)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    many = from_scratch(held=pack(DataConfig(source=str(file))))
    first, _, _ = audit_panel.start(audits, many, "")
    second, _, _ = audit_panel.start(audits, from_scratch(), first)
    assert json.loads(followed(audits, second)[1])["state"] == "done"
    ended = audits.get(first)
    assert ended is not None
    assert (ended.state, ended.audit.rows < 6000) == (State.STOPPED, True)
    assert audit_panel.stop(audits, second)["interactive"] is False


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"width": None}, "Width is empty"),
        ({"source": "{% for m in messages %}"}, "cannot be read at line 1"),
        ({"model": "own", "own_model": "no/such-model-anywhere"}, ""),
    ],
)
def test_what_cannot_begin_says_why(audits: Audits, values: dict[str, Any], told: str) -> None:
    for handler in (audit_panel.enter, audit_panel.start):
        begun, _, line = handler(audits, from_scratch(**values), "")
        assert begun == SKIP
        assert json.loads(line)["level"] == "error"
        assert told in json.loads(line)["text"]


def test_a_host_bounds_the_length_that_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_panel, "HOST", replace(audit_panel.HOST, max_length=100))
    with pytest.raises(LimitError, match="allows 100"):
        audit_panel.plan_of(from_scratch())


def test_a_template_that_fails_on_every_row_is_an_audit_too(audits: Audits) -> None:
    broken = from_scratch(source="{{ raise_exception('not these') }}")
    id, _, _ = audit_panel.start(audits, broken, "")
    value = json.loads(followed(audits, id)[1])
    assert value["notes"][0]["text"].startswith("All 160 rows could not be made into tokens")


def test_a_click_opens_the_row_in_whatever_part_it_is(audits: Audits) -> None:
    id, _, _ = audit_panel.start(audits, from_scratch(), "")
    followed(audits, id)
    rows = rows_of(FROM_SCRATCH.data)
    for part, place in (("train", 7), ("test", 3)):
        wanted = rows.part(part)[place]
        pick, _, builder = audit_panel.open_row(audits, id, from_scratch(), "", {"row": wanted.id})
        assert pick == Pick(part, place)
        assert json.loads(builder)["turns"][0]["content"] == wanted.messages[0].text
    with pytest.raises(ConfigError, match="There is no row nobody"):
        audit_panel.open_row(audits, id, from_scratch(), "", {"row": "nobody"})
    other = from_scratch(held=pack(DataConfig("six-tasks", eval_rows=3)))
    with pytest.raises(ConfigError, match="Other data was loaded"):
        audit_panel.open_row(audits, id, other, "", {"row": rows.part("train")[0].id})
    with pytest.raises(ConfigError):
        audit_panel.open_row(audits, "gone", from_scratch(), "", {})


def test_the_doctor_looks_at_rows_of_the_set_and_a_click_mends_all_of_them(audits: Audits) -> None:
    made = from_scratch(end_of_turn=False, max_length=40)
    id, _, _ = audit_panel.start(audits, made, "")
    value = json.loads(followed(audits, id)[5])
    assert value["title"] == "What the doctor says of 80 rows from all over the set"
    codes = [it["code"] for it in value["findings"]]
    at = codes.index("end-of-turn-untrained")
    assert value["findings"][at]["message"].startswith("In 80 of 80 rows (100.0%), first in ")
    assert value["findings"][at]["fix"] == "Train it"
    assert len(value["findings"][at]["rows"]) == 80
    answer = audit_panel.mend(audits, id, made, {"number": at})
    assert [change[0] for change in answer[0].changes] == ["end_of_turn"]
    assert len(answer) == 1 + findings.PLACES + len(findings.MENDABLE)
    longer = next(at for at, it in enumerate(value["findings"]) if "limit" in it["fix"])
    mended = audit_panel.mend(audits, id, made, {"number": longer})[0]
    limit = {name: after for name, _, after in mended.changes}["max_length"]
    assert limit > 40


def test_findings_of_another_audit_mend_nothing(audits: Audits) -> None:
    made = from_scratch(end_of_turn=False)
    id, _, _ = audit_panel.start(audits, made, "")
    followed(audits, id)
    for sent, with_it, words in (
        ({"number": 0}, from_scratch(), "other data or settings"),
        ({"number": 999}, made, "mended already"),
        ({"number": None}, made, "mended already"),
        ({}, from_scratch(width=None), "Width is empty"),
    ):
        answer = audit_panel.mend(audits, id, with_it, sent)
        assert answer[0] is None
        assert words in json.loads(answer[1])["text"]
    assert json.loads(audit_panel.follow(audits, "gone", 1)[5]) == {"findings": []}
