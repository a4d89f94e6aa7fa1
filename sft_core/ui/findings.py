"""What the doctor says, on the page: each finding with its tokens and its place in the template,
and its remedy one click away, which can be taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import gradio as gr

from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig, MissingTokens
from sft_core.settings import HOST, Host
from sft_core.types import ConfigError, Finding, LabError
from sft_core.ui.fields import Fields, bind
from sft_core.ui.look import Look, look
from sft_core.ui.parts import LIGHT
from sft_core.ui.session import (
    Choices,
    contract,
    conversation,
    preset_source,
    same_template,
    sentence,
)
from sft_core.ui.view import dumps, view

GOOD: Final = "Nothing is wrong with this template, tokenizer, mask and row together."
PLACES: Final = 3
"""Where findings are shown: beside the template, beside the tokens, and under the audit."""
MENDABLE: Final = (
    "preset",
    "source",
    "train_on",
    "end_of_turn",
    "missing",
    "max_length",
    "context",
)
"""The controls that a remedy may set, by their names in ``Choices``."""
_CONTROL_OF: Final[Mapping[str, str]] = {
    "template.name": "preset",
    "policy.train_on": "train_on",
    "policy.end_of_turn": "end_of_turn",
    "model.missing_tokens": "missing",
    "model.context": "context",
    "train.max_length": "max_length",
}
_LABELS: Final[Mapping[tuple[str, Any], str]] = {
    ("end_of_turn", True): "Train it",
    ("end_of_turn", False): "Leave it out",
    ("missing", MissingTokens.ADD): "Add them as tokens",
    ("missing", MissingTokens.TEXT): "Leave them as text",
    ("train_on", "assistant"): "Train every answer",
    ("train_on", "last_assistant"): "Train the last answer only",
}
_MENDS: Final[Mapping[str, str]] = {
    "missing-generation-prompt": "Add the generation prompt",
    "unused-generation-prompt": "Print the generation prompt",
    "prompt-not-prefix": "Mend the generation prompt",
    "header-trained": "Mend the generation prompt",
    "end-of-turn-missing": "Print an end after answers",
    "double-bos": "Print it once",
    "missing-bos": "Print it at the beginning",
    "content-altered": "Print it as written",
    "glued-answer": "Add a line break",
    "trailing-space": "Take the space out",
    "template-differs": "Use the tokenizer's template",
    "tool-calls-dropped": "Use the tokenizer's template",
    "tools-dropped": "Use the tokenizer's template",
    "reasoning-dropped": "Use the tokenizer's template",
}
"""What the mended template of a finding does."""
_NAMES: Final[Mapping[str, str]] = {
    "max_length": "the length limit",
    "context": "the model's context",
    "preset": "the template",
}
_MENDED: Final[Mapping[tuple[str, Any], str]] = {
    ("end_of_turn", True): "ends of turn are trained now",
    ("end_of_turn", False): "ends of turn are not trained any more",
    ("missing", MissingTokens.ADD): "missing markers are added as tokens now",
    ("missing", MissingTokens.TEXT): "missing markers are ordinary text now",
    ("train_on", "assistant"): "every answer is trained now",
    ("train_on", "last_assistant"): "only the last answer is trained now",
}


@dataclass(frozen=True, slots=True)
class Mended:
    """What a remedy changed: (control, value before, value after), and that in words."""

    changes: tuple[tuple[str, Any, Any], ...]
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The two components that show findings in one place: what was mended, and what is found."""

    mended: gr.HTML
    findings: gr.HTML


# -- values ----------------------------------------------------------------------------------


def findings_value(findings: Sequence[Finding], config: LabConfig | None = None) -> dict[str, Any]:
    """The findings in their order. Those of one code are told apart by a number; ``config`` is
    what their remedies would change."""
    seen: Counter[str] = Counter()
    shown = []
    for finding in findings:
        number = seen[finding.code]
        seen[finding.code] += 1
        shown.append(
            {
                "code": finding.code,
                "number": number,
                "severity": finding.severity.value,
                "message": finding.message,
                "remedy": finding.remedy,
                "tokens": list(finding.tokens),
                "rows": list(finding.rows),
                "line": finding.line,
                "column": finding.column,
                "fix": _label(finding, config),
            }
        )
    return {"findings": shown, "good": GOOD}


def mended_value(mended: Mended | None, error: str = "") -> dict[str, Any]:
    if error:
        return {"text": error, "level": "error"}
    return {"text": mended.text, "level": "good", "undo": True} if mended else {"text": ""}


def _label(finding: Finding, config: LabConfig | None) -> str:
    """What the button of a remedy says; empty where there is none that the page could apply."""
    if finding.fixed_template is not None:
        return _MENDS.get(finding.code, "Mend the template")
    if not finding.fixed_settings or config is None:
        return ""
    try:
        changes = _changes(config, config.with_settings(finding.fixed_settings))
    except ConfigError:
        return ""
    if not changes or not set(changes) <= set(_CONTROL_OF):
        return ""
    named = ((_CONTROL_OF[setting], value) for setting, value in changes.items())
    return ", ".join(_LABELS.get(it) or f"Set {_name(it[0])} to {it[1]}" for it in named)


def _name(control: str) -> str:
    return _NAMES.get(control, control.replace("_", " "))


def _changes(before: LabConfig, after: LabConfig) -> dict[str, Any]:
    """The settings that differ, by dotted name, with their new values."""
    old = asdict(before)
    return {
        f"{section}.{name}": value
        for section, values in asdict(after).items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value != old[section][name]
    }


# -- mending ---------------------------------------------------------------------------------


def mend(choices: Choices, sent: dict[str, Any]) -> tuple[Any, ...]:
    """-> (what was mended, its line for each place, the controls in ``MENDABLE``) for the finding
    that was clicked: ``sent`` holds its code, and its number among those of that code."""
    try:
        seen = look(contract(choices), conversation(choices))
        found = [finding for finding in seen.findings if finding.code == sent.get("code")]
        number = sent.get("number")
        if not isinstance(number, int) or not 0 <= number < len(found):
            return refused("That was mended already.")
        mended = remedy(choices, seen.config, found[number])
    except LabError as error:
        return refused(sentence(error))
    return applied(mended)


def remedy(choices: Choices, config: LabConfig, finding: Finding, host: Host = HOST) -> Mended:
    """What the remedy of a finding changes. Raises ConfigError where it cannot be applied here,
    LimitError where it is more than this host allows."""
    wanted: dict[str, Any] = {}
    if finding.fixed_template is not None:
        wanted["source"] = finding.fixed_template
    if finding.fixed_settings:
        wished = config.with_settings(finding.fixed_settings)
        host.check(wished)
        for name, value in _changes(config, wished).items():
            if name not in _CONTROL_OF:
                raise ConfigError(f"No control here sets {name}: set it to {value!r} yourself.")
            wanted[_CONTROL_OF[name]] = value
    if preset := wanted.get("preset"):
        wanted.setdefault("source", preset_source(preset, config.model.name))
    length = wanted.get("max_length", 0)
    if length > config.model.context and find(config.model.name).origin is Origin.RANDOM:
        # A model from random weights takes no more tokens than its context, whatever the limit.
        wanted["context"] = length
    changes = tuple(
        (name, getattr(choices, name), wanted[name])
        for name in MENDABLE
        if name in wanted and getattr(choices, name) != wanted[name]
    )
    if not changes:
        raise ConfigError("There is nothing to mend here any more.")
    words = "; ".join(_told(name, after) for name, _, after in changes)
    return Mended(changes, f"Mended: {words}.")


def _told(name: str, value: Any) -> str:
    if name == "source":
        return "the template was corrected"
    return _MENDED.get((name, value)) or f"{_name(name)} is {value} now"


def applied(mended: Mended) -> tuple[Any, ...]:
    """-> what ``mend`` gives for a remedy that was worked out."""
    return _answer(mended, changed={name: after for name, _, after in mended.changes})


def refused(error: str) -> tuple[Any, ...]:
    """-> what ``mend`` gives where nothing was mended: the sentence that says why."""
    return _answer(None, error)


def undo(choices: Choices, mended: Mended | None) -> tuple[Any, ...]:
    """-> what ``mend`` gives, with the controls as they were before it. What was changed by hand
    since is left alone."""
    if mended is None:
        return _answer(None)
    if any(not _same(name, getattr(choices, name), after) for name, _, after in mended.changes):
        return refused("What was mended has been changed by hand since, so it stays.")
    return _answer(None, changed={name: before for name, before, _ in mended.changes})


def _same(name: str, one: Any, other: Any) -> bool:
    return same_template(one, other) if name == "source" else one == other


def _answer(
    mended: Mended | None, error: str = "", changed: Mapping[str, Any] | None = None
) -> tuple[Any, ...]:
    line = dumps(mended_value(mended, error))
    controls = (_plain((changed or {}).get(name, gr.skip())) for name in MENDABLE)
    return mended, *(line,) * PLACES, *controls


def _plain(value: Any) -> Any:
    """An enumeration's value: what a control takes."""
    return getattr(value, "value", value) if isinstance(value, str) else value


# -- layout ----------------------------------------------------------------------------------


def build(seen: Look) -> Shown:
    """Findings beside the editor."""
    mended = view("mended", mended_value(None), events=["undo"], elem_id="mended")
    found = view(
        "findings", findings_value(seen.findings, seen.config), events=["fix"], elem_id="findings"
    )
    return Shown(mended, found)


def build_mirror() -> Shown:
    """The same findings in another place: the page's script hands them on, so that they travel
    once."""
    mended = view("mended", mended_value(None), events=["undo"], elem_id="mended-too")
    return Shown(mended, view("advice", {}, events=["fix"], elem_id="advice"))


def build_survey(value: Any) -> Shown:
    """What the doctor says of many rows, under the audit."""
    mended = view("mended", mended_value(None), events=["undo"], elem_id="mended-set")
    found = view("survey", value, events=["fix", "open"], elem_id="survey")
    return Shown(mended, found)


def outputs(places: Sequence[Shown], undone: gr.State, choices: Fields[Choices]) -> list[Any]:
    """The components that ``mend`` and ``undo`` give values for. ``undone`` holds what was mended
    last."""
    assert len(places) == PLACES
    lines = [place.mended for place in places]
    return [undone, *lines, *(choices[name] for name in MENDABLE)]


def wire(places: Sequence[Shown], undone: gr.State, choices: Fields[Choices]) -> None:
    """A remedy sets the controls, which repaints all else as any change of them does. The last
    place is the audit's, which is wired there: its findings are of many rows."""
    mend_it, inputs = bind(mend, choices, event=True)
    undo_it, with_last = bind(undo, choices, undone)
    changed = outputs(places, undone, choices)
    for place in places[:-1]:
        place.findings.fix(mend_it, inputs, changed, trigger_mode="once", **LIGHT)
        place.mended.undo(undo_it, with_last, changed, trigger_mode="once", **LIGHT)
