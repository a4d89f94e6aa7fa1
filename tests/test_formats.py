"""Rows of every known format become the conversation that they mean, or a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core.formats import FORMATS, recognise, to_example
from sft_core.types import ContentPart, DataError, Example, Message, RowError, ToolCall


def read(row: dict[str, Any], **wanted: str) -> Example:
    format, columns = recognise(tuple(row), wanted)
    return to_example(row, format, columns, "row-1")


def turns(row: dict[str, Any], **wanted: str) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in read(row, **wanted).messages]


ASKED = [("user", "2+2?"), ("assistant", "4")]


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"instruction": "2+2?", "input": "", "output": "4"}, "alpaca"),
        ({"instruction": "2+2?", "output": "4"}, "alpaca"),
        ({"instruction": "2+2?", "response": "4"}, "alpaca"),
        ({"prompt": "2+2?", "response": "4"}, "prompt-response"),
        ({"prompt": "2+2?", "completion": "4"}, "prompt-response"),
        ({"Question": "2+2?", "Answer": 4}, "prompt-response"),
        ({"input": "2+2?", "output": "4"}, "prompt-response"),
        (
            {
                "prompt": [{"role": "user", "content": "2+2?"}],
                "completion": [{"role": "assistant", "content": "4"}],
            },
            "prompt-response",
        ),
        (
            {
                "prompt": "not the turns",
                "messages": [
                    {"role": "user", "content": "2+2?"},
                    {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
                ],
            },
            "messages",
        ),
        (
            {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
            "sharegpt",
        ),
        (
            {
                "conversations": [
                    {"role": "human", "content": "2+2?"},
                    {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
                ]
            },
            "sharegpt",
        ),
        (
            {"messages": '[{"role": "user", "content": "2+2?"}, {"from": "gpt", "value": "4"}]'},
            "messages",
        ),
    ],
)
def test_a_format_is_recognised_and_read(row: dict[str, Any], format: str) -> None:
    assert recognise(tuple(row), {})[0] == format
    assert turns(row) == ASKED


def test_an_alpaca_input_stays_apart_from_its_instruction() -> None:
    (asked, _) = read({"instruction": "Sum up.", "input": "A tale.", "output": "Short."}).messages
    assert (asked.content, asked.context) == ("Sum up.", "A tale.")


def test_a_person_corrects_the_mapping() -> None:
    row = {"prompt": "x", "response": "y", "frage": "2+2?", "antwort": "4"}
    assert turns(row) == [("user", "x"), ("assistant", "y")]
    assert turns(row, prompt="frage", response="antwort") == ASKED


def test_a_mapped_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no column 'frage' for prompt.*prompt, response"):
        recognise(("prompt", "response"), {"prompt": "frage"})


def test_a_field_that_no_format_has_is_named() -> None:
    with pytest.raises(DataError, match=r"'promt' is no field.* prompt, response"):
        recognise(("prompt", "response"), {"promt": "prompt"})


def test_columns_of_no_known_format_are_listed() -> None:
    with pytest.raises(DataError, match="a, b"):
        recognise(("a", "b"), {})


def test_extra_columns_are_kept() -> None:
    row = {
        "id": 7,
        "prompt": "2+2?",
        "response": "4",
        "system": "Be short.",
        "category": "sums",
        "fact": "2+2",
        "tools": '[{"name": "add"}]',
    }
    example = read(row)
    assert example.messages[0] == Message("system", "Be short.")
    assert (example.id, example.category, example.fact) == ("7", "sums", "2+2")
    assert example.tools == ({"name": "add"},)


def test_weights_reasoning_and_tool_calls_are_kept() -> None:
    arguments = {"a": 2}
    row = {
        "messages": [
            {"role": "user", "content": "2+2?"},
            {
                "role": "assistant",
                "content": None,
                "weight": 0,
                "reasoning_content": "Add.",
                "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": arguments}}],
            },
            {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
            {"role": "assistant", "content": "4", "weight": 1},
        ]
    }
    _, call, result, answer = read(row).messages
    assert call.tool_calls == (ToolCall("add", '{"a": 2}', "c1"),)
    assert (call.weight, call.reasoning, answer.weight) == (0, "Add.", 1)
    assert (result.tool_call_id, result.name) == ("c1", "add")


def test_sharegpt_function_calls_and_observations_become_tool_turns() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
            {"from": "observation", "value": "4"},
            {"from": "gpt", "value": "It is 4."},
        ]
    }
    roles = [message.role for message in read(row).messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert read(row).messages[1].tool_calls == (ToolCall("add", '{"a": 2}'),)


def test_typed_parts_are_kept() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "?"}, "!"]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "4"}]}
    kept = (ContentPart("image"), ContentPart("text", "?"), ContentPart("text", "!"))
    assert read(row).messages[0].content == kept


def test_an_empty_answer_is_kept_for_the_doctor_to_report() -> None:
    assert read({"prompt": "2+2?", "response": ""}).answer == ""


USER = {"role": "user", "content": "2+2?"}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "2+2?", "response": None}, "row-1 has no response"),
        ({"prompt": None, "response": "4"}, "row-1 has no prompt"),
        ({"prompt": "2+2?", "response": {"a": 1}}, "response of row-1 is an object"),
        ({"instruction": "  ", "output": "4"}, "instruction of row-1 is empty"),
        ({"instruction": "x", "input": 4, "output": "4"}, "input of row-1 is a number"),
        ({"messages": []}, "empty list"),
        ({"messages": "hello"}, "no JSON"),
        ({"messages": 4}, "not a list"),
        ({"messages": ["hello"]}, "Turn 1 of row-1 is text"),
        ({"messages": [{"content": "x"}]}, "no role"),
        ({"messages": [USER]}, "no assistant turn"),
        ({"messages": [USER, {"role": "assistant"}]}, "Turn 2 of row-1 has no content"),
        ({"messages": [USER, {"role": "assistant", "content": 4}]}, "is a number, not text"),
        ({"messages": [{**USER, "weight": 0.5}]}, "must be 0 or 1"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "no name"),
        ({"conversations": [{"from": "human"}]}, "missing"),
        ({"conversations": [{"from": "function_call", "value": "add"}]}, "no JSON"),
        ({"prompt": "x", "response": "y", "tools": "{"}, "tools of row-1"),
        ({"prompt": "x", "response": "cut \ud83d"}, "half of a character"),
        ({"prompt": "x", "response": True}, "a truth value, not text"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence) as caught:
        read(row)
    assert caught.value.row == "row-1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "weight", "tool_calls", "type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from([*FORMATS.values()]).flatmap(
        lambda format: st.tuples(
            st.just(format.name),
            st.fixed_dictionaries(dict.fromkeys([*format.needs, *format.takes], json_values)),
        )
    )
)
def test_any_row_is_an_example_or_a_row_error(case: tuple[str, dict[str, Any]]) -> None:
    format, row = case
    try:
        example = to_example(row, format, {field: field for field in row}, "row-1")
    except RowError as error:
        assert str(error)  # noqa: PT017 - either outcome is right, nothing else is
    else:
        assert any(message.role == "assistant" for message in example.messages)


# -- what a row gives its template besides turns ----------------------------------------------


def test_documents_and_variables_of_a_template() -> None:
    row = {
        "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
        "documents": [{"title": "Sums", "text": "2+2 is 4"}],
        "chat_template_kwargs": {"enable_thinking": False, "date_string": "1 May 2020"},
    }
    assert read(row).extra == {
        "documents": [{"title": "Sums", "text": "2+2 is 4"}],
        "enable_thinking": False,
        "date_string": "1 May 2020",
    }
    as_text = row | {"chat_template_kwargs": '{"enable_thinking": true}', "documents": ""}
    assert read(as_text).extra == {"enable_thinking": True}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"documents": "none"}, "no JSON"),
        ({"documents": {"text": "x"}}, "not a list"),
        ({"chat_template_kwargs": [1]}, "not an object"),
        ({"chat_template_kwargs": {"messages": []}}, "which the lab sets itself"),
    ],
)
def test_documents_and_variables_that_are_none(given: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        read({"prompt": "2+2?", "response": "4", **given})


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "4", "reasoning_content": "two and two"},
        {"content": "4", "thinking": "two and two"},
        {"content": [{"type": "thinking", "thinking": "two and two"}, "4"]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "two and two"}]},
                {"type": "text", "text": "4"},
            ]
        },
        {"content": [{"type": "reasoning", "text": "two and two"}, {"type": "text", "text": "4"}]},
    ],
)
def test_reasoning_in_every_spelling(turn: dict[str, Any]) -> None:
    answer = read({"prompt": "2+2?", "response": [{"role": "assistant", **turn}]}).messages[-1]
    assert (answer.text, answer.reasoning) == ("4", "two and two")
