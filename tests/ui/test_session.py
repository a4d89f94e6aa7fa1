"""What a visitor chose becomes a configuration, or a sentence that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sft_core.config import DataConfig, LabConfig, MissingTokens, TrainOn
from sft_core.lessons import FROM_SCRATCH
from sft_core.settings import Host
from sft_core.types import (
    ConfigError,
    DataError,
    Example,
    LabError,
    LimitError,
    Message,
    ToolCall,
)
from sft_core.ui import session
from sft_core.ui.look import look
from sft_core.ui.session import Choices
from sft_core.ui.sources import Pick, pack, rows_of, unpack
from tests.ui.controls import from_scratch, on_arrival

SHARED = Host.from_environment({"SPACE_ID": "somebody/lab"})
HOME = Host.from_environment({})


@pytest.mark.parametrize(
    ("choices", "wanted"), [(on_arrival(), LabConfig()), (from_scratch(), FROM_SCRATCH)]
)
def test_the_controls_spell_the_contract(choices: Choices, wanted: LabConfig) -> None:
    made = session.contract(choices)
    assert made.but(train=wanted.train) == wanted


def test_an_editor_that_changed_only_line_ends_still_holds_the_preset() -> None:
    plain = from_scratch().source
    for same in (plain, plain.rstrip("\n"), plain.replace("\n", "\r\n")):
        assert session.contract(from_scratch(source=same)).template.source is None
    edited = session.contract(from_scratch(source=plain + " "))
    assert edited.template.source == plain + " "
    assert edited.template.name == "inst-resp (edited)"


def test_mask_and_missing_tokens_reach_the_contract() -> None:
    made = session.contract(
        from_scratch(train_on="last_assistant", end_of_turn=False, missing=MissingTokens.TEXT.value)
    )
    assert made.policy.train_on is TrainOn.LAST_ASSISTANT
    assert not made.policy.end_of_turn
    assert made.model.missing_tokens is MissingTokens.TEXT


def test_an_emptied_number_names_its_field() -> None:
    with pytest.raises(ConfigError, match="Width is empty"):
        session.contract(from_scratch(width=None))
    with pytest.raises(ConfigError, match="Rows must be a number"):
        session.optional_whole("many", "Rows")
    assert session.optional_whole(" 1,200 ", "Rows") == 1200
    assert session.optional("", "Minutes") is None


def test_a_shared_host_opens_no_path_that_a_visitor_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "model", "./model", "../model", "~/model"):
        with pytest.raises(LimitError, match="opens none for visitors"):
            session.model_config(from_scratch(model=session.OWN, own_model=name), SHARED)
    for source in (str(rows), "rows.jsonl", "../rows.jsonl", "~/rows.jsonl"):
        with pytest.raises(LimitError, match="Upload the file"):
            rows_of(DataConfig(source=source), SHARED)
    assert session.model_config(from_scratch(model=session.OWN, own_model=str(folder)), HOME)
    assert rows_of(DataConfig(source=str(rows), eval_rows=0), HOME).part("train")


def test_a_shared_host_opens_what_was_uploaded_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    file = tmp_path / "uploads" / "abc" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"prompt": "a", "response": "b"}\n')
    rows = rows_of(DataConfig(source=str(file), eval_rows=0), SHARED)
    assert rows.part("train")[0].answer == "b"
    outside = tmp_path / "uploads" / ".." / "rows.jsonl"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    with pytest.raises(LimitError):
        rows_of(DataConfig(source=str(outside)), SHARED)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    import os

    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "response": "old"}\n')
    config = DataConfig(source=str(file), eval_rows=0)
    assert rows_of(config).part("train")[0].answer == "old"
    file.write_text('{"prompt": "a", "response": "new"}\n')
    os.utime(file, (1, 1))
    assert rows_of(config).part("train")[0].answer == "new"


def test_the_row_that_was_picked_is_looked_at_whole_and_an_own_conversation_as_typed() -> None:
    picked = from_scratch(pick=Pick("test", 3))
    rows = rows_of(FROM_SCRATCH.data)
    assert session.conversation(picked) == rows.splits.test[3]
    built = {"own": True, "turns": [{"role": "user", "content": "Hi"}, {"role": "assistant"}]}
    own = session.conversation(from_scratch(conversation=json.dumps(built)))
    assert [(m.role, m.text) for m in own.messages] == [("user", "Hi"), ("assistant", "")]


@pytest.mark.parametrize(
    "turns",
    [
        [],
        "x",
        [{"role": "user", "content": "a"}] * 101,
        [{"role": "user", "content": "a" * 200_001}],
    ],
)
def test_a_conversation_that_is_none_or_too_much_is_refused(turns: object) -> None:
    with pytest.raises(ConfigError):
        session.conversation(from_scratch(conversation=json.dumps({"own": True, "turns": turns})))


def test_an_edited_conversation_keeps_what_the_page_does_not_show() -> None:
    call = ToolCall("weather", '{"city": "Oslo"}', "c1")
    example = Example(
        "row-1",
        (
            Message("user", "Weather?"),
            Message("assistant", "", weight=1, reasoning="look it up", tool_calls=(call,)),
            Message("tool", "22", name="weather", tool_call_id="c1"),
            Message("assistant", "22 degrees."),
        ),
        tools=({"type": "function", "function": {"name": "weather"}},),
        extra={"enable_thinking": False},
    )
    turns = session.turns_of(example)
    turns[-1]["content"] = "It is warm."
    built = {"own": True, "turns": turns, "row": session.row_of(example)}
    found = session.conversation(from_scratch(conversation=json.dumps(built)))
    assert found.messages[:3] == example.messages[:3]
    assert found.messages[3].text == "It is warm."
    assert (found.tools, found.extra) == (example.tools, example.extra)


def test_a_conversation_without_an_answer_can_be_looked_at() -> None:
    built = {"own": True, "turns": [{"role": "user", "content": "Hi"}]}
    assert session.conversation(from_scratch(conversation=json.dumps(built))).prompt


@pytest.mark.parametrize("rest", [{"tool_calls": 7}, {"weight": "much"}, {"tool_calls": [{}]}])
def test_the_rest_of_a_turn_that_is_none_is_refused(rest: object) -> None:
    turns = [{"role": "assistant", "content": "Hi", "rest": rest}]
    with pytest.raises(LabError):
        session.own_example(turns)


def test_a_data_configuration_survives_the_page() -> None:
    config = DataConfig(source="a/b", columns={"prompt": "x"}, rows=3)
    assert unpack(pack(config)) == config


def test_an_unforeseen_error_is_owned_up_to_and_logged_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise ZeroDivisionError("secret detail")
    except ZeroDivisionError as error:
        told = session.sentence(error)
    assert "Traceback" not in told
    assert "ZeroDivisionError" in caplog.text
    assert session.sentence(DataError("Plain.")) == "Plain."


def test_generation_sends_what_training_showed_for_every_preset() -> None:
    from sft_core import templates

    rows = rows_of(FROM_SCRATCH.data)
    example = rows.at(Pick())
    assert example is not None
    for name in templates.PRESETS:
        source = session.preset_source(name, "bytes-gpt")
        seen = look(session.contract(from_scratch(preset=name, source=source)), example)
        assert seen.error is None, name
        assert seen.cut is not None
        assert seen.differs_at is None, name
        assert seen.encoded is not None
        assert seen.encoded.ids[: seen.cut] == seen.prompt_ids
