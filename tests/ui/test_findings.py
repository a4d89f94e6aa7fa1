"""Findings on the page: what they show, what a click mends, and what Undo gives back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from sft_core.config import LabConfig, MissingTokens
from sft_core.lessons import FROM_SCRATCH
from sft_core.settings import Host
from sft_core.types import ConfigError, Finding, LimitError, Severity
from sft_core.ui import findings, template_panel
from sft_core.ui.findings import MENDABLE, Mended, findings_value
from sft_core.ui.look import Look, limit, look
from sft_core.ui.session import Choices, contract, conversation, preset_source
from sft_core.ui.sources import rows_of
from tests.ui.controls import from_scratch

CODE = "end-of-turn-untrained"


def finding(code: str = "x", **values: Any) -> Finding:
    return Finding(code, Severity.WARNING, "A message.", **values)


def shown(*found: Finding, config: LabConfig | None = None) -> list[dict[str, Any]]:
    value = findings_value(found, config or FROM_SCRATCH)
    return list(value["findings"])


def look_at(made: Choices) -> Look:
    return look(contract(made), conversation(made))


def controls(answer: tuple[Any, ...]) -> dict[str, Any]:
    """The controls that an answer of ``mend`` or ``undo`` sets."""
    named = zip(MENDABLE, answer[1 + findings.PLACES :], strict=True)
    return {name: value for name, value in named if value != gr.skip()}


def applied(made: Choices, answer: tuple[Any, ...]) -> Choices:
    """What the page holds once the answer has arrived."""
    return replace(made, **controls(answer))


# -- what is shown ---------------------------------------------------------------------------


def test_tokens_place_and_remedy_travel_with_a_finding() -> None:
    (item,) = shown(finding(remedy="Do it.", tokens=(3, 4), line=2, column=7, rows=("a",)))
    assert (item["tokens"], item["line"], item["column"]) == ([3, 4], 2, 7)
    assert (item["severity"], item["remedy"], item["fix"]) == ("warning", "Do it.", "")
    assert item["rows"] == ["a"]
    assert shown(finding(rows=("a", "b")))[0]["rows"] == ["a", "b"]


def test_findings_of_one_code_are_told_apart() -> None:
    keys = [(it["code"], it["number"]) for it in shown(finding("a"), finding("b"), finding("a"))]
    assert keys == [("a", 0), ("b", 0), ("a", 1)]


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        (("policy.end_of_turn=false",), "Leave it out"),
        (("model.missing_tokens=text",), "Leave them as text"),
        (("train.max_length=300",), "Set the length limit to 300"),
        (("policy.train_on=last_assistant",), "Train the last answer only"),
        (("policy.train_on=last_assistant", "end_of_turn=false"), "Train the last answer only, "),
        (("train.learning_rate=0.1",), ""),  # no control here sets it
        (("train.max_length=256",), ""),  # it is so already
        (("no.such=1",), ""),
    ],
)
def test_a_button_says_what_it_would_do_and_is_missing_where_it_could_not(
    settings: tuple[str, ...], label: str
) -> None:
    (item,) = shown(finding(fixed_settings=settings))
    assert item["fix"].startswith(label)
    assert bool(item["fix"]) == bool(label)


def test_a_corrected_template_has_a_button() -> None:
    assert shown(finding(fixed_template="{{ messages }}"))[0]["fix"] == "Mend the template"


def test_a_fault_in_the_template_comes_with_its_place_and_once() -> None:
    broken = from_scratch(source="{% for m in messages %}\n{{ m.content }}\n{% endfr %}")
    value = json.loads(template_panel.repaint(broken)[2])
    (item,) = value["findings"]
    assert (item["severity"], item["line"], item["column"]) == ("error", 3, 4)


# -- mending ---------------------------------------------------------------------------------


def test_a_click_trains_the_end_of_turn_and_undo_takes_it_back() -> None:
    untrained = from_scratch(end_of_turn=False)
    assert CODE in {it.code for it in look_at(untrained).findings}
    answer = findings.mend(untrained, {"code": CODE, "number": 0})
    assert controls(answer) == {"end_of_turn": True}
    line = json.loads(answer[1])
    assert line["text"] == "Mended: ends of turn are trained now."
    assert line["undo"] is True
    mended = applied(untrained, answer)
    assert CODE not in {it.code for it in look_at(mended).findings}
    back = findings.undo(mended, answer[0])
    assert controls(back) == {"end_of_turn": False}
    assert back[0] is None
    assert json.loads(back[1])["text"] == ""


def test_missing_markers_are_added_by_the_control_that_shows_it() -> None:
    source = preset_source("chatml", "bytes-gpt")
    split = from_scratch(preset="chatml", source=source, missing=MissingTokens.TEXT.value)
    answer = findings.mend(split, {"code": "marker-split", "number": 0})
    assert controls(answer) == {"missing": "add"}
    assert type(controls(answer)["missing"]) is str
    assert look_at(applied(split, answer)).added


def test_what_was_mended_already_says_so() -> None:
    answer = findings.mend(from_scratch(), {"code": CODE, "number": 0})
    assert controls(answer) == {}
    assert json.loads(answer[1])["text"] == "That was mended already."
    for number in (None, -1, 5, "0"):
        sent = {"code": CODE, "number": number}
        assert controls(findings.mend(from_scratch(end_of_turn=False), sent)) == {}


def test_a_contract_that_cannot_be_read_mends_nothing_and_says_why() -> None:
    answer = findings.mend(from_scratch(width=None), {"code": CODE})
    assert json.loads(answer[1]) == {"text": "Width is empty: give a number.", "level": "error"}


def remedy(made: Choices, **values: Any) -> Mended:
    return findings.remedy(made, contract(made), finding(**values))


def test_a_corrected_template_goes_into_the_editor_and_comes_out_again() -> None:
    made = from_scratch()
    source = "{% for m in messages %}{{ m.content }}<END>{% endfor %}"
    mended = remedy(made, fixed_template=source)
    assert mended.text == "Mended: the template was corrected."
    after = replace(made, source=source)
    # An editor may change line ends; that is no edit.
    typed = replace(after, source=source + "\r\n")
    for now in (after, typed):
        assert controls(findings.undo(now, mended)) == {"source": made.source}


def test_undo_does_not_overwrite_what_was_typed_since() -> None:
    made = from_scratch()
    mended = remedy(made, fixed_template="{{ messages }}")
    answer = findings.undo(replace(made, source="{{ messages }} and more"), mended)
    assert controls(answer) == {}
    assert "changed by hand since" in json.loads(answer[1])["text"]
    assert findings.undo(made, None)[0] is None


def test_a_longer_limit_takes_the_context_of_a_model_from_random_weights_along() -> None:
    made = from_scratch()
    mended = remedy(made, fixed_settings=("train.max_length=400",))
    assert mended.changes == (("max_length", 256, 400), ("context", 256, 400))
    after = replace(made, max_length=400, context=400)
    assert limit(contract(after)) == 400
    assert controls(findings.undo(after, mended)) == {"max_length": 256, "context": 256}
    smol = from_scratch(model="smollm2-135m-instruct")
    assert remedy(smol, fixed_settings=("max_length=400",)).changes == (("max_length", 256, 400),)


def test_a_preset_that_mends_comes_with_its_text() -> None:
    mended = remedy(from_scratch(), fixed_settings=("template.name=chatml",))
    after = {name: value for name, _, value in mended.changes}
    assert after == {"preset": "chatml", "source": preset_source("chatml", "bytes-gpt")}


def test_a_remedy_beyond_this_host_or_beyond_the_page_is_refused_in_a_sentence() -> None:
    made = from_scratch()
    shared = Host.from_environment({"SPACE_ID": "somebody/lab"})
    long = finding(fixed_settings=("train.max_length=5000",))
    with pytest.raises(LimitError, match="allows 1,024"):
        findings.remedy(made, contract(made), long, shared)
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        remedy(made, fixed_settings=("train.learning_rate=0.1",))
    with pytest.raises(ConfigError, match="nothing to mend"):
        remedy(made, fixed_settings=("policy.end_of_turn=true",))


def test_every_control_that_a_remedy_may_set_is_one_of_the_contract() -> None:
    made = from_scratch()
    assert all(hasattr(made, name) for name in MENDABLE)
    assert rows_of(FROM_SCRATCH.data).splits.train
    assert set(findings._CONTROL_OF.values()) | {"source"} == set(MENDABLE)
