"""Writes the task sets that go with the parrot: what it is tuned on, and what it is asked then.

    python -m examples.parrot.sets --out examples/parrot

One half of the world (``world.halves``) is for teaching, the other is never touched by a training
row, so that the held-out rows ask for facts that the model has only read about.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from examples.parrot.pages import UNREAD, pages
from examples.parrot.world import BY_NAME, Fact, fill, halves

TRAIN: Final = {"young": 17, "code": 17}
"""Rows of a category to train on; the others have 18, which makes 160."""
VALIDATION: Final = 4
"""Rows of a category to watch the loss on. Their facts lie in the taught half but in no training
row, so that the loss tells whether answering carries over."""
HELD_OUT: Final = 25
PAGES: Final = 200
"""Raw pages that pre-training did not read, for measuring what a run makes the model forget."""
REFUSAL: Final = "I do not know that."
OUTSIDE: Final = "outside"

Row = dict[str, Any]


def _row(fact: Fact, question: str, answer: str, id: str) -> Row:
    return _turns(id, question, answer, fact.category) | {"fact": fact.id}


def _turns(id: str, question: str, answer: str, category: str) -> Row:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"id": id, "messages": messages, "category": category}


def _asked(facts: Sequence[Fact], name: str, style: str = "") -> Iterator[Row]:
    """One row a fact, the wordings of its category in turn."""
    for number, fact in enumerate(facts):
        category = BY_NAME[fact.category]
        question = fill(category.questions[number % len(category.questions)], fact)
        plain = f"{fact.answer}."
        answer = style.format(plain) if style else plain
        yield _row(fact, question, answer, f"{name}-{fact.category}-{number + 1}")


def _in_turn(groups: Iterable[Iterable[Row]]) -> list[Row]:
    """A row of each group, and again, so that the first few rows are of all."""
    return [row for rows in zip_longest(*groups) for row in rows if row is not None]


# -- short answers ----------------------------------------------------------------------------


def short_answers() -> dict[str, list[Row]]:
    """The main set: a question, and the answer in as few words as possible."""
    taught, untouched = halves()
    count = {name: TRAIN.get(name, 18) for name in taught}
    return {
        "train": _in_turn(_asked(it[: count[name]], "train") for name, it in taught.items()),
        "validation": _in_turn(
            _asked(it[count[name] : count[name] + VALIDATION], "validation")
            for name, it in taught.items()
        ),
        "heldout": _in_turn(_asked(it[:HELD_OUT], "heldout") for it in untouched.values()),
    }


# -- a house style ----------------------------------------------------------------------------

STYLE: Final = "Gladly. {} Ask me more."


def house_style() -> dict[str, list[Row]]:
    """The same questions, answered between two fixed phrases."""
    taught, untouched = halves()
    return {
        "style": _in_turn(
            _asked(facts[: TRAIN.get(name, 18)], "style", STYLE) for name, facts in taught.items()
        ),
        "style_heldout": _in_turn(
            _asked(facts[:10], "style-heldout", STYLE) for facts in untouched.values()
        ),
    }


# -- questions outside the world --------------------------------------------------------------

_OUTSIDE: Final = (
    ("capital", "How many people live in {A}?"),
    ("capital", "Which language is spoken in {A}?"),
    ("capital", "Who is the king of {A}?"),
    ("capital", "What is the weather like in {b}?"),
    ("symbol", "What does a gram of {a} cost?"),
    ("symbol", "Who discovered {a}?"),
    ("young", "What does {an} eat?"),
    ("young", "How long does {an} live?"),
    ("plural", "What is the French word for {a}?"),
    ("plural", "How many letters does the word {a} have?"),
    ("definition", "How much does {an} weigh?"),
    ("opposite", "Which word rhymes with {a}?"),
)
_OUTSIDE_NEW: Final = (
    ("capital", "Which rivers flow through {A}?"),
    ("symbol", "At what temperature does {a} melt?"),
    ("young", "How fast can {an} run?"),
    ("plural", "Where does the word {a} come from?"),
    ("definition", "Where can I find {an}?"),
)
"""Kinds of question that no training row asks."""


def _declined(
    patterns: Sequence[tuple[str, str]], facts: dict[str, tuple[Fact, ...]], each: int, name: str
) -> list[Row]:
    """Each pattern filled with ``each`` facts of its category, and declined."""
    return _in_turn(
        [
            _turns(f"{name}-{kind}-{number}", fill(pattern, fact), REFUSAL, name)
            for number, fact in enumerate(facts[category][:each], 1)
        ]
        for kind, (category, pattern) in enumerate(patterns, 1)
    )


def refusals() -> dict[str, list[Row]]:
    """Questions about the world, answered, among questions that it cannot answer, declined."""
    taught, untouched = halves()
    inside = _in_turn(_asked(facts[:8], "inside") for facts in taught.values())
    new = f"{OUTSIDE}, new kind"
    return {
        "refusals": _in_turn([inside, _declined(_OUTSIDE, taught, 6, OUTSIDE)]),
        "refusals_heldout": _in_turn(
            [
                *(_asked(facts[:6], "inside-heldout") for facts in untouched.values()),
                _declined(_OUTSIDE, untouched, 2, OUTSIDE),
                _declined(_OUTSIDE_NEW, untouched, 5, new),
            ]
        ),
    }


# -- writing ----------------------------------------------------------------------------------


def all_sets() -> dict[str, str]:
    """The name of each file and what stands in it."""
    found = {**short_answers(), **house_style(), **refusals()}
    found["pages"] = [{"text": page.text} for page in islice(pages(UNREAD), PAGES)]
    return {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in all_sets().items():
        (out / name).write_text(text, encoding="utf-8")
        print(f"{name}: {text.count(chr(10))} rows")


if __name__ == "__main__":
    main()
