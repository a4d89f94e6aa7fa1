"""Why a rival fails at a place, in one sentence. Each looks at what the method went by there."""

from __future__ import annotations

from sft_core.rivals import why_ids, why_search
from sft_core.rivals.methods import Turn
from sft_core.rivals.sides import Run, Sides, ends, shared
from sft_core.rivals.words import quoted, tokens, turn
from sft_core.types import Reason, Region

other_ids = why_ids.sentence


def nothing(sides: Sides) -> str | None:
    """Why the method found nothing to go by; None where it found something."""
    if any(token.reason is Reason.WHOLE_TEXT for token in sides.lab):
        return None  # the policy trains everything: no method was asked
    if sides.mask.name == "marker-search":
        return why_search.nothing(sides) if all(sides.mask.trained) else None
    if any(sides.mask.trained) or not sides.encoded.trained:
        return None
    if sides.mask.name == "tokenise-apart":
        return "The answer has no text of its own, so there is no token to train."
    last = sides.mask.turns[-1]
    return (
        f"The prompt alone is {tokens(last.start)} and the whole conversation "
        f"{len(sides.mask.ids)}, so nothing is left to train."
    )


# -- what the rival alone trains ---------------------------------------------------------------


def extra(sides: Sides, run: Run) -> str:
    if (sentence := _policy(run)) is not None:
        return sentence
    if _behind_answer(sides, run):
        shown = quoted(sides.text[run.start : run.end])
        rule = (
            "Masking starts again only at the next user marker"
            if sides.mask.name == "marker-search"
            else "All that follows the prompt counts as answer"
        )
        return (
            f"{rule}, so {shown} behind the end of the turn is trained too, although generation "
            "has stopped before it."
        )
    match sides.mask.name:
        case "marker-search":
            return why_search.extra(sides, run)
        case "prefix-length":
            return _prefix(sides, run)
        case _:
            return "The answer alone reads like this stretch, and stands elsewhere in the text."


def _policy(run: Run) -> str | None:
    """Where the policy leaves out what the method cannot tell apart."""
    match run.reason:
        case Reason.EARLIER_TURN:
            return "It trains every answer that it finds, also those that the policy leaves out."
        case Reason.EXCLUDED:
            return "It sees the text only, and not that this message has weight 0 in the data."
        case Reason.END_NOT_TRAINED:
            return "It does not tell the end of a turn from the answer, so it trains both."
        case _:
            return None


def _behind_answer(sides: Sides, run: Run) -> bool:
    """Whether it is what the template prints between an answer's end and the next turn."""
    before = sides.reasons[run.start - 1] if run.start else None
    answers = run.message is None or sides.rendered.roles[run.message] == "assistant"
    ended = before in (Reason.ANSWER, Reason.END_OF_TURN, Reason.END_NOT_TRAINED)
    return run.region is Region.SEPARATOR and answers and ended


# -- what the lab alone trains -----------------------------------------------------------------


def missed(sides: Sides, run: Run) -> str:
    match sides.mask.name:
        case "marker-search":
            return why_search.missed(sides, run)
        case "prefix-length":
            return _prefix(sides, run)
        case _:
            return _apart(sides, run)


def _apart(sides: Sides, run: Run) -> str:
    (known,) = sides.mask.turns
    start = dict(sides.rendered.answer_starts()).get(known.message, len(sides.text))
    if run.start < start and run.reason is not Reason.WHOLE_TEXT:
        what = "the end of every earlier answer" if ends(run) else "every earlier answer"
        return f"One prompt and one answer are all that it knows: {what} counts as prompt."
    shown = quoted(sides.text[run.start : run.end])
    if ends(run):
        whole = next(span for span in sides.rendered.spans if span.start <= run.start < span.end)
        return (
            "The answer is tokenised as the row has it, without the "
            f"{quoted(sides.text[whole.start : whole.end])} that the template "
            "prints behind it, so the model never learns to stop."
        )
    if run.reason is Reason.WHOLE_TEXT:
        return f"It ends where the answer's own text ends, so {shown} is not even read."
    answer = sides.mask.text[len(known.prompt) :]
    if answer in sides.answer(known.message):
        return f"The template prints {shown} in this answer too, and only its text is tokenised."
    return why_ids.reworded(sides)


# -- a prompt's length -------------------------------------------------------------------------


def _prefix(sides: Sides, run: Run) -> str:
    known = _turn_at(sides, run)
    if known is None:
        return "It is no answer to any prompt that was counted."
    here = turn(sides, known.message)
    if not sides.text.startswith(known.prompt):
        same = shared(sides.text, known.prompt)
        return (
            f"The prompt of {here} is printed otherwise when the conversation goes on: "
            f"{_from(known.prompt, same)} alone, {_from(sides.text, same)} in the whole text. So "
            "its length points to a wrong place."
        )
    border = len(known.prompt)
    inside = sum(end <= border for _, end in sides.mask.offsets)
    crossing = [it for it in sides.mask.offsets if it[0] < border < it[1]]
    if known.start != inside:
        token = quoted(sides.text[slice(*crossing[0])]) if crossing else ""
        cause = f", where {token} holds its end and the start of the answer" if token else ""
        off = known.start - inside
        far = f"{tokens(abs(off))} too {'far' if off > 0 else 'short'}"
        return (
            f"The prompt of {here} alone is {tokens(known.start)}, but {inside} in the whole "
            f"text{cause}: the mask reaches {far}."
        )
    if crossing and crossing[0][0] <= run.start < border:
        return (
            f"In the whole text {quoted(sides.text[slice(*crossing[0])])} is one token, which "
            "holds the end of the prompt and the start of the answer and is trained whole."
        )
    return (
        f"The conversation up to {here} is {tokens(known.end)} when it ends there; in the whole "
        "text that turn ends at another token."
    )


def _turn_at(sides: Sides, run: Run) -> Turn | None:
    """The counted turn that a stretch belongs to: its own, else the last one that began by then,
    or the first."""
    turns = sides.mask.turns
    own = [it for it in turns if it.message == run.message]
    first = next((i for i, it in enumerate(sides.mask.offsets) if it[1] > run.start), 0)
    begun = [it for it in turns if it.start <= first]
    return next(iter(own), None) or (begun[-1] if begun else next(iter(turns), None))


def _from(text: str, place: int) -> str:
    return quoted(text[place : place + 12]) if place < len(text) else "nothing"
