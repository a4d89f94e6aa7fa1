"""What is wrong with a template, a tokenizer, a conversation and a policy together.

``examine`` runs every check in ``CHECKS`` over one conversation and gives their findings, the
gravest first. A check is a generator over a ``Case``; to add one, write it and add it there. Codes
are stable: other tools may rely on them.

case      what a check is given
answers   is anything trained, and do answers end?
markers   are special tokens whole, and nobody's forgery?
prompts   does generation send what training saw?
tags      do generation tags enclose the answers?
wording   can the tokenizer write the text?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Final

from sft_core import sandbox
from sft_core.config import MaskPolicy
from sft_core.doctor import answers, markers, prompts, tags, wording
from sft_core.doctor.case import Case, Found
from sft_core.tokenizer import Tokenizer
from sft_core.types import EncodeError, Example, Finding, Severity, Template, TemplateError

CHECKS: Final[tuple[Callable[[Case], Found], ...]] = (
    answers.nothing_trained,
    answers.cut_off,
    answers.dropped_answer,
    answers.empty_answer,
    answers.ends_on_user_turn,
    answers.end_missing,
    answers.end_untrained,
    markers.split_markers,
    markers.forged,
    markers.double_bos,
    prompts.prompt_differs,
    prompts.no_generation_prompt,
    prompts.trailing_space,
    prompts.glued_answer,
    tags.no_generation_tags,
    tags.generation_tags_differ,
    wording.unknown_text,
    wording.lost_text,
    wording.merged_border,
)
"""Every check, in the order in which findings of one severity are given."""


def examine(
    template: Template,
    tokenizer: Tokenizer,
    example: Example,
    policy: MaskPolicy,
    max_length: int | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong with this conversation in this setting, gravest first.

    ``tokens`` of a finding are positions in what ``encode`` gives without a length limit. Never
    raises for what is wrong with template or text: that is a finding too.
    """
    try:
        rendered = sandbox.render(template, example, tokenizer.special_tokens)
        case = Case(template, tokenizer, example, policy, max_length, rendered)
        found = list(chain.from_iterable(check(case) for check in CHECKS))
    except TemplateError as error:
        found = [_stopped("template-fails", error, "Mend the template, or choose another one.")]
    except EncodeError as error:
        found = [_stopped("cannot-encode", error, "Change the text, or choose another tokenizer.")]
    order = list(Severity)
    found.sort(key=lambda finding: order.index(finding.severity))
    return tuple(replace(finding, rows=(example.id,)) for finding in found)


def _stopped(code: str, error: Exception, remedy: str) -> Finding:
    return Finding(code, Severity.ERROR, str(error), remedy)
