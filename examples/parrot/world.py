"""The small closed world that the parrot has read about: public facts in nine categories.

A ``Fact`` is one thing to know; a ``Category`` says how people ask for it and how they state it.
Everything that is written about the world, by ``pages.py`` and by ``sets.py``, comes from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from examples.parrot.facts import (
    CAPITALS,
    DEFINITIONS,
    FUNCTIONS,
    OPPOSITES,
    PLURALS,
    SYMBOLS,
    YOUNG,
    Pairs,
    sortings,
    sums,
)


@dataclass(frozen=True, slots=True)
class Fact:
    """``a`` is what is asked about and ``b`` what is asked for, as they read inside a sentence.
    ``answer`` is how a person would answer, without the full stop. Facts of one ``group`` follow
    from each other, as 7 plus 5 from 5 plus 7."""

    id: str
    category: str
    a: str
    b: str
    answer: str
    group: str


@dataclass(frozen=True, slots=True)
class Category:
    """``questions`` and ``statements`` hold {a} and {b}, {A} and {B} with a capital
    letter, {an} and {An} with an article before {a}."""

    name: str
    title: str
    facts: tuple[Fact, ...]
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    line: str  # how a list or table puts it


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def fill(pattern: str, fact: Fact) -> str:
    """A sentence about a fact."""
    an = article(fact.a)
    return pattern.format(
        a=fact.a, b=fact.b, A=capitalised(fact.a), B=capitalised(fact.b), an=an, An=capitalised(an)
    )


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _facts(name: str, pairs: Pairs, answer: str = "{B}") -> tuple[Fact, ...]:
    return tuple(
        Fact(
            f"{name}:{a}",
            name,
            a,
            b,
            answer.format(b=b, B=capitalised(b)),
            _group(name, f"{a} {b}"),
        )
        for a, b in pairs
    )


def _group(name: str, fact: str) -> str:
    """The same numbers make one group: 5, 7 and 12; or 1, 2 and 9 in whatever order."""
    if name in ("arithmetic", "sorting"):
        return " ".join(sorted(set(fact.split()) - {"plus", "minus"}))
    return fact


def _with_article(pairs: Pairs) -> Pairs:
    return [(a, article(b)) for a, b in pairs]


# -- how it is asked and said -----------------------------------------------------------------

CATEGORIES: Final = (
    Category(
        "capital",
        "Capitals",
        _facts("capital", CAPITALS),
        (
            "What is the capital of {a}?",
            "Which city is the capital of {a}?",
            "What is the capital city of {a}?",
            "{A} has which capital?",
        ),
        (
            "The capital of {a} is {b}.",
            "{b} is the capital of {a}.",
            "{A} has its capital in {b}.",
            "The capital city of {a} is {b}.",
            "In {a}, the capital is called {b}.",
            "Of all cities of {a}, {b} is the capital.",
            "On the map of {a}, a star marks the capital, {b}.",
            "{A} made {b} its capital.",
        ),
        "{a}: {b}",
    ),
    Category(
        "symbol",
        "Chemical symbols",
        _facts("symbol", SYMBOLS),
        (
            "What is the chemical symbol of {a}?",
            "Which symbol does {a} have?",
            "What is the symbol for {a}?",
            "How do chemists write {a}?",
        ),
        (
            "The chemical symbol of {a} is {b}.",
            "{b} is the symbol for {a}.",
            "Chemists write {a} as {b}.",
            "In the periodic table, {a} is {b}.",
            "{A} has the symbol {b}.",
            "In a formula, {b} means {a}.",
            "As a symbol, {a} is written {b}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "young",
        "Animals and their young",
        _facts("young", _with_article(YOUNG)),
        (
            "What is a young {a} called?",
            "What do you call a young {a}?",
            "What is the young of {an} called?",
            "What is a baby {a} called?",
        ),
        (
            "A young {a} is called {b}.",
            "{B} is a young {a}.",
            "The young of {an} is {b}.",
            "A baby {a} is called {b}.",
            "{An} was once {b}.",
            "When it is young, {an} is called {b}.",
            "In time {b} becomes {an}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "opposite",
        "Opposites",
        _facts("opposite", OPPOSITES),
        (
            "What is the opposite of {a}?",
            "Which word is the opposite of {a}?",
            "Which word means the opposite of {a}?",
            "What is the contrary of {a}?",
        ),
        (
            "The opposite of {a} is {b}.",
            "{A} is the opposite of {b}.",
            "{A} and {b} are opposites.",
            "{A} and {b} never mean the same.",
            "The contrary of {a} is {b}.",
            "{A} means the opposite of {b}.",
            "If {a} is one end, {b} is the other.",
        ),
        "{a}: {b}",
    ),
    Category(
        "plural",
        "Plurals",
        _facts("plural", PLURALS),
        (
            "What is the plural of {a}?",
            "Which word is the plural of {a}?",
            "How do you write more than one {a}?",
            "What is the plural form of {a}?",
        ),
        (
            "The plural of {a} is {b}.",
            "One {a}, two {b}.",
            "{B} is the plural of {a}.",
            "Where there are several, {a} becomes {b}.",
            "One says one {a} and many {b}.",
            "The word {a} becomes {b} in the plural.",
            "Add {an} to {an} and you have two {b}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "arithmetic",
        "Sums",
        _facts("arithmetic", sums()),
        ("What is {a}?", "How much is {a}?", "What does {a} make?", "What do you get for {a}?"),
        (
            "{a} is {b}.",
            "{a} makes {b}.",
            "{a} equals {b}.",
            "The result of {a} is {b}.",
            "If you compute {a}, you get {b}.",
            "{b} is what {a} gives.",
        ),
        "{a} = {b}",
    ),
    Category(
        "sorting",
        "Sorted lists",
        _facts("sorting", sortings()),
        (
            "Sort the numbers {a}.",
            "Can you sort {a}?",
            "How do you sort {a}?",
            "What is {a} in order?",
        ),
        (
            "Sorted, {a} becomes {b}.",
            "In order, {a} is {b}.",
            "The numbers {a} are sorted as {b}.",
            "If you sort {a}, you get {b}.",
            "From small to large, {a} reads {b}.",
            "The list {a} in order is {b}.",
        ),
        "{a} -> {b}",
    ),
    Category(
        "code",
        "Python functions",
        _facts("code", [(b, f"{a}()") for a, b in FUNCTIONS], "{b}"),
        (
            "Which Python function {a}?",
            "In Python, which function {a}?",
            "What is the Python function that {a}?",
            "Which function {a} in Python?",
        ),
        (
            "In Python, {b} {a}.",
            "The function {b} {a}.",
            "The Python function that {a} is {b}.",
            "What {a} in Python is {b}.",
            "The function which {a} is called {b}.",
            "{b} is the function that {a}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "definition",
        "Words and their meaning",
        _facts("definition", DEFINITIONS),
        (
            "What is {an}?",
            "What does the word {a} mean?",
            "How would you define {an}?",
            "What is meant by {an}?",
        ),
        (
            "{An} is {b}.",
            "The word {a} means {b}.",
            "{B} is called {an}.",
            "By {an} we mean {b}.",
            "The dictionary says that {an} is {b}.",
            "We call {b} {an}.",
        ),
        "{a}: {b}",
    ),
)

FACTS: Final = tuple(fact for category in CATEGORIES for fact in category.facts)
BY_NAME: Final = {category.name: category for category in CATEGORIES}


# -- the two halves ---------------------------------------------------------------------------

SEED: Final = 2024


def halves() -> tuple[dict[str, tuple[Fact, ...]], dict[str, tuple[Fact, ...]]]:
    """The world cut in two at random, category by category: the half that fine-tuning may teach
    from, and the half that it never touches, each in random order. Facts that follow from each
    other lie in the same half."""
    taught, untouched = {}, {}
    for category in CATEGORIES:
        draw = random.Random(f"{SEED} {category.name}").random
        groups = sorted({fact.group for fact in category.facts})
        groups.sort(key=lambda _: draw())
        first = set(groups[: (len(groups) + 1) // 2])
        facts = sorted(category.facts, key=lambda _: draw())
        taught[category.name] = tuple(it for it in facts if it.group in first)
        untouched[category.name] = tuple(it for it in facts if it.group not in first)
    return taught, untouched
