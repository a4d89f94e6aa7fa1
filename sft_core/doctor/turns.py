"""Checks of the order of turns: who speaks, after whom, and what earlier turns become."""

from __future__ import annotations

from typing import Final

from sft_core.doctor.case import Case, Found
from sft_core.provenance.turns import common_length
from sft_core.types import Finding, Reason, Severity

ROLES: Final = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "ipython", "observation"}
)
"""Roles that chat formats use; the lab trains "assistant" only."""


def ends_on_user_turn(case: Case) -> Found:
    if case.example.messages and case.example.messages[-1].role != "assistant":
        yield Finding(
            "ends-on-user-turn",
            Severity.WARNING,
            f"The conversation ends on a {case.example.messages[-1].role} turn. Nobody answers "
            "it, so its last part is read and never trained.",
            "End the row with an answer, or drop its last turn.",
        )


def unknown_role(case: Case) -> Found:
    strange = [i for i, it in enumerate(case.example.messages) if it.role not in ROLES]
    if strange:
        role = case.said(strange[0]).role
        yield Finding(
            "unknown-role",
            Severity.WARNING,
            f"Message {strange[0] + 1} has the role {role!r}, which no chat format uses: it is "
            "read as part of the prompt and never trained.",
            "Name the role system, user, assistant or tool.",
            tokens=tuple(i for i, owner in enumerate(case.encoded.owners) if owner in strange),
        )


def consecutive_answers(case: Case) -> Found:
    messages = case.example.messages
    for index in range(1, len(messages)):
        if messages[index - 1].role == messages[index].role == "assistant":
            yield Finding(
                "consecutive-answers",
                Severity.WARNING,
                f"Messages {index} and {index + 1} are both the assistant's. The model is trained "
                "to be asked again right behind its own answer, which generation never does.",
                "Join the two answers, or put a user turn between them.",
                tokens=tuple(i for i, at in enumerate(case.encoded.owners) if at == index),
            )
            return


def earlier_turns_change(case: Case) -> Found:
    """Whether an answer that is trained in the middle of a conversation is printed there as it
    was when it was the last one."""
    whole = case.rendered.text
    for index, _ in case.rendered.answer_starts():
        end = case.end_of(index)
        alone = case.tried(case.example.messages[: index + 1])
        if (
            index == len(case.example.messages) - 1
            or alone is None
            or not case.closed(index, alone)
        ):
            continue
        same = common_length(whole[:end], alone.text)
        if same >= end:
            continue
        reasons = {
            reason
            for owner, reason in zip(case.encoded.owners, case.encoded.reasons, strict=True)
            if owner == index
        }
        trained = Reason.ANSWER in reasons
        tokens = case.positions(same, max(same + 1, min(end, same + 20)))
        at = case.encoded.offsets[tokens[0]][0] if tokens else same  # whole tokens read better
        yield Finding(
            "earlier-turns-change",
            Severity.WARNING if trained else Severity.INFO,
            f"The template prints message {index + 1} or what stands before it otherwise once the "
            f"conversation goes on: here {whole[at : at + 20]!r}, at the time of the answer "
            f"{alone.text[at : at + 20]!r}."
            + (" The answer is trained in a form that the model never gives." if trained else ""),
            "Train the last answer of each row only, or split the row in one row an answer."
            if trained
            else "Nothing has to be done: generation sends earlier turns in the same form.",
            tokens=tokens,
            fixed_settings=("policy.train_on=last_assistant",) if trained else (),
        )
        return
