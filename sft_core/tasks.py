"""The built-in data set: six kinds of task, written here, dealt out deterministically.

``six_tasks`` gives 160 rows to train on and 40 to be tested by; ``validation_rows`` gives 24
more to watch the loss on. Every row carries a ``fact``, the piece of knowledge that its answer
needs. Each of a task's known facts is asked in four phrasings: three are trained, the fourth
is kept back for the test or for the validation, so that a model gets it right only by reading
through the wording. The other test rows ask for facts that no training row holds, which a model
from random weights cannot know; the two are told apart wherever a figure is shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sft_core.types import Example, Message

KNOWN_FACTS: Final = 9
"""Facts of a task that stand in training."""
NEW_FACTS: Final = 2
"""Facts of a task that stand in the test alone."""
VALIDATION: Final = 4
"""Rows of a task that the eval loss is computed on."""


class Fact(NamedTuple):
    """What is asked for (``key``), as it stands in a prompt (``subject``), and the answer."""

    key: str
    subject: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of task: four phrasings with a ``{}`` for the subject, and facts to choose from.

    ``seen`` of its test rows ask for a fact that training holds in other words.
    """

    category: str
    phrasings: tuple[str, str, str, str]
    facts: tuple[Fact, ...]
    seen: int


_CAPITALS: Final = {
    "Austria": "Vienna", "Brazil": "Brasilia", "Canada": "Ottawa", "Denmark": "Copenhagen", "Egypt": "Cairo", "France": "Paris",
    "Ghana": "Accra", "Hungary": "Budapest", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi", "Latvia": "Riga", "Mongolia": "Ulaanbaatar",
    "Norway": "Oslo", "Peru": "Lima", "Spain": "Madrid", "Tunisia": "Tunis", "Uruguay": "Montevideo",
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
    "I saw an owl, a fox and two bats.": "owl, fox, bats",
    "Bring bread, cheese and olives.": "bread, cheese, olives",
    "The band has a harp, a drum and a horn.": "harp, drum, horn",
    "He wore boots, a scarf and gloves.": "boots, scarf, gloves",
    "Pack a tent, a stove and matches.": "tent, stove, matches",
}

_SUMMARIES: Final = {
    "late train": ("The train was late. Ana missed the film.", "A late train cost Ana the film."),
    "lost key": ("Tom lost his key. He slept next door.", "Tom was locked out."),
    "rain": ("It rained all day. The match was called off.", "Rain stopped the match."),
    "bakery": ("The bakery opened at six. By eight all was sold.", "The bakery sold out early."),
    "garden": ("Lea sowed beans in May. In July she ate them.", "Lea grew beans and ate them."),
    "bridge": ("The bridge cracked. Cars now take the ferry.", "Cars must go by sea."),
    "dog": ("Our dog ran off. A boy brought him home.", "Our lost dog was found."),
    "power cut": ("A storm cut the power. We read by candle.", "We sat in the dark."),
    "school": ("The school needed books. Parents gave 300.", "Parents gave the school books."),
    "ship": ("Fog hid the coast. The ship waited outside.", "Fog kept the ship out of port."),
    "museum": ("Entry was free. The queue went round the block.", "Free entry drew a crowd."),
    "phone": ("Ben dropped his phone. Its glass broke.", "Ben broke his phone."),
    "snow": ("Snow fell at night. The pass is shut.", "Snow has closed the pass."),
    "choir": ("The choir sang twice. The hall stood and cheered.", "The choir was a triumph."),
    "bees": ("Frost killed the buds. The bees went hungry.", "Frost starved the bees."),
    "market": ("Fish was dear today. Most people bought eggs.", "Dear fish sold the eggs."),
}

_PRINT: Final = ("hello", "thanks", "welcome", "sunrise", "maybe", "bravo", "ready", "encore")
_SORT: Final = ("ages", "cities", "dates", "files", "grades", "prices", "lengths", "orders")

_DEFINITIONS: Final = {
    "atlas": "A book of maps.",
    "blizzard": "A storm of snow and wind.",
    "comet": "A ball of ice with a tail.",
    "delta": "Land where a river meets the sea.",
    "fjord": "A deep bay between cliffs.",
    "glacier": "A slow river of ice.",
    "haiku": "A poem of three lines.",
    "island": "Land with water all round.",
    "kiln": "An oven for clay.",
    "ledger": "A record of money in and out.",
    "mosaic": "A picture made of small stones.",
    "nectar": "The sweet juice of a flower.",
    "orchard": "A field of fruit trees.",
    "pollen": "The fine dust that flowers make.",
    "quorum": "The fewest people who may vote.",
    "tundra": "Cold land without trees.",
    "vaccine": "Training for the body's defences.",
}


def _capital() -> Task:
    return Task("capital",
        ("What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?", "Tell me the capital of {}."),
        tuple(Fact(country, country, f"{city}.") for country, city in _CAPITALS.items()), seen=5)


def _arithmetic(rng: random.Random) -> Task:
    first = rng.sample(range(11, 60), 11); second=rng.sample(range(2,30),11)
    facts = []
    for a, b in zip(first,second):
        facts.append(Fact(f"{a}+{b}", f"{a} + {b}", f"{a + b}"))
    return Task("arithmetic", ("What is {}?", "Work out {}.", "How much is {}?", "Give the result of {}."), tuple(facts), seen=5)


def _list() -> Task:
    return Task("list", ("List the items: {}", "Which items are named? {}", "Name each thing. {}", "Extract the items. {}"),
        tuple(Fact(items, text, items) for text, items in _LISTS.items()), seen=5)


def _summary() -> Task:
    return Task("summary",
        ("Sum up in one sentence: {}", "Put this in one sentence. {}", "Summarise: {}", "What happened? {}"),
        tuple(Fact(topic, text, summary) for topic, (text, summary) in _SUMMARIES.items()), seen=5)


def _code() -> Task:
    return Task("code",
        ("Write Python to {}.", "In Python, how do I {}?", "Show me code to {}.", "One line of Python, please: {}."),
        (*(Fact(f"print {w}", f"print {w}", f'print("{w}")') for w in _PRINT), *(Fact(f"sort {w}", f"sort {w}", f"{w}.sort()") for w in _SORT)), seen=4)


def _definition() -> Task:
    return Task("definition",
        ("Define the word {}.", "What is meant by {}?", "Explain the term {}.", "Give the meaning of {}."),
        tuple(Fact(word, word, meaning) for word, meaning in _DEFINITIONS.items()), seen=4)


def _deal(seed):
    rng = random.Random(seed)
    train, val, test = [], [], []
    for task in (_capital(), _arithmetic(rng), _list(), _summary(), _code(), _definition()):
        facts = rng.sample(task.facts, KNOWN_FACTS + NEW_FACTS)
        known, new = facts[:KNOWN_FACTS], facts[KNOWN_FACTS:]
        order = rng.sample(range(4), 4)
        want = 22 + task.seen
        for at, fact in enumerate(known):
            kept = order[at % 4]
            rows = [(p, fact) for i, p in enumerate(task.phrasings) if i != kept]
            (test if at < task.seen else val if at < task.seen + VALIDATION else []).append((task, task.phrasings[kept], fact))
            if at == KNOWN_FACTS - 1: rows = rows[:3 - (KNOWN_FACTS*3 - want)]
            train += [(task, *r) for r in rows]
        for fact in new:
            test.append((task, rng.choice(task.phrasings), fact))
    for part in (train, val, test): rng.shuffle(part)
    return train, val, test

def make(part):
    return tuple(Example(f"{t.category}-{n}", (Message("user", p.format(f.subject)), Message("assistant", f.answer)), category=t.category, fact=f"{t.category}:{f.key}") for n,(t,p,f) in enumerate(part))
def six_tasks(seed=42):
    tr,v,te=_deal(seed); return make(tr), make(te)
def validation_rows(seed=42): return make(_deal(seed)[1])
