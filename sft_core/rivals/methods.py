"""The maskers by name, and what each would train of a conversation.

All three render in the sandbox as the lab does, and tokenise the text that they get in one go, as
their authors do: none knows where an answer starts before it has the ids. What a tokenizer's
post-processor would add in front, such as a second BOS, is left out here as everywhere in the lab.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from sft_core import sandbox
from sft_core.config import MaskPolicy, TrainOn
from sft_core.rivals.markers import CannotWorkError, markers
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import Cut, Pieces, Range, tokenize
from sft_core.types import (
    IGNORE_INDEX,
    ConfigError,
    EncodeError,
    Example,
    Template,
    TemplateError,
)


@dataclass(frozen=True, slots=True)
class Rival:
    """A method under a stable name: its title, how it works in a sentence, and who uses it."""

    name: str
    title: str
    idea: str
    origin: str


class Marker(NamedTuple):
    """What is searched for: its text, its ids on their own, and the positions at which they were
    found."""

    text: str
    ids: tuple[int, ...]
    found: tuple[int, ...]


class Turn(NamedTuple):
    """An answer as a prompt's length finds it: message, the prompt before it as text, and the
    half-open range of tokens that is taken for the answer."""

    message: int
    prompt: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RivalMask:
    """What a method would train: ``ids``, ``offsets`` (characters of ``text``, which need not be
    the text that the lab renders) and ``trained`` run in parallel.

    ``problem`` says in a sentence why the method cannot work here; then there are no ids.
    ``markers`` and ``turns`` are what a search and a prompt's length went by; ``spell`` gives the
    text of an id.
    """

    name: str
    text: str = ""
    ids: tuple[int, ...] = ()
    offsets: tuple[Range, ...] = ()
    trained: tuple[bool, ...] = ()
    problem: str = ""
    markers: tuple[Marker, ...] = ()
    turns: tuple[Turn, ...] = ()
    spell: Callable[[int], str] = field(default=str, repr=False, compare=False)

    @property
    def labels(self) -> tuple[int, ...]:
        """Ids where trained, ``IGNORE_INDEX`` elsewhere."""
        pairs = zip(self.ids, self.trained, strict=True)
        return tuple(id if trained else IGNORE_INDEX for id, trained in pairs)


_ALL: Final = (
    Rival(
        "tokenise-apart",
        "Tokenise apart",
        "Tokenises the prompt and the last answer apart, puts them one behind the other, and "
        "trains the second part.",
        "The first tutorial does it to an instruction and its output.",
    ),
    Rival(
        "marker-search",
        "Marker search",
        "Searches the tokens for those of the role markers, and masks from each user marker to "
        "the assistant marker of the same number; all the rest is trained.",
        "The second tutorial does it to ChatML.",
    ),
    Rival(
        "prefix-length",
        "Prefix length",
        "Counts the tokens of the prompt alone, and masks as many of the whole conversation; for "
        "several answers it counts before and behind each.",
        "Common in training libraries, such as TRL's prompt and completion.",
    ),
)
RIVALS: Final[Mapping[str, Rival]] = MappingProxyType({rival.name: rival for rival in _ALL})


def find(name: str) -> Rival:
    """The rival of a name. Raises ConfigError with the nearest one."""
    if name in RIVALS:
        return RIVALS[name]
    near = difflib.get_close_matches(name, RIVALS, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"There is no rival {name!r}.{guess} Choose one of {', '.join(RIVALS)}.")


def mask(
    name: str, template: Template, example: Example, tokenizer: Tokenizer, policy: MaskPolicy
) -> RivalMask:
    """What the method called ``name`` would train of ``example``.

    A policy that trains everything leaves nothing to mask; else it says only whether the prefix
    length is counted for every answer or for the last one: the other two methods know no such
    choice, and none of the three knows of ends of turn or of weights. Raises ConfigError for an
    unknown name, and the TemplateError or EncodeError of a conversation that the lab cannot
    render or encode either.
    """
    setting = _Setting(template, example, tokenizer, policy)
    method = _METHODS[find(name).name]
    try:
        made = method(setting)
    except CannotWorkError as reason:
        return RivalMask(name, problem=str(reason))
    everything = policy.train_on is TrainOn.ALL
    trained = (True,) * len(made.ids) if everything else made.trained
    return replace(made, trained=trained, spell=tokenizer.id_to_text)


@dataclass(frozen=True)
class _Setting:
    template: Template
    example: Example
    tokenizer: Tokenizer
    policy: MaskPolicy

    @property
    def answers(self) -> list[int]:
        """The assistant turns. Raises CannotWorkError where there is none."""
        found = [i for i, it in enumerate(self.example.messages) if it.role == "assistant"]
        if not found:
            raise CannotWorkError(
                "The conversation has no assistant turn, so there is nothing to train."
            )
        return found

    def tokens(self, text: str) -> Pieces:
        """All of ``text`` in one go: what spells a special token becomes one. Raises EncodeError
        where the tokenizer cannot write it."""
        (result,) = tokenize(self.tokenizer, [Cut(text)])
        if isinstance(result, EncodeError):
            raise result
        return result

    def whole(self) -> str:
        special = self.tokenizer.special_tokens
        return sandbox.render(self.template, self.example, special).text

    def until(self, count: int, *, prompt: bool) -> str:
        """The first messages as text. Raises CannotWorkError where the template refuses them."""
        if not count:
            return ""
        part = replace(self.example, messages=self.example.messages[:count])
        special = self.tokenizer.special_tokens
        try:
            return sandbox.render(self.template, part, special, add_generation_prompt=prompt).text
        except TemplateError as error:
            where = "before" if prompt else "up to"
            message = count + 1 if prompt else count
            raise CannotWorkError(
                f"The template does not print the conversation {where} message {message} on its "
                f"own: {error}"
            ) from None


def _tokenise_apart(setting: _Setting) -> RivalMask:
    last = setting.answers[-1]
    prompt = setting.until(last, prompt=True)
    answer = setting.example.messages[last].text
    before, behind = setting.tokens(prompt), setting.tokens(answer)
    shifted = [(start + len(prompt), end + len(prompt)) for start, end in behind.offsets]
    return RivalMask(
        "tokenise-apart",
        prompt + answer,
        (*before.ids, *behind.ids),
        (*before.offsets, *shifted),
        (False,) * len(before.ids) + (True,) * len(behind.ids),
        turns=(Turn(last, prompt, len(before.ids), len(before.ids) + len(behind.ids)),),
    )


def _marker_search(setting: _Setting) -> RivalMask:
    text = setting.whole()
    pieces = setting.tokens(text)
    found = []
    for spelled in markers(setting.template, setting.tokenizer.special_tokens):
        wanted = setting.tokens(spelled).ids
        found.append(Marker(spelled, tuple(wanted), _occurrences(pieces.ids, wanted)))
    user, answer = found
    trained = [True] * len(pieces.ids)
    for start, end in zip(user.found, answer.found, strict=False):
        for index in range(start, end + len(answer.ids)):
            trained[index] = False
    return RivalMask(
        "marker-search",
        text,
        tuple(pieces.ids),
        tuple(pieces.offsets),
        tuple(trained),
        markers=(user, answer),
    )


def _occurrences(ids: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Where ``wanted`` begins in ``ids``. The very last place is not looked at: the tutorial stops
    one place early, too."""
    length = len(wanted)
    return tuple(i for i in range(len(ids) - length) if ids[i : i + length] == wanted)


def _prefix_length(setting: _Setting) -> RivalMask:
    text = setting.whole()
    pieces = setting.tokens(text)
    answers = setting.answers
    if setting.policy.train_on is TrainOn.LAST_ASSISTANT:
        answers = answers[-1:]
    size = len(pieces.ids)
    trained = [False] * size
    turns = []
    for message in answers:
        prompt = setting.until(message, prompt=True)
        start, end = len(setting.tokens(prompt).ids), size
        if message < len(setting.example.messages) - 1:
            end = len(setting.tokens(setting.until(message + 1, prompt=False)).ids)
        turns.append(Turn(message, prompt, start, end))
        for index in range(start, min(end, size)):
            trained[index] = True
    return RivalMask(
        "prefix-length",
        text,
        tuple(pieces.ids),
        tuple(pieces.offsets),
        tuple(trained),
        turns=tuple(turns),
    )


_METHODS: Final[Mapping[str, Callable[[_Setting], RivalMask]]] = {
    "tokenise-apart": _tokenise_apart,
    "marker-search": _marker_search,
    "prefix-length": _prefix_length,
}
