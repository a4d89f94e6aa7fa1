"""Templates that are mended mechanically, and the proof that they are.

Nobody can parse a fault out of every way to write Jinja. So a mend is proposed as an edit of the
source, often several of them, and each is tried: the first that makes the fault go away, brings no
new one, and still prints this row and a plain conversation as before, is offered. A fault for which
no edit passes has no mechanical remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sft_core.doctor.case import Case, Setting
from sft_core.doctor.prompts import own_words_start
from sft_core.types import Example, Finding, Message, Severity, Template

Examine = Callable[[Setting, Example], Sequence[Finding]]
"""What gives the findings of a row without remedies."""

PROBE: Final = Example(
    "probe",
    (
        Message("user", "What is the capital of France?"),
        Message("assistant", "Paris."),
        Message("user", "And of Italy?"),
        Message("assistant", "Rome."),
    ),
)
"""A conversation on which a mended template must do as well as on the row that showed the fault."""

_PROMPT_BLOCK: Final = re.compile(
    r"(\{%-?\s*if\s+add_generation_prompt\s*-?%\})(.*?)(\{%-?\s*endif\s*-?%\})", re.DOTALL
)
_LOOP: Final = re.compile(r"\{%-?\s*for\s+(\w+)\s+in\s+messages\b.*?%\}", re.DOTALL)
_OUTPUT: Final = re.compile(r"\{\{.*?(-?)\}\}", re.DOTALL)
_BOS: Final = re.compile(r"\{\{-?\s*bos_token\s*-?\}\}")
_ALTERS: Final = re.compile(
    r"\s*\|\s*(?:upper|lower|title|capitalize)\b|\.(?:upper|lower|title|capitalize)\(\)"
)


def with_remedies(
    findings: Sequence[Finding], setting: Setting, example: Example, examine: Examine
) -> tuple[Finding, ...]:
    """The findings, those with a mechanical remedy of the template carrying it. ``example`` is the
    row that shows them."""
    found = list(findings)
    wanted = [it for it in found if it.code in _EDITS and it.fixed_template is None]
    if not wanted:
        return tuple(found)
    case = Case.of(setting, example)
    trial = _Trial(setting, example, examine, found)
    for at, finding in enumerate(found):
        if finding in wanted:
            edits = dict.fromkeys(_EDITS[finding.code](case))
            fixed = next((it for it in edits if trial.passes(it, finding.code)), None)
            found[at] = replace(finding, fixed_template=fixed)
    return tuple(found)


class _Trial:
    """Where an edited template has to prove itself."""

    def __init__(
        self, setting: Setting, example: Example, examine: Examine, findings: Sequence[Finding]
    ) -> None:
        self._setting, self._example, self._examine = setting, example, examine
        self._before = _grave(findings)
        self._before_probe = _grave(examine(setting, PROBE))

    def passes(self, source: str, code: str) -> bool:
        """Whether the fault ``code`` is gone and nothing grave has come."""
        if source == self._setting.template.source:
            return False
        edited = replace(self._setting, template=Template(self._setting.template.name, source))
        for example, before in (
            (self._example, self._before),
            (PROBE, self._before_probe),
        ):
            after = self._examine(edited, example)
            if code in {it.code for it in after} or not _grave(after) <= before:
                return False
        return True


def _grave(findings: Sequence[Finding]) -> set[str]:
    return {finding.code for finding in findings if finding.severity is not Severity.INFO}


# -- edits ----------------------------------------------------------------------------------------


def _print(text: str) -> str:
    """A Jinja expression that prints ``text``."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return "{{ '" + escaped + "' }}"


def _opening(case: Case) -> str | None:
    """What the template prints between a prompt and the words of the answer in training."""
    asked = case.asked_without
    if asked is None or not case.rendered.text.startswith(asked.text):
        return None
    message, _ = case.trained_turns[-1]
    return case.rendered.text[len(asked.text) : own_words_start(case, message, len(asked.text))]


def _generation_prompt(case: Case) -> Iterator[str]:
    """Print at generation what stands before an answer in training."""
    opening, source = _opening(case), case.template.source
    if not opening:
        return
    block = list(_PROMPT_BLOCK.finditer(source))
    if block:
        last = block[-1]
        yield source[: last.start(2)] + _print(opening) + source[last.end(2) :]
    for text in (source, source.rstrip()):
        yield text + "{% if add_generation_prompt %}" + _print(opening) + "{% endif %}"
        yield text + "{%- if add_generation_prompt -%}" + _print(opening) + "{%- endif -%}"


def _end_of_turn(case: Case) -> Iterator[str]:
    """Print the end of text behind what an assistant says."""
    loop = _LOOP.search(case.template.source)
    if loop is None or case.tokenizer.eos_id is None:
        return
    name = loop[1]
    source = case.template.source
    for output in reversed(list(_OUTPUT.finditer(source))):
        if output.start() > loop.end() and "content" in output[0]:
            dash = output[1]
            end = (
                f"{{%{dash} if {name}['role'] == 'assistant' {dash}%}}"
                "{{ eos_token }}"
                f"{{%{dash} endif {dash}%}}"
            )
            yield source[: output.end()] + end + source[output.end() :]


def _one_bos(case: Case) -> Iterator[str]:
    source = case.template.source
    for match in _BOS.finditer(source):
        yield source[: match.start()] + source[match.end() :]


def _a_bos(case: Case) -> Iterator[str]:
    yield "{{ bos_token }}" + case.template.source
    yield "{{- bos_token -}}" + case.template.source


def _as_written(case: Case) -> Iterator[str]:
    yield _ALTERS.sub("", case.template.source)


def _line_break(case: Case) -> Iterator[str]:
    """A line break between question and answer, in training and at generation."""
    source = case.template.source
    for loop in _LOOP.finditer(source):
        dash = "-" if loop[0].endswith("-%}") else ""
        test = f"{{%{dash} if {loop[1]}['role'] == 'assistant' {dash}%}}"
        inside = test + _print("\n") + f"{{%{dash} endif {dash}%}}"
        prompt = f"{{%{dash} if add_generation_prompt {dash}%}}" + _print("\n") + "{% endif %}"
        yield source[: loop.end()] + inside + source[loop.end() :].rstrip() + prompt


def _no_trailing_space(case: Case) -> Iterator[str]:
    """No space at the end of the generation prompt, nor before answers in training."""
    source = case.template.source
    yield re.sub(r" +(?=\{[{%])", "", source)
    yield re.sub(r" +(?=['\"])", "", source)
    yield re.sub(r" +(?=['\"]|\{[{%])", "", source)


def _own(case: Case) -> Iterator[str]:
    """The template that the tokenizer brings."""
    own = case.tokenizer.chat_templates
    yield from (own[name] for name in ("tool_use", "default") if name in own)


_EDITS: Final[dict[str, Callable[[Case], Iterator[str]]]] = {
    "missing-generation-prompt": _generation_prompt,
    "unused-generation-prompt": _generation_prompt,
    "prompt-not-prefix": _generation_prompt,
    "header-trained": _generation_prompt,
    "end-of-turn-missing": _end_of_turn,
    "double-bos": _one_bos,
    "missing-bos": _a_bos,
    "content-altered": _as_written,
    "glued-answer": _line_break,
    "trailing-space": _no_trailing_space,
    "tool-calls-dropped": _own,
    "tools-dropped": _own,
    "reasoning-dropped": _own,
}
"""Which edits may mend which fault, the likeliest first."""
