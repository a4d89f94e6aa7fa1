"""Why a rival's tokens are others than those that generation sends."""

from __future__ import annotations

from sft_core.rivals.sides import Patch, Sides
from sft_core.rivals.words import lab_pieces, listed, quoted, their_pieces, turn


def sentence(sides: Sides, patch: Patch) -> str:
    lab = listed(lab_pieces(sides, patch.lab)) or "nothing"
    theirs = listed(their_pieces(sides, patch.theirs))
    forged = sides.encoded.forged
    said = [index for index in patch.lab if index in forged]
    if said:
        token = sides.lab[said[0]]
        text = quoted(sides.text[patch.start : patch.end].strip())
        return (
            f"{turn(sides, token.owner).capitalize()} says {text}, which becomes the real special "
            "token: whoever writes a row can open and end turns."
        )
    border = next(
        (at for _, at in sides.rendered.answer_starts() if patch.start <= at <= patch.end), None
    )
    if border is not None and patch.start < border < patch.end:
        return (
            f"Tokenised in one go, prompt and answer give {theirs} across their border; the "
            f"tokens that generation sends and meets are {lab}."
        )
    if sides.mask.name == "tokenise-apart":
        return _apart(sides, patch, lab, theirs)
    return f"Tokenised in one go, the text gives {theirs} here, and at generation {lab}."


def _apart(sides: Sides, patch: Patch, lab: str, theirs: str) -> str:
    (known,) = sides.mask.turns
    size = len(known.prompt)
    if any(sides.mask.offsets[index][1] <= size for index in patch.theirs):
        if not sides.text.startswith(known.prompt):
            return (
                f"The template prints the prompt otherwise when the answer follows: {theirs} "
                f"alone, {lab} with it."
            )
        return f"The prompt alone gives {theirs} here, and generation sends {lab}."
    if sides.mask.text[size:] not in sides.answer(known.message):
        return reworded(sides)
    if not patch.lab:
        return (
            f"Tokenised apart, the answer gets {theirs} in front, as a text of its own does; "
            "behind its prompt it has none."
        )
    return (
        f"Tokenised apart, the answer gives {theirs} as at the start of a text; behind its prompt "
        f"it is {lab}."
    )


def reworded(sides: Sides) -> str:
    """That the template prints the last answer in other words than the row's."""
    (known,) = sides.mask.turns
    row = quoted(sides.mask.text[len(known.prompt) :])
    if not sides.answer(known.message):
        return f"The template does not print the answer {row} at all."
    return (
        f"The template prints the answer as {quoted(sides.answer(known.message))}, and what was "
        f"tokenised is the row's {row}."
    )
