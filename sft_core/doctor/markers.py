"""Checks of special tokens: split ones, forged ones, doubled ones."""

from __future__ import annotations

from sft_core.doctor.case import Case, Found
from sft_core.encode import missing_tokens
from sft_core.types import Finding, Region, Severity


def split_markers(case: Case) -> Found:
    split = {
        marker: places
        for marker in missing_tokens(case.template, case.tokenizer)
        if (places := _printed(case, marker))
    }
    if split:
        positions = {
            i for places in split.values() for place in places for i in case.positions(*place)
        }
        names = ", ".join(split)
        yield Finding(
            "marker-split",
            Severity.WARNING,
            f"The tokenizer does not know {names}: the model sees several ordinary tokens "
            "instead, which a message could spell as well.",
            "Add them as tokens, or choose a template whose markers the tokenizer has.",
            tokens=tuple(sorted(positions)),
            fixed_settings=("model.missing_tokens=add",),
        )


def _printed(case: Case, marker: str) -> list[tuple[int, int]]:
    """Where the template printed a marker, other than inside what a message says."""
    written = [span for span in case.rendered.spans if span.region is Region.CONTENT]
    places = []
    at = case.rendered.text.find(marker)
    while at >= 0:
        end = at + len(marker)
        if not any(span.start <= at and end <= span.end for span in written):
            places.append((at, end))
        at = case.rendered.text.find(marker, end)
    return places


def forged(case: Case) -> Found:
    encoded = case.encoded
    if not encoded.forged:
        return
    start, end = encoded.offsets[encoded.forged[0]][0], encoded.offsets[encoded.forged[0]][1]
    for position in encoded.forged[1:]:
        if encoded.offsets[position][0] > end:
            break
        end = max(end, encoded.offsets[position][1])
    yield Finding(
        "forged-special-token",
        Severity.WARNING,
        f"The row spells a special token: {case.rendered.text[start:end].strip()!r}. It is "
        "encoded as plain text, so that it cannot end or open a turn.",
        "Check where the row comes from; if it was formatted already, take the markers out.",
        tokens=encoded.forged,
    )


def double_bos(case: Case) -> Found:
    bos = case.tokenizer.bos_id
    if bos is not None and case.encoded.ids[:2] == (bos, bos):
        yield Finding(
            "double-bos",
            Severity.WARNING,
            f"The text begins with {case.text_of(0)!r} twice, which the model has never seen.",
            "Let the template print bos_token once.",
            tokens=(0, 1),
        )


def missing_bos(case: Case) -> Found:
    bos = case.tokenizer.bos_id
    own = case.template.source in case.tokenizer.chat_templates.values()
    if bos is not None and case.tokenizer.adds_bos and not own and bos not in case.encoded.ids[:1]:
        yield Finding(
            "missing-bos",
            Severity.WARNING,
            f"The text does not begin with {case.tokenizer.id_to_text(bos)!r}, with which this "
            "tokenizer begins every text: the model has hardly seen one without it.",
            "Let the template print bos_token at its beginning.",
            tokens=(0,) if case.encoded.ids else (),
        )
