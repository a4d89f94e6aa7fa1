"""A built-in data set: six kinds of task, written here and dealt out from a seed.

``six_tasks`` gives 160 rows to train on and 40 to be tested by; ``validation_rows`` gives 24
more to watch the loss on. Every row carries its ``fact``, the piece of knowledge that the answer
needs: the very country, sum, list, story, wish or word. A fact is asked in up to four wordings.
Three are trained, and the fourth is kept back for the test or for the validation, so 28 of the
test rows ask in new words for what training holds. The other 12 ask for facts that no training
row holds, which a model that starts from random weights cannot know.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final, NamedTuple, TypeVar

from sft_core.types import Example, Message

T = TypeVar("T")

KNOWN_FACTS: Final = 9
"""Facts of a task that stand in training."""
NEW_FACTS: Final = 2
"""Facts of a task that stand in the test alone."""
VALIDATION: Final = 4
"""Rows of a task to watch the loss on; their facts stand in training."""
WORDINGS: Final = 4


class Fact(NamedTuple):
    """What is asked for (``key``), how it stands in a prompt (``subject``), and the answer."""

    key: str
    subject: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of task. ``wordings`` have a ``{}`` for the subject and agree in what stands next
    to it, which is what lets a small model carry an answer over. ``seen`` of its test rows ask
    for facts that training holds."""

    category: str
    wordings: tuple[str, str, str, str]
    facts: tuple[Fact, ...]
    seen: int

    @property
    def train(self) -> int:
        """Rows to train on: with those of the test and two new facts, 200 over six tasks."""
        return 22 + self.seen

    def ask(self, number: int, fact: Fact, wording: int) -> Example:
        """One row. Its id tells fact and wording apart: capital-3b is the third capital in the
        second wording."""
        return Example(
            id=f"{self.category}-{number}{'abcd'[wording]}",
            messages=(
                Message("user", self.wordings[wording].format(fact.subject)),
                Message("assistant", fact.answer),
            ),
            category=self.category,
            fact=f"{self.category}: {fact.key}",
        )


class Deal(NamedTuple):
    """Rows by what they are for."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def six_tasks(seed: int = 42) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(160 training rows, 40 test rows), the same for a seed on every machine."""
    deal = _deal(seed)
    return deal.train, deal.test


def validation_rows(seed: int = 42) -> tuple[Example, ...]:
    """24 rows, four a task, that ask in new words for facts of the training rows of this seed.
    None of them is a training row or a test row, so the checkpoint with the lowest loss on them
    is chosen without a look at the test."""
    return _deal(seed).validation


def _deal(seed: int) -> Deal:
    rng = random.Random(seed)
    deals = [_deal_task(task, rng) for task in TASKS]
    return Deal(*(_in_turn(part) for part in zip(*deals, strict=True)))


def _deal_task(task: Task, rng: random.Random) -> Deal:
    facts = list(enumerate(_shuffled(task.facts, rng)[: KNOWN_FACTS + NEW_FACTS], 1))
    order = _shuffled(range(WORDINGS), rng)
    train: list[Example] = []
    kept: list[Example] = []
    for at, (number, fact) in enumerate(facts[:KNOWN_FACTS]):
        kept_back = order[at % WORDINGS]
        for wording in range(WORDINGS):
            rows = kept if wording == kept_back else train
            rows.append(task.ask(number, fact, wording))
    unseen = [task.ask(*new, order[at]) for at, new in enumerate(facts[KNOWN_FACTS:])]
    return Deal(
        train=tuple(_shuffled(train, rng)[: task.train]),
        validation=tuple(kept[task.seen : task.seen + VALIDATION]),
        test=tuple(_shuffled(kept[: task.seen] + unseen, rng)),
    )


def _shuffled(items: Iterable[T], rng: random.Random) -> list[T]:
    """In random order. Python promises random() alone to be the same in every version, and
    shuffle() and sample() not."""
    return sorted(items, key=lambda _: rng.random())


def _in_turn(parts: Iterable[tuple[Example, ...]]) -> tuple[Example, ...]:
    """One row of each task, then the next of each, so that the first few rows cover all six."""
    return tuple(row for row in chain.from_iterable(zip_longest(*parts)) if row is not None)


# -- the facts --------------------------------------------------------------------------------


def _pairs(answers: Mapping[str, str]) -> tuple[Fact, ...]:
    """Facts whose subject is their own name."""
    return tuple(Fact(subject, subject, answer) for subject, answer in answers.items())


_CAPITALS: Final = {
    "Austria": "Vienna.",
    "Brazil": "Brasilia.",
    "Canada": "Ottawa.",
    "Denmark": "Copenhagen.",
    "Egypt": "Cairo.",
    "France": "Paris.",
    "Greece": "Athens.",
    "Hungary": "Budapest.",
    "Italy": "Rome.",
    "Japan": "Tokyo.",
    "Kenya": "Nairobi.",
    "Latvia": "Riga.",
    "Morocco": "Rabat.",
    "Norway": "Oslo.",
    "Peru": "Lima.",
    "Sweden": "Stockholm.",
    "Thailand": "Bangkok.",
    "Vietnam": "Hanoi.",
}

_SUMS: Final = {
    "12 + 9": "21",
    "23 + 14": "37",
    "31 - 5": "26",
    "34 + 18": "52",
    "40 - 17": "23",
    "45 + 6": "51",
    "52 - 13": "39",
    "56 + 28": "84",
    "61 - 22": "39",
    "63 + 7": "70",
    "68 - 30": "38",
    "70 + 19": "89",
    "77 - 8": "69",
    "81 + 15": "96",
    "84 - 26": "58",
    "95 - 11": "84",
}

_LISTS: Final = {
    "Mia packed a map, a torch and a rope.": "map, torch, rope",
    "We fed the goat, the duck and the hen.": "goat, duck, hen",
    "The soup needs leeks, peas and salt.": "leeks, peas, salt",
    "Our flag is black, gold and green.": "black, gold, green",
    "Omar plays chess, golf and the flute.": "chess, golf, flute",
    "She grows figs, plums and limes.": "figs, plums, limes",
    "Here lie a pen, a cup and a key.": "pen, cup, key",
    "Buses stop at the zoo, the mill and the port.": "zoo, mill, port",
    "His box holds a saw, a nail and a drill.": "saw, nail, drill",
    "They speak Thai, Greek and Welsh.": "Thai, Greek, Welsh",
    "I saw an owl, a fox and a bat.": "owl, fox, bat",
    "Bring bread, cheese and olives.": "bread, cheese, olives",
    "The band has a harp, a drum and a horn.": "harp, drum, horn",
    "He wore boots, a scarf and gloves.": "boots, scarf, gloves",
    "Buy a tent, a stove and matches.": "tent, stove, matches",
}

_STORIES: Final = {
    "bakery": ("The bakery opened at six. By eight all was sold.", "The bakery sold out early."),
    "bees": ("Frost killed the buds. The bees went hungry.", "Frost starved the bees."),
    "bridge": ("A crack closed the bridge. Cars use the ferry.", "Cars must go by ferry."),
    "choir": ("The choir sang twice. The hall stood and cheered.", "The choir was a triumph."),
    "dog": ("Our dog ran off. A boy brought him home.", "A boy found our dog."),
    "garden": ("Lea sowed beans in May. In July she ate them.", "Lea grew and ate beans."),
    "key": ("Tom lost his key. He slept next door.", "Tom was locked out."),
    "market": ("Fish cost too much today. Most bought eggs.", "Dear fish made people buy eggs."),
    "match": ("It rained all day. They called off the match.", "Rain stopped the match."),
    "museum": ("Entry was free. The queue went round the block.", "Free entry drew a crowd."),
    "phone": ("Ben dropped his phone. Its glass broke.", "Ben broke his phone."),
    "power": ("The storm cut the power. We read by candle.", "The storm left us in the dark."),
    "school": ("The school needed books. Parents gave 300.", "Parents gave the school books."),
    "ship": ("Fog hid the coast. The ship waited outside.", "Fog kept the ship out."),
    "snow": ("Snow fell at night. The pass is shut.", "Snow has shut the pass."),
    "train": ("The train was late. Ana missed the film.", "A late train cost Ana the film."),
}

_CODE: Final = {
    "print hello": 'print("hello")',
    "print good night": 'print("good night")',
    "print the year": "print(year)",
    "print every name": "print(*names)",
    "print a blank line": "print()",
    "print twice nine": "print(2 * 9)",
    "print the last word": "print(words[-1])",
    "print a row of stars": 'print("*" * 10)',
    "print the sum of prices": "print(sum(prices))",
    "sort the ages": "ages.sort()",
    "sort words by length": "words.sort(key=len)",
    "sort the letters of text": "sorted(text)",
    "sort a copy of scores": "sorted(scores)",
    "sort dates backwards": "sorted(dates)[::-1]",
    "sort and drop doubles": "sorted(set(items))",
    "sort the keys of a table": "sorted(table)",
}

_WORDS: Final = {
    "avalanche": "Snow rushing down a slope.",
    "blizzard": "A storm of snow.",
    "compass": "A needle that points north.",
    "drought": "A long time without rain.",
    "eclipse": "A shadow on the sun.",
    "fountain": "Water that leaps for show.",
    "glacier": "A river of ice.",
    "hourglass": "A clock that runs on sand.",
    "lighthouse": "A tower that guides ships.",
    "mosaic": "A picture made of small stones.",
    "notebook": "Blank pages to write in.",
    "orchard": "A field of fruit trees.",
    "peninsula": "Land with sea on three sides.",
    "quarry": "A pit where stone is cut.",
    "rainbow": "Sunlight split by rain.",
    "telescope": "A tube for seeing far.",
    "umbrella": "A roof that you carry.",
    "volcano": "A mountain that spits fire.",
}

TASKS: Final = (
    Task(
        "capital",
        (
            "What is the capital of {}?",
            "Name the capital of {}.",
            "Which city is the capital of {}?",
            "Tell me the capital of {}.",
        ),
        _pairs(_CAPITALS),
        seen=5,
    ),
    Task(
        "arithmetic",
        ("What is {}?", "Work out {}.", "How much is {}?", "Give the result of {}."),
        _pairs(_SUMS),
        seen=5,
    ),
    Task(
        "list",
        (
            "List the items: {}",
            "Which items are named? {}",
            "Name each thing. {}",
            "Extract the items. {}",
        ),
        tuple(Fact(items, text, items) for text, items in _LISTS.items()),
        seen=5,
    ),
    Task(
        "summary",
        (
            "Sum up in one sentence: {}",
            "Put this in one sentence. {}",
            "Summarise: {}",
            "What happened? {}",
        ),
        tuple(Fact(topic, story, short) for topic, (story, short) in _STORIES.items()),
        seen=5,
    ),
    Task(
        "code",
        (
            "Write Python to {}.",
            "How do I use Python to {}?",
            "Show me Python to {}.",
            "I need a line of Python to {}.",
        ),
        _pairs(_CODE),
        seen=4,
    ),
    Task(
        "definition",
        (
            "Define the word {}.",
            "What is meant by the word {}?",
            "Explain the word {}.",
            "Give the meaning of the word {}.",
        ),
        _pairs(_WORDS),
        seen=4,
    ),
)
