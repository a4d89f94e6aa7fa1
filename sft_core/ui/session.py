"""What a visitor has chosen, as plain values, and what follows from it.

The page's controls are the state: a handler gets the values that it needs as one ``Choices`` and
returns what to show. The only things kept elsewhere are the data set's configuration, the chosen
row, and the id of the run that is followed. Nothing here knows a component.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sft_core import catalogue, formats, templates
from sft_core.catalogue import Card, Origin
from sft_core.config import (
    DataConfig,
    GenerateConfig,
    LabConfig,
    MaskPolicy,
    MissingTokens,
    ModelConfig,
    TemplateConfig,
    TrainConfig,
    TrainOn,
)
from sft_core.data import plain_turn
from sft_core.disk import explain
from sft_core.settings import HOST, Host
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ConfigError, Example, LabError, Message, TemplateError
from sft_core.ui.sources import Pick, check_model, pack, rows_of, unpack

log = logging.getLogger(__name__)

OWN: Final = "own"
"""The choice in the list of models that stands for a folder or hub id typed by the visitor."""
FALLBACK: Final = "chatml"
"""The preset for a model whose tokenizer brings no template, or for one without a known name."""
MOST_TURNS: Final = 100
MOST_CHARACTERS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Choices:
    """The values of the controls that make the contract, as the page holds them. ``held`` is the
    data configuration in force, packed."""

    held: str = field(default_factory=lambda: pack(DataConfig()))
    pick: Pick = field(default_factory=Pick)
    model: str = catalogue.PARROT
    own_model: str = ""
    width: float | None = 128
    depth: float | None = 2
    heads: float | None = 4
    context: float | None = 256
    missing: str = MissingTokens.ADD.value
    preset: str = "chatml"
    source: str = ""
    train_on: str = TrainOn.ASSISTANT.value
    end_of_turn: bool = True
    conversation: str = ""
    max_length: float | None = 256

    @property
    def data(self) -> DataConfig:
        return unpack(self.held)


# -- errors ----------------------------------------------------------------------------------


def sentence(error: Exception) -> str:
    """What to tell a visitor. An error that nobody foresaw is logged whole and owned up to."""
    if isinstance(error, LabError):
        return str(error)
    log.error("The page met an error that nobody foresaw", exc_info=error)
    return explain(error)


# -- controls -> configuration ---------------------------------------------------------------


def whole(value: float | None, name: str) -> int:
    """A number field's value. Raises ConfigError where the field was emptied."""
    if value is None:
        raise ConfigError(f"{name} is empty: give a number.")
    return int(value)


def given(value: float | None, name: str) -> float:
    """A number field's value with its fraction. Raises ConfigError where the field was emptied."""
    if value is None:
        raise ConfigError(f"{name} is empty: give a number.")
    return float(value)


def optional(text: str | None, name: str) -> float | None:
    """The number in a text field that may stay empty. Raises ConfigError where it holds another
    thing."""
    plain = (text or "").replace(",", "").replace("_", "").strip()
    if not plain:
        return None
    try:
        return float(plain)
    except ValueError:
        raise ConfigError(f"{name} must be a number, or empty; it is {text!r}.") from None


def optional_whole(text: str | None, name: str) -> int | None:
    number = optional(text, name)
    return None if number is None else int(number)


def model_config(choices: Choices, host: Host = HOST) -> ModelConfig:
    """Raises ConfigError, or LimitError for a folder where this host opens none."""
    name = choices.own_model.strip() if choices.model == OWN else choices.model
    if not name:
        raise ConfigError("Type a hub id such as HuggingFaceTB/SmolLM2-135M, or a folder.")
    check_model(name, host)
    if card(name).origin is not Origin.RANDOM:
        return ModelConfig(name=name, missing_tokens=MissingTokens(choices.missing))
    return ModelConfig(
        name=name,
        width=whole(choices.width, "Width"),
        depth=whole(choices.depth, "Depth"),
        heads=whole(choices.heads, "Heads"),
        context=whole(choices.context, "Context"),
        missing_tokens=MissingTokens(choices.missing),
    )


def card(name: str) -> Card:
    return catalogue.find(name)


def template_config(choices: Choices, model: str) -> TemplateConfig:
    """A preset where the editor holds its text unchanged, else the edited text."""
    if same_template(choices.source, preset_source(choices.preset, model)):
        return TemplateConfig(name=choices.preset)
    return TemplateConfig(name=f"{choices.preset} (edited)", source=choices.source)


def same_template(one: str, other: str) -> bool:
    """Whether two sources are the same text: an editor may change line ends, and Jinja itself
    drops the last one."""
    return one.replace("\r\n", "\n").rstrip("\n") == other.replace("\r\n", "\n").rstrip("\n")


def preset_source(preset: str, model: str) -> str:
    """The Jinja text of a preset. Raises TemplateError where ``model``'s tokenizer brings none."""
    if not is_own(preset):
        return templates.find_preset(preset).source
    tokenizer = load_tokenizer(card(model).tokenizer)
    return templates.resolve(TemplateConfig(name=preset), tokenizer).source


def is_own(preset: str) -> bool:
    """Whether a choice means a template of the tokenizer's own: the only one, or one by name."""
    return preset.partition(":")[0] == templates.TOKENIZER


def named_templates(model: str) -> tuple[str, ...]:
    """The names of further templates that a model's tokenizer brings, such as "tool_use". Raises
    LabError where the tokenizer cannot be read."""
    return tuple(
        name for name in load_tokenizer(card(model).tokenizer).chat_templates if name != "default"
    )


def preset_choices(named: Sequence[str] = ()) -> list[tuple[str, str]]:
    """-> (title, value) of presets and of what a tokenizer brings, its ``named`` templates too."""
    presets = [(preset.title, name) for name, preset in templates.PRESETS.items()]
    own = [(f"The tokenizer's own: {name}", f"{templates.TOKENIZER}:{name}") for name in named]
    return [*presets, ("The tokenizer's own", templates.TOKENIZER), *own]


def suitable_preset(model: str) -> str:
    """The preset to begin with for a model."""
    wanted = card(model).template
    try:
        preset_source(wanted, model)
    except TemplateError:
        return FALLBACK
    return wanted


def contract(choices: Choices, host: Host = HOST) -> LabConfig:
    """The configuration that the controls spell. Raises LabError with the first problem."""
    model = model_config(choices, host)
    return LabConfig(
        data=choices.data,
        model=model,
        template=template_config(choices, model.name),
        policy=MaskPolicy(TrainOn(choices.train_on), choices.end_of_turn),
        train=TrainConfig(max_length=whole(choices.max_length, "Length limit")),
        generate=generate_config(model.name),
    )


def generate_config(model: str) -> GenerateConfig:
    """How samples and test answers are drawn: the parrot's are short, others may not be."""
    return LabConfig().generate if model == catalogue.PARROT else GenerateConfig()


# -- the conversation under the template -----------------------------------------------------


def turns_of(example: Example) -> list[dict[str, Any]]:
    """The turns of a row as the message builder takes them: what can be edited, and the rest of
    the turn, which stays as it is."""
    return [
        {"role": message.role, "content": message.text, "rest": _rest(message)}
        for message in example.messages
    ]


def row_of(example: Example) -> dict[str, Any]:
    """What a row gives its template besides turns: kept while its turns are edited."""
    given = {"tools": list(example.tools), "chat_template_kwargs": dict(example.extra)}
    plain: dict[str, Any] = json.loads(json.dumps(given, default=str))  # a file may hold dates
    return plain


def _rest(message: Message) -> dict[str, Any]:
    shown = ("role", "content", "context")
    return {key: value for key, value in plain_turn(message).items() if key not in shown}


def conversation(choices: Choices, host: Host = HOST) -> Example:
    """The chosen row, or the visitor's own turns where the builder holds some. Raises LabError."""
    built = parse(choices.conversation)
    if built.get("own"):
        return own_example(built.get("turns"), built.get("row"))
    example = rows_of(choices.data, host).at(choices.pick)
    if example is None:
        raise ConfigError("There is no row there any more: choose another one.")
    return example


def own_example(turns: Any, row: Any = None) -> Example:
    """``turns`` as ``turns_of`` gives them, and the tools and variables of the ``row`` that they
    were made from. Raises LabError where there are none, more than a page should take, or where
    the rest of a turn is not what it says."""
    if not isinstance(turns, list) or not turns:
        raise ConfigError("The conversation is empty: add a turn.")
    if len(turns) > MOST_TURNS:
        raise ConfigError(f"The conversation has {len(turns)} turns; {MOST_TURNS} are enough here.")
    given = {"messages": [_whole(turn) for turn in turns if isinstance(turn, dict)]}
    if isinstance(row, dict):
        given |= {key: row[key] for key in ("tools", "chat_template_kwargs") if key in row}
    if len(json.dumps(given, default=str)) > MOST_CHARACTERS:
        raise ConfigError(
            f"The conversation is longer than {MOST_CHARACTERS:,} characters: shorten it, or "
            "upload it as a data set."
        )
    return formats.conversation(given, "your own conversation")


def _whole(turn: dict[str, Any]) -> dict[str, Any]:
    rest = turn.get("rest")
    said = {"role": str(turn.get("role") or "user"), "content": str(turn.get("content") or "")}
    return {**rest, **said} if isinstance(rest, dict) else said


def parse(text: str | None) -> dict[str, Any]:
    """A view's value as sent back by the page; {} where it is no JSON object."""
    try:
        value = json.loads(text or "{}")
    except (json.JSONDecodeError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}
