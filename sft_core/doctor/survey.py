"""The findings of many conversations as one list: each fault once, with the rows that have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from sft_core.config import GenerateConfig, MaskPolicy
from sft_core.doctor import remedies
from sft_core.doctor.case import Setting
from sft_core.doctor.checks import look, syntax_error
from sft_core.tokenizer import Tokenizer
from sft_core.types import (
    BusyError,
    Example,
    Finding,
    Message,
    Severity,
    Template,
    TemplateError,
    worst,
)

GIVEN_UP_AFTER: Final = 3
"""Rows in a row at which the template fails before the rest is not tried any more, as long as no
row has passed."""

LENGTH: Final = "train.max_length"
_TALK: Final = (Message("user", "Hi."), Message("assistant", "Hello."))
ORDERS: Final[dict[str, tuple[Message, ...]]] = {
    "a user turn and an answer": _TALK,
    "a system turn first": (Message("system", "Be brief."), *_TALK),
    "several questions and answers": _TALK * 2,
    "an answer without a question before it": _TALK[1:],
    "two user turns in a row": (_TALK[0], *_TALK),
}
"""Conversations that people have, by what is particular about them."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with ``rows`` conversations, gravest first.

    ``rows`` of a finding are the ids of all that have it; its ``tokens`` are positions in the first
    of them.
    """

    rows: int = 0
    items: tuple[Finding, ...] = ()

    @classmethod
    def sorted(cls, rows: int, items: Iterable[Finding]) -> Findings:
        order = list(Severity)
        return cls(rows, tuple(sorted(items, key=lambda it: order.index(it.severity))))

    @property
    def worst(self) -> Severity | None:
        return worst(self.items)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "rows": self.rows,
            "worst": self.worst,
            "findings": [asdict(finding) for finding in self.items],
        }


@dataclass(slots=True)
class _Fault:
    """One code over many rows."""

    first: Finding
    example: Example
    rows: list[str] = field(default_factory=list)
    longest: int = 0  # what max_length would have to be, where that is the remedy

    def add(self, finding: Finding, row: str) -> None:
        self.rows.append(row)
        for setting in finding.fixed_settings:
            name, _, value = setting.partition("=")
            if name == LENGTH:
                self.longest = max(self.longest, int(value))


def doctor(
    template: Template,
    tokenizer: Tokenizer,
    examples: Iterable[Example],
    policy: MaskPolicy,
    generate_config: GenerateConfig | None = None,
    *,
    max_length: int | None = None,
) -> Findings:
    """Everything that is wrong with these conversations in this setting, before any is trained on.

    ``generate_config`` says how answers will be drawn, of which its stop tokens matter here. Rows
    are taken one at a time; what is kept grows by an id for each fault of a row. Never raises for
    what is wrong with template or rows. Raises BusyError where others keep the sandbox occupied.
    """
    setting = Setting(template, tokenizer, policy, generate_config or GenerateConfig(), max_length)
    unreadable = syntax_error(template.source)
    if unreadable is not None:
        return Findings(0, (unreadable,))
    faults: dict[str, _Fault] = {}
    rows = failing = 0
    for example in examples:
        rows += 1
        found = look(setting, example)
        for finding in found:
            fault = faults.setdefault(finding.code, _Fault(finding, example))
            fault.add(finding, example.id)
        failed = any(finding.code == "template-fails" for finding in found)
        failing = failing + 1 if failed and failing == rows - 1 else -1
        if failing == GIVEN_UP_AFTER:
            break
    items = [_one(fault, rows, setting) for fault in faults.values()]
    items += _refused_orders(setting) if rows else []
    return Findings.sorted(rows, items)


def unreadable_rows(bad: Sequence[tuple[str, str]]) -> tuple[Finding, ...]:
    """Rows of a source that are no conversation, as (id, why): one finding, or none."""
    if not bad:
        return ()
    rows, reasons = zip(*bad, strict=True)
    many = f"{len(bad)} rows cannot be read; the first: " if len(bad) > 1 else ""
    return (
        Finding(
            "row-unreadable",
            Severity.WARNING,
            many + reasons[0],
            "Mend or drop these rows; the others are used.",
            rows=rows,
        ),
    )


def _one(fault: _Fault, rows: int, setting: Setting) -> Finding:
    finding = replace(fault.first, rows=tuple(fault.rows))
    if rows > 1:
        share = len(fault.rows) / rows
        seen = f"In {len(fault.rows)} of {rows} rows ({share:.1%}), first in {fault.example.id}: "
        finding = replace(finding, message=seen + finding.message)
    if fault.longest and rows > 1:
        finding = replace(
            finding,
            remedy=f"Raise max_length to {fault.longest} to keep all of these rows, or drop the "
            "longest.",
            fixed_settings=(f"{LENGTH}={fault.longest}",),
        )
    return remedies.with_remedies((finding,), setting, fault.example, look)[0]


def _refused_orders(setting: Setting) -> list[Finding]:
    """Which usual orders of turns the template does not take, whether or not the rows have them."""
    refused = {}
    for name, messages in ORDERS.items():
        try:
            setting.render(messages, Example(name, messages))
        except BusyError:
            raise
        except TemplateError as error:
            refused[name] = str(error)
    if not refused:
        return []
    return [
        Finding(
            "role-order-refused",
            Severity.INFO,
            f"The template does not take {', nor '.join(refused)}. {next(iter(refused.values()))}",
            "Nothing has to be done, unless such conversations will come.",
        )
    ]
