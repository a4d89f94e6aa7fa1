"""Another masker beside the lab's own, on the conversation that is looked at: the value of the view
"rival", which also marks the inspector's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sft_core import rivals
from sft_core.rivals import RIVALS, Kind, Rival, RivalMask
from sft_core.types import LabError, LimitError, Token
from sft_core.ui.look import Look, look
from sft_core.ui.session import Choices, contract, conversation, sentence
from sft_core.ui.token_view import fingerprint
from sft_core.ui.view import dumps

NONE: Final = ""
CHOICES: Final = [("None", NONE), *((rival.title, name) for name, rival in RIVALS.items())]
MOST_READ: Final = 2_000_000
"""Characters times answers: about what a prefix length reads, at 1.5 s a million."""
_SAME: Final = "It trains exactly what the lab trains in this conversation."
_SIGNS: Final[Mapping[Kind, str]] = {
    Kind.TRAINS_OTHER: "extra",
    Kind.MISSES_ANSWER: "missed",
    Kind.MISSES_END: "missed",
    Kind.OTHER_IDS: "ids",
}
"""How a token is marked; where nothing was found, it is by whether the lab trains it."""


def oppose(choices: Choices, name: str | None) -> str:
    """What the view shows for the rival of that name; nothing for none."""
    if not name:
        return dumps({})
    try:
        rival = rivals.find(name)
        return dumps(rival_value(look(contract(choices), conversation(choices)), rival))
    except LabError as error:
        return dumps({"error": sentence(error)})


def rival_value(seen: Look, rival: Rival) -> dict[str, Any]:
    """The rival's differences on one conversation. Raises the LabError that kept the lab from
    encoding it, or LimitError where the page would wait too long."""
    if seen.encoded is None or seen.rendered is None:
        raise seen.error or LabError("There is nothing to compare with: no tokens were made.")
    assert seen.template is not None
    assert seen.tokenizer is not None
    answers = sum(role == "assistant" for role in seen.rendered.roles)
    if len(seen.rendered.text) * answers > MOST_READ:
        raise LimitError(
            "This conversation is too long to compare methods on the page: some read it anew for "
            "each answer. Choose a shorter one, or use inspect with --rival on the command line."
        )
    policy = seen.config.policy
    made = rivals.mask(rival.name, seen.template, seen.example, seen.tokenizer, policy)
    differences = rivals.compare(seen.encoded, seen.rendered, made)
    tokens = (*seen.encoded.tokens, *seen.encoded.dropped)
    return {
        "key": fingerprint(seen.encoded),
        "title": rival.title,
        "idea": f"{rival.idea} {rival.origin}",
        "verdict": _verdict(made, tokens) if differences else _SAME,
        "same": not differences,
        "differences": [
            {
                "kind": it.kind.words,
                "sentence": it.sentence,
                "tokens": it.tokens,
                "signs": [
                    _SIGNS.get(it.kind, "missed" if tokens[at].reason.trained else "extra")
                    for at in it.tokens
                ],
            }
            for it in differences
        ],
    }


def _verdict(made: RivalMask, tokens: Sequence[Token]) -> str:
    if made.problem:
        return "It cannot work here."
    theirs = sum(made.trained[1:])  # nothing predicts the first token
    own = sum(token.reason.trained for token in tokens)
    return (
        f"It trains {theirs:,} of {len(made.ids):,} tokens here, and the lab {own:,} of "
        f"{len(tokens):,}."
    )
