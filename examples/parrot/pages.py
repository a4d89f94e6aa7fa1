"""Raw text about the world, page by page, the way that the web writes.

Most pages state facts (articles, lists, code) or ask for them without answering (quizzes, tests
with options). A minority are questions with answers: an FAQ, an interview, talk in quotes. No page
has the format of a chat.

Every random choice is made by a ``Dice``, which adds up how improbable the choices were. That sum
is the information in a page, so its mean over pages is what no model of this text can go below:
the entropy of the generator (Shannon 1948). Where two ways of choosing lead to the same page, the
page is a little more probable than the sum says, so the figure is an upper bound of the floor. That
is rare: it takes facts that come out of one category though each was drawn from all.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from examples.parrot.world import BY_NAME, CATEGORIES, Category, Fact, fill

T = TypeVar("T")


class Dice:
    """Random choices from a seed. ``nats`` is the sum of -ln(probability) of all made so far."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random
        self.nats = 0.0

    def number(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        self.nats += math.log(high - low + 1)
        return low + int(self._random() * (high - low + 1))

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]

    def weighted(self, choices: Sequence[T], weights: Sequence[float]) -> T:
        total = sum(weights)
        left = self._random() * total
        at = 0
        while at + 1 < len(choices) and left >= weights[at]:
            left -= weights[at]
            at += 1
        self.nats -= math.log(weights[at] / total)
        return choices[at]

    def chance(self, probability: float) -> bool:
        return self.weighted((True, False), (probability, 1 - probability))

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """``count`` different ones, in random order."""
        rest = list(choices)
        return [rest.pop(self.number(0, len(rest) - 1)) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Page:
    """``nats`` is the information in the choices that made the page, its end included."""

    kind: str
    text: str
    nats: float


UNREAD: Final = 10_000
"""The seed of pages that no recipe is trained on."""


def pages(seed: int) -> Iterator[Page]:
    """An endless supply, the same for the same seed on every machine."""
    return (page(seed, number) for number in itertools.count())


def page(seed: int, number: int) -> Page:
    dice = Dice(f"{seed} {number}")
    kind = dice.weighted(list(KINDS), [weight for weight, _ in KINDS.values()])
    text = KINDS[kind][1](dice)
    return Page(kind, text, dice.nats)


# -- facts ------------------------------------------------------------------------------------

_POPULARITY: Final = {"sorting": 2.5, "arithmetic": 3.5, "plural": 1.3}
"""How often a category is written about; the others once. These have more facts."""


def _category(dice: Dice) -> Category:
    return dice.weighted(CATEGORIES, [_POPULARITY.get(it.name, 1.0) for it in CATEGORIES])


def _facts(dice: Dice, low: int, high: int) -> list[Fact]:
    """What a page is about: facts of one category, or of all."""
    count = dice.number(low, high)
    if count == 1 or dice.chance(0.6):
        return dice.some(_category(dice).facts, count)
    return [dice.one(_category(dice).facts) for _ in range(count)]


def _statement(dice: Dice, fact: Fact) -> str:
    return fill(dice.one(BY_NAME[fact.category].statements), fact)


def _question(dice: Dice, fact: Fact) -> str:
    return fill(dice.one(BY_NAME[fact.category].questions), fact)


# -- pages that state -------------------------------------------------------------------------

_TITLES: Final = (
    "Things worth knowing",
    "From the notebook",
    "A little of everything",
    "What we learned this week",
    "Facts for a rainy day",
    "Reading page",
    "Short notes",
)
_LEADS: Final = ("Note: ", "Also: ", "Remember: ", "A fact: ", "Known to all: ")


def _article(dice: Dice) -> str:
    facts = _facts(dice, 4, 10)
    title = dice.one(_TITLES) + "\n\n" if dice.chance(0.3) else ""
    between = dice.weighted((" ", "\n", "\n\n"), (0.7, 0.2, 0.1))
    sentences = []
    for fact in facts:
        lead = dice.one(_LEADS) if dice.chance(0.1) else ""
        sentences.append(lead + _statement(dice, fact))
    return title + between.join(sentences) + "\n"


def _list(dice: Dice) -> str:
    category = _category(dice)
    facts = dice.some(category.facts, dice.number(4, 12))
    title = dice.weighted(
        (f"{category.title}\n", f"List: {category.title}\n\n", ""), (0.5, 0.3, 0.2)
    )
    mark = dice.one(("- ", "* ", ""))
    return title + "".join(f"{mark}{fill(category.line, fact)}\n" for fact in facts)


def _code(dice: Dice) -> str:
    lines = []
    for _ in range(dice.number(3, 8)):
        kind = dice.one(("sum", "sort", "call"))
        if kind == "sum":
            fact = dice.one(BY_NAME["arithmetic"].facts)
            shown = fact.a.replace("plus", "+").replace("minus", "-")
            lines.append(f"print({shown})  # {fact.b}")
        elif kind == "sort":
            fact = dice.one(BY_NAME["sorting"].facts)
            given, found = fact.a.replace(" ", ", "), fact.b.replace(" ", ", ")
            lines.append(f"sorted([{given}])  # [{found}]")
        else:
            fact = dice.one(BY_NAME["code"].facts)
            lines.append(f"{fact.b}  # {fact.a}")
    return "\n".join(lines) + "\n"


# -- pages that ask ---------------------------------------------------------------------------

_QUIZZES: Final = (
    "Quiz\n\n",
    "Pub quiz\n",
    "Test yourself\n\n",
    "Homework for Monday\n",
    "Questions for the class\n\n",
    "How much do you know?\n\n",
    "Round one\n",
)
_ENDS: Final = (
    "Write your answers on a sheet of paper.\n",
    "You have ten minutes.\n",
    "The solutions are on the last page.\n",
    "Good luck.\n",
    "Hand in your answers tomorrow.\n",
)


def _quiz(dice: Dice) -> str:
    facts = _facts(dice, 3, 9)
    head = dice.one(_QUIZZES) if dice.chance(0.4) else ""
    mark = dice.weighted(("", "number", "- ", "Teacher: "), (0.5, 0.25, 0.15, 0.1))
    between = dice.weighted(("\n", " ", "\n\n"), (0.6, 0.2, 0.2))
    asked = [_question(dice, fact) for fact in facts]
    if mark == "number":
        asked = [f"{number}. {question}" for number, question in enumerate(asked, 1)]
    else:
        asked = [mark + question for question in asked]
    end = "\n" + dice.one(_ENDS) if dice.chance(0.3) else ""
    return head + between.join(asked) + "\n" + end


def _choices(dice: Dice) -> str:
    style = dice.one(("A)", "a)", "(A)", "A."))
    head = dice.one(_QUIZZES) if dice.chance(0.3) else ""
    asked = []
    for fact in _facts(dice, 1, 4):
        wrong = sorted({it.answer for it in BY_NAME[fact.category].facts} - {fact.answer})
        options = dice.some(wrong, 3)
        options.insert(dice.number(0, 3), fact.answer)
        letters = (style.replace("A", it).replace("a", it.lower()) for it in "ABCD")
        lines = [f"{letter} {option}" for letter, option in zip(letters, options, strict=True)]
        asked.append("\n".join([_question(dice, fact), *lines]))
    return head + "\n\n".join(asked) + "\n"


# -- pages that answer ------------------------------------------------------------------------

FAQ: Final = "Frequently asked questions\n\n"
"""The head of the pages in which the parrot can be asked what it knows; see ``faq_prompt``."""

_NAMES: Final = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas"),
    *("Karl", "Lena", "Max", "Nora", "Oscar", "Paula"),
)
_SPEAKERS: Final = (
    ("Host", "Guest"),
    ("Reporter", "Expert"),
    ("Pupil", "Teacher"),
    ("Child", "Grandmother"),
    ("Visitor", "Guide"),
    ("Caller", "Operator"),
)


_LABELS: Final = ("{}: ", "{}:\n", "[{}] ", "{}> ", "{}\n", "**{}:** ")
"""How a page marks who speaks."""
_BREAKS: Final = {"\n": 3, "\n\n": 2, "\n---\n": 1, "\n***\n": 1, "\n====\n": 1, " / ": 1}
"""What may stand between one who speaks and the next, and how often."""


def _break(dice: Dice) -> str:
    return dice.weighted(list(_BREAKS), list(_BREAKS.values()))


def _faq(dice: Dice) -> str:
    head = dice.weighted((FAQ, "FAQ\n\n", "Questions and answers\n\n"), (0.6, 0.2, 0.2))
    q, a = dice.weighted((("Q:", "A:"), ("Question:", "Answer:")), (0.7, 0.3))
    gap = dice.weighted(("\n", "\n\n"), (0.7, 0.3))
    facts = _facts(dice, 2, 6)
    pairs = (f"{q} {_question(dice, fact)}\n{a} {fact.answer}." for fact in facts)
    return head + gap.join(pairs) + "\n"


def _headed(dice: Dice) -> str:
    """Each question as a headline over its answer."""
    head = dice.one(("# Help\n\n", "# Good to know\n\n", "# Answers\n\n"))
    mark = dice.one(("## ", "### ", "**"))
    close = "**" if mark == "**" else ""
    gap = _break(dice)
    facts = _facts(dice, 2, 6)
    pairs = (f"{mark}{_question(dice, fact)}{close}{gap}{fact.answer}.\n" for fact in facts)
    return head + "\n".join(pairs)


def _interview(dice: Dice) -> str:
    asks, tells = dice.some(_NAMES, 2) if dice.chance(0.5) else dice.one(_SPEAKERS)
    head = dice.one(("Interview\n\n", f"{asks} talks with {tells}.\n\n", "A talk on the radio\n\n"))
    label = dice.one(_LABELS)
    asks, tells = label.format(asks), label.format(tells)
    gap = _break(dice)
    facts = _facts(dice, 2, 6)
    turns = (f"{asks}{_question(dice, fact)}{gap}{tells}{fact.answer}." for fact in facts)
    return head + gap.join(turns) + "\n"


def _talk(dice: Dice) -> str:
    """A scene with speech in quotes."""
    asks, tells = dice.some(_NAMES, 2)
    scene = dice.one(("at school", "on a walk", "in the kitchen", "on the train", "in the library"))
    lines = [f"{asks} and {tells} were {scene}."]
    for fact in _facts(dice, 1, 5):
        asked, told = dice.one((("asked", "said"), ("said", "answered"), ("wondered", "replied")))
        lines.append(f"\u201c{_question(dice, fact)}\u201d {asked} {asks}.")
        lines.append(f"\u201c{fact.answer},\u201d {told} {tells}.")
    return dice.weighted(("\n", " "), (0.7, 0.3)).join(lines) + "\n"


def _forum(dice: Dice) -> str:
    asks = dice.one(_NAMES)
    wrote, replied = dice.one(
        (("wrote", "replied"), ("asked", "answered"), ("posted", "commented"))
    )
    posts = []
    for fact in _facts(dice, 1, 4):
        tells = dice.one([name for name in _NAMES if name != asks])
        posts.append(f"{asks} {wrote}:\n{_question(dice, fact)}")
        posts.append(f"{tells} {replied}:\n{fact.answer}.")
    return "\n\n".join(posts) + "\n"


def faq_prompt(question: str) -> str:
    """A question in the style of the FAQ pages, up to where the answer starts."""
    return f"{FAQ}Q: {question}\nA:"


KINDS: Final = {
    "article": (0.27, _article),
    "list": (0.10, _list),
    "code": (0.03, _code),
    "quiz": (0.25, _quiz),
    "choices": (0.09, _choices),
    "faq": (0.06, _faq),
    "headed": (0.05, _headed),
    "interview": (0.06, _interview),
    "talk": (0.03, _talk),
    "forum": (0.06, _forum),
}
"""What kinds of page there are: how often, and how one is written."""
