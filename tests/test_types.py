"""Values keep what they promise."""

from __future__ import annotations

import pickle

import pytest

from sft_core import types
from sft_core.types import (
    IGNORE_INDEX,
    ContentPart,
    Encoded,
    Example,
    Finding,
    LabError,
    Message,
    Reason,
    Region,
    Rendered,
    RowError,
    Severity,
    Span,
    TemplateError,
)


def test_labels_follow_from_reasons_and_from_nothing_else() -> None:
    reasons = tuple(Reason)
    encoded = Encoded(
        ids=tuple(range(10, 10 + len(reasons))),
        offsets=tuple((i, i + 1) for i in range(len(reasons))),
        reasons=reasons,
        owners=(0,) * len(reasons),
    )
    trained = {Reason.ANSWER, Reason.END_OF_TURN, Reason.WHOLE_TEXT}
    expected = tuple(
        id if reason in trained else IGNORE_INDEX
        for id, reason in zip(encoded.ids, reasons, strict=True)
    )
    assert encoded.labels == expected
    assert encoded.trained == 3
    assert tuple(token.label for token in encoded.tokens) == expected


def test_every_reason_has_a_sentence_that_says_trained_or_masked() -> None:
    for reason in Reason:
        assert reason.sentence.startswith("Trained" if reason.trained else "Masked")


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        Encoded(ids=(1, 2), offsets=((0, 1),), reasons=(Reason.PROMPT,), owners=(0,))


def test_a_message_joins_its_parts_and_its_context() -> None:
    parts = (ContentPart("text", "Look: "), ContentPart("image"), ContentPart("text", "a cat"))
    assert Message("user", parts).text == "Look: a cat"
    assert Message("user", "Sum up.", context="A long story.").text == "Sum up.\nA long story."


def test_prompt_and_answer_part_at_the_last_assistant_turn() -> None:
    user, one, two = Message("user", "q"), Message("assistant", "a"), Message("assistant", "b")
    example = Example("1", (user, one, user, two))
    assert example.prompt == (user, one, user)
    assert example.answer == "b"
    assert Example("2", (user,)).prompt == (user,)
    assert Example("2", (user,)).answer == ""


def test_an_empty_answer_starts_at_its_end_of_turn() -> None:
    rendered = Rendered(
        text="Q:A|",
        spans=(
            Span(0, 1, Region.CONTENT, 0),
            Span(1, 3, Region.HEADER, 1),
            Span(3, 4, Region.END_OF_TURN, 1),
        ),
        roles=("user", "assistant"),
        weights=(None, None),
    )
    assert rendered.answer_starts() == ((1, 3),)


def errors() -> list[type[LabError]]:
    found = [value for value in vars(types).values() if isinstance(value, type)]
    return [cls for cls in found if issubclass(cls, LabError) and cls is not LabError]


@pytest.mark.parametrize("cls", errors())
def test_each_error_is_also_a_standard_one(cls: type[LabError]) -> None:
    standard = {base for base in cls.__mro__ if base.__module__ == "builtins"}
    assert standard - {Exception, BaseException, object}


def test_errors_cross_process_borders_whole() -> None:
    row = pickle.loads(pickle.dumps(RowError("row 7", "The answer is missing.")))
    assert (row.row, str(row)) == ("row 7", "The answer is missing.")
    template = pickle.loads(pickle.dumps(TemplateError("No 'endfor'.", line=3, column=9)))
    assert (str(template), template.line, template.column) == ("No 'endfor'.", 3, 9)


def test_the_worst_finding_wins() -> None:
    info = Finding("a", Severity.INFO, "")
    error = Finding("b", Severity.ERROR, "")
    assert types.worst([info, error]) is Severity.ERROR
    assert types.worst([info]) is Severity.INFO
    assert types.worst([]) is None
