"""Checks of ``{% generation %}`` tags: whether there are any and whether they enclose answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sft_core import templates
from sft_core.config import MaskPolicy, TrainOn
from sft_core.doctor.case import Case, Found
from sft_core.reasons import stretches
from sft_core.types import Finding, Reason, Severity

_SHOWN: Final = 40


def no_generation_tags(case: Case) -> Found:
    if case.policy.train_on is not TrainOn.GENERATION_TAGS or case.rendered.tagged is not None:
        return
    why = "the template has no {% generation %} tags"
    if templates.has_generation_tags(case.template.source):
        why = "the lab cannot follow this template's {% generation %} tags"
    yield Finding(
        "no-generation-tags",
        Severity.ERROR,
        f"The policy trains what generation tags enclose, but {why}: nothing is trained.",
        "Train every answer instead, or put {% generation %} and {% endgeneration %} around what "
        "the template prints for an answer and its end of turn.",
        fixed_settings=("policy.train_on=assistant",),
    )


def generation_tags_differ(case: Case) -> Found:
    if case.rendered.tagged is None:
        return
    enclosed = {at for start, end in case.rendered.tagged for at in range(start, end)}
    reasons = _reasons(case)
    left_out = sorted(reasons.keys() - enclosed)
    too_much = sorted(enclosed - reasons.keys())
    if not left_out and not too_much:
        return
    text = case.rendered.text
    severity = Severity.WARNING
    if all(text[at].isspace() for at in (*left_out, *too_much)):
        severity = Severity.INFO
        what = (
            f"differ from the answers in whitespace only: {_difference(text, left_out, too_much)}"
        )
    elif not too_much and all(reasons[at] is Reason.END_OF_TURN for at in left_out):
        what = (
            f"leave the end of turn out: {_first(text, left_out)} stands outside, so what they "
            "enclose does not teach the model to stop"
        )
    else:
        what = f"are not around the answers: {_difference(text, left_out, too_much)}"
    places = [*_runs(left_out), *_runs(too_much)]
    yield Finding(
        "generation-tags-differ",
        severity,
        f"The template's generation tags {what}.",
        "Put the tags around each answer and its end of turn and nothing else, or leave them as "
        "they are if their author meant it so.",
        tokens=tuple(sorted({i for place in places for i in case.positions(*place)})),
    )


def _reasons(case: Case) -> dict[int, Reason]:
    """Why each character of the answers and of their ends of turn would be trained, whatever the
    policy. Weights do not count here: tags know nothing of them."""
    unweighted = replace(case.rendered, weights=(None,) * len(case.rendered.weights))
    return {
        at: it.reason
        for it in stretches(unweighted, MaskPolicy())
        if it.reason.trained
        for at in range(it.start, it.end)
    }


def _difference(text: str, left_out: Sequence[int], too_much: Sequence[int]) -> str:
    """The first place of either kind, the one that comes first in front."""
    said = []
    if left_out:
        said.append((left_out[0], f"{_first(text, left_out)} belongs to an answer and is outside"))
    if too_much:
        said.append((too_much[0], f"{_first(text, too_much)} belongs to no answer and is inside"))
    return ", and ".join(sentence for _, sentence in sorted(said))


def _first(text: str, places: Sequence[int]) -> str:
    start, end = _runs(places)[0]
    return repr(text[start:end] if end - start <= _SHOWN else f"{text[start : start + _SHOWN]}…")


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending positions as ranges."""
    runs: list[tuple[int, int]] = []
    for at in places:
        start = runs.pop()[0] if runs and runs[-1][1] == at else at
        runs.append((start, at + 1))
    return runs
