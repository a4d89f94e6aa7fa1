"""Every check, and how one conversation goes through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Final

from sft_core.doctor import answers, content, ends, markers, own, prompts, tags, turns, wording
from sft_core.doctor.case import Case, Found, Setting
from sft_core.provenance import dialect
from sft_core.types import EncodeError, Example, Finding, Severity, TemplateError

CHECKS: Final[tuple[Callable[[Case], Found], ...]] = (
    answers.nothing_trained,
    answers.cut_off,
    answers.dropped_answer,
    answers.empty_answer,
    answers.others_trained,
    answers.header_trained,
    ends.end_missing,
    ends.end_untrained,
    ends.stop_differs,
    ends.end_of_text_in_prompt,
    ends.pad_is_trained,
    turns.ends_on_user_turn,
    turns.unknown_role,
    turns.consecutive_answers,
    turns.earlier_turns_change,
    content.content_kept,
    content.tools_dropped,
    content.reasoning_dropped,
    content.date_printed,
    markers.split_markers,
    markers.forged,
    markers.double_bos,
    markers.missing_bos,
    prompts.prompt_differs,
    prompts.no_generation_prompt,
    prompts.trailing_space,
    prompts.glued_answer,
    tags.no_generation_tags,
    tags.generation_tags_differ,
    wording.unknown_text,
    wording.lost_text,
    wording.merged_border,
    own.template_differs,
)
"""In the order in which findings of one severity are given."""


def look(setting: Setting, example: Example) -> tuple[Finding, ...]:
    """What the checks find in one conversation, gravest first, without mended templates."""
    try:
        case = Case.of(setting, example)
        found = list(chain.from_iterable(check(case) for check in CHECKS))
    except TemplateError as error:
        found = [template_fault(setting, example, error)]
    except EncodeError as error:
        found = [
            Finding(
                "cannot-encode",
                Severity.ERROR,
                str(error),
                "Change the text, or choose another tokenizer.",
            )
        ]
    order = list(Severity)
    found.sort(key=lambda finding: order.index(finding.severity))
    return tuple(replace(finding, rows=(example.id,)) for finding in found)


def template_fault(setting: Setting, example: Example, error: TemplateError) -> Finding:
    """A template that stops a row, as a finding: it cannot be read at all, or it fails here."""
    unreadable = syntax_error(setting.template.source)
    if unreadable is not None:
        return unreadable
    order = " → ".join(message.role for message in example.messages) or "no message at all"
    return Finding(
        "template-fails",
        Severity.ERROR,
        f"{error} The turns were: {order}.",
        "Mend the template, or choose another one.",
        line=error.line,
        column=error.column,
    )


def syntax_error(source: str) -> Finding | None:
    """The finding of a source that is no template; None where it can be read."""
    try:
        dialect.parse(source)
    except TemplateError as error:
        return Finding(
            "template-syntax",
            Severity.ERROR,
            str(error),
            "Mend the place that is named.",
            line=error.line,
            column=error.column,
        )
    return None
