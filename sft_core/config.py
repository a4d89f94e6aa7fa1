"""Everything a person can choose, as one value that can be saved, shared and checked.

``LabConfig`` is the whole shareable state: which rows, which template, which model, what is
trained, how, and how answers are drawn. Each part checks itself in ``__post_init__`` and raises
``ConfigError`` with a sentence. ``from_dict`` and ``from_json`` also check names and types;
``to_dict`` and ``to_json`` give plain JSON back. Unknown keys are an error, never ignored.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sft_core.recipe import PARROT_RUN as PARROT_RUN
from sft_core.recipe import LoraConfig as LoraConfig
from sft_core.recipe import Precision as Precision
from sft_core.recipe import Schedule as Schedule
from sft_core.recipe import TrainConfig as TrainConfig
from sft_core.recipe import require
from sft_core.types import ConfigError

CONFIG_VERSION: Final = 1


class TrainOn(StrEnum):
    """What is trained: turns, or what the template's author put between generation tags."""

    ASSISTANT = "assistant"
    LAST_ASSISTANT = "last_assistant"
    ALL = "all"
    GENERATION_TAGS = "generation_tags"


@dataclass(frozen=True, slots=True)
class MaskPolicy:
    """What the loss is computed on: which turns, and whether their ends are trained too."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    train_on: TrainOn = TrainOn.ASSISTANT
    end_of_turn: bool = True


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which rows. ``source`` is a built-in set, a file, or a hub id.

    ``columns`` maps the lab's names (instruction, input, output, system, messages, category,
    id, ...) to the data's columns where recognition should be corrected. ``rows`` limits how
    many rows are read. ``eval_rows`` and ``test_rows`` are drawn with ``seed``; a set that
    brings its own held-out rows uses them as test rows, and a small set gives fewer eval rows
    (see ``data.split``).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    source: str = "parrot"
    subset: str | None = None  # a hub data set's configuration
    split: str | None = None
    rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    eval_rows: int = 16
    test_rows: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        require(bool(self.source.strip()), "Choose a data set: its name, a file, or a hub id.")
        require(self.rows is None or self.rows > 0, "rows must be at least 1, or left empty.")
        require(self.eval_rows >= 0, "eval_rows cannot be negative.")
        require(self.test_rows >= 0, "test_rows cannot be negative.")


@dataclass(frozen=True, slots=True)
class TemplateConfig:
    """Which chat template: a preset's name, "tokenizer" for the tokenizer's own, or, where
    ``source`` is given, that Jinja text under this name."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = "chatml"
    source: str | None = None


class MissingTokens(StrEnum):
    """What happens to markers that the template prints and the tokenizer does not know."""

    ADD = "add"  # each becomes one new token; the embeddings grow
    TEXT = "text"  # they stay ordinary text, several tokens each


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model. ``name`` is a catalogue name, a folder, or a hub id.

    ``width``, ``depth``, ``heads`` and ``context`` shape models that start from random weights
    and are ignored by those that are loaded.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = "parrot"
    revision: str | None = None
    width: int = 128
    depth: int = 2
    heads: int = 4
    context: int = 256
    missing_tokens: MissingTokens = MissingTokens.ADD

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "Choose a model: its name, a folder, or a hub id.")
        for name in ("width", "depth", "heads", "context"):
            require(getattr(self, name) > 0, f"{name} must be at least 1.")
        require(
            self.width % self.heads == 0,
            f"width {self.width} must be a multiple of heads {self.heads}.",
        )


@dataclass(frozen=True, slots=True)
class GenerateConfig:
    """How answers are drawn. ``temperature`` 0 is greedy. ``top_p`` 1 and ``top_k`` 0 keep the
    whole distribution; ``repetition_penalty`` 1 leaves it as it is. ``stop_tokens`` are texts to
    stop on instead of what training taught; empty is the right choice for a model tuned here."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    max_new_tokens: int = 96
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.max_new_tokens > 0, "max_new_tokens must be at least 1.")
        require(0 <= self.temperature <= 5, "temperature must lie between 0 and 5.")
        require(0 < self.top_p <= 1, "top_p must be more than 0 and at most 1.")
        require(self.top_k >= 0, "top_k cannot be negative; 0 turns it off.")
        require(0 < self.repetition_penalty <= 10, "repetition_penalty must lie between 0 and 10.")
        require(
            all(self.stop_tokens), "A stop token cannot be empty; leave the list empty instead."
        )
        require(self.seed >= 0, "seed cannot be negative.")


@dataclass(frozen=True, slots=True)
class LabConfig:
    """The whole state of the lab. The defaults tune the parrot, the embedded base model, on the
    rows that go with it; nothing is downloaded (``examples/parrot/run.json``)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: int = CONFIG_VERSION
    data: DataConfig = field(default_factory=DataConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: MaskPolicy = field(default_factory=MaskPolicy)
    train: TrainConfig = PARROT_RUN
    lora: LoraConfig = field(default_factory=LoraConfig)  # read where train.method is "lora"
    generate: GenerateConfig = GenerateConfig(max_new_tokens=48)  # the parrot answers in few words

    def __post_init__(self) -> None:
        require(
            self.version == CONFIG_VERSION,
            f"This configuration has version {self.version}; this lab reads {CONFIG_VERSION}.",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises ConfigError that names the first wrong key or value."""
        try:
            config: Self = _adapter(cls).validate_python(values)
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None
        return config

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ConfigError where the text is no JSON object or a value is wrong."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"The configuration is not JSON: {error.msg} at line {error.lineno}, "
                f"column {error.colno}."
            ) from None
        require(isinstance(values, dict), "The configuration must be a JSON object.")
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def with_settings(self, settings: Iterable[str]) -> Self:
        """A copy with ``key=value`` settings applied. Keys are dotted ("train.epochs") or bare
        where only one section has them ("epochs"); values are JSON, or else text."""
        values = self.to_dict()
        for setting in settings:
            key, found, text = setting.partition("=")
            require(bool(found), f"Write a setting as key=value, not {setting!r}.")
            section, name = _place(key.strip())
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = text
            values[section][name] = value
        return self.from_dict(values)

    def but(self, **sections: Any) -> Self:
        """A copy with whole sections replaced."""
        return replace(self, **sections)


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "data": DataConfig,
    "template": TemplateConfig,
    "model": ModelConfig,
    "policy": MaskPolicy,
    "train": TrainConfig,
    "lora": LoraConfig,
    "generate": GenerateConfig,
}


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Built at the first use of a class: that takes a while, and most starts need few."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _place(key: str) -> tuple[str, str]:
    """ "train.epochs" or "epochs" -> ("train", "epochs")."""
    homes = {section: {f.name for f in fields(cls)} for section, cls in _SECTIONS.items()}
    section, dot, name = key.partition(".")
    if dot:
        require(
            section in homes and name in homes[section],
            f"There is no setting {key!r}.{_guess(key, _all_keys(homes))}",
        )
        return section, name
    owners = [section for section, names in homes.items() if key in names]
    require(
        len(owners) < 2,
        f"{key!r} is ambiguous: write {' or '.join(f'{owner}.{key}' for owner in owners)}.",
    )
    require(bool(owners), f"There is no setting {key!r}.{_guess(key, _all_keys(homes))}")
    return owners[0], key


def _all_keys(homes: Mapping[str, set[str]]) -> list[str]:
    bare = [name for names in homes.values() for name in names]
    return bare + [f"{section}.{name}" for section, names in homes.items() for name in names]


def _guess(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _sentence(error: ValidationError) -> str:
    """The first problem of a failed validation as one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    own = first.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return f"{where}: {own}" if where else str(own)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        homes = {section: {f.name for f in fields(cls)} for section, cls in _SECTIONS.items()}
        known = [*_SECTIONS, *_all_keys(homes)]
        return f"There is no setting {where!r}.{_guess(where, known)}"
    message = first["msg"]
    return f"{where}: {message[0].lower()}{message[1:]}, but it is {first['input']!r}."
