"""The values that travel through the lab, and the family of errors that it raises.

Everything here is frozen and knows nothing of files, tensors or pages. The walk of one row is
``Message`` -> ``Example`` -> ``Rendered`` (text with spans) -> ``Encoded`` (ids with reasons);
what is wrong with any of them is a ``Finding``, or a ``LabError`` where work cannot go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sft_core.tokens import IGNORE_INDEX as IGNORE_INDEX
from sft_core.tokens import KINDS as KINDS
from sft_core.tokens import NO_MESSAGE as NO_MESSAGE
from sft_core.tokens import Encoded as Encoded
from sft_core.tokens import Kind as Kind
from sft_core.tokens import Reason as Reason
from sft_core.tokens import Run as Run
from sft_core.tokens import Token as Token

# What tokens are stands in a room of its own, and is imported from here by all others.

# -- errors -----------------------------------------------------------------------------------


class LabError(Exception):
    """Anything the lab can explain. ``str(error)`` is one sentence for a person, with what to do
    next; the page shows it as it is. Each child is also the standard error that it refines."""


class ConfigError(LabError, ValueError):
    """A setting has a value that cannot work."""


class LimitError(ConfigError):
    """A setting is beyond what this host allows a visitor to start."""


class DataError(LabError, ValueError):
    """A data set, or every row of it, cannot be used."""


class RowError(DataError):
    """One row cannot be used; the others go on. ``row`` is its name in the source."""

    def __init__(self, row: str, message: str) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with ``args`` alone; errors cross process borders here.
        return type(self), (self.row, *self.args)


class TemplateError(LabError, ValueError):
    """A chat template does not compile, or does not render this conversation.

    ``line`` and ``column`` are 1-based and point into the template's source where known.
    """

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.line, self.column)


class TemplateLimitError(TemplateError):
    """A template asked for more time, memory or output than the sandbox gives."""


class EncodeError(LabError, ValueError):
    """Text and tokenizer do not fit together, so no label could be trusted."""


class NothingTrainedError(EncodeError):
    """An example has no trained token, before or after truncation (law 4)."""


class TokenizerError(LabError, OSError):
    """A tokenizer cannot be found or read."""


class ModelError(LabError, OSError):
    """A model cannot be found, read, or built."""


class HubError(LabError, ConnectionError):
    """The hub does not answer, or does not have what was asked of it."""


class TrainingError(LabError, RuntimeError):
    """Training cannot start or go on."""


class NonFiniteLossError(TrainingError, ArithmeticError):
    """The loss became NaN or infinite."""


class ResumeError(TrainingError):
    """A run cannot go on from where it was."""


class RunNotFoundError(LabError, LookupError):
    """No run of that name is kept here."""


class WorkerDiedError(LabError, RuntimeError):
    """The compute process ended in the middle of a job."""


class BusyError(LabError, RuntimeError):
    """The queue is full."""


class StorageError(LabError, OSError):
    """A run cannot be written: the disk is full, or the folder is not writable."""


# -- conversations ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn makes. ``arguments`` is a JSON object as text."""

    name: str
    arguments: str = "{}"
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One typed part of a message, as in ``{"type": "text", "text": "..."}``."""

    type: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``content`` is text, or typed parts where the row had them. ``context`` is what an Alpaca
    row calls its input: material that the instruction in ``content`` is about. ``weight`` is 0
    or 1 as in the hosted fine-tuning formats: 0 keeps an assistant turn out of the loss; None
    means not given.
    """

    role: str
    content: str | tuple[ContentPart, ...] = ""
    context: str | None = None
    weight: int | None = None
    name: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """All that the turn says as one string: typed parts joined, context on a new line."""
        parts = (self.content,) if isinstance(self.content, str) else self._part_texts()
        text = "".join(parts)
        return f"{text}\n{self.context}" if self.context else text

    def _part_texts(self) -> tuple[str, ...]:
        return tuple(part.text for part in self.content if isinstance(part, ContentPart))


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to train on or to be measured by.

    ``fact`` names the piece of knowledge that an answer needs, where the data set says so: two
    examples that share it ask for the same thing in other words. ``tools`` are JSON schemas and
    ``extra`` further template variables (documents, dates), passed to the template as they are.
    """

    id: str
    messages: tuple[Message, ...]
    category: str | None = None
    fact: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn: what a model is asked at evaluation."""
        return self.messages[: self._last_assistant()]

    @property
    def answer(self) -> str:
        """The text of the last assistant turn."""
        at = self._last_assistant()
        return self.messages[at].text if at < len(self.messages) else ""

    def _last_assistant(self) -> int:
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].role == "assistant":
                return index
        return len(self.messages)


# -- templates and rendered text --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template: Jinja source in the dialect of ``apply_chat_template``, and a name."""

    name: str
    source: str


class Region(StrEnum):
    """What a stretch of rendered text is."""

    BOS = "bos"
    HEADER = "header"  # what opens a turn: role marker and what follows it
    CONTENT = "content"  # what the message itself says
    END_OF_TURN = "end_of_turn"  # what closes a turn and stops generation
    SEPARATOR = "separator"  # everything else that the template prints


class Span(NamedTuple):
    """``text[start:end]`` is ``region`` and belongs to ``message`` (an index, or None)."""

    start: int
    end: int
    region: Region
    message: int | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text. ``spans`` cover ``text`` from end to end, in order, no gap.

    ``roles[i]`` and ``weights[i]`` are those of message i, so that encoding needs nothing else.
    ``method`` says how the spans were found: "provenance", or "prefix" where the template
    defeated it and checked prefixes were used. ``literals`` are the stretches of content that
    the template itself printed, such as what opens a tool call: special tokens in them are real.
    ``tagged`` are the ranges, in order and apart, that the author's ``{% generation %}`` tags
    enclose; None where the template has no such tags or they could not be followed. ``given`` are
    those that the row wrote outside its messages, in tools, documents and variables: a special
    token there is as forged as in a message.
    """

    text: str
    spans: tuple[Span, ...]
    roles: tuple[str, ...]
    weights: tuple[int | None, ...]
    method: str = "provenance"
    literals: tuple[tuple[int, int], ...] = ()
    tagged: tuple[tuple[int, int], ...] | None = None
    given: tuple[tuple[int, int], ...] = ()

    def answer_starts(self) -> tuple[tuple[int, int], ...]:
        """(message, position) for each assistant turn: where its answer begins, which is where
        its generation prompt ends. A turn with an empty answer begins at its end of turn."""
        starts: dict[int, int] = {}
        for span in self.spans:
            wanted = span.region in (Region.CONTENT, Region.END_OF_TURN)
            if wanted and span.message is not None and self.roles[span.message] == "assistant":
                starts.setdefault(span.message, span.start)
        return tuple(sorted(starts.items()))


# -- findings ---------------------------------------------------------------------------------


class Severity(StrEnum):
    """How much a finding matters: an error would spoil the run, a warning may, info explains."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, in a sentence that a learner understands, and the remedy.

    ``code`` is stable and kebab-case. ``tokens`` are positions in the example that was looked
    at, ``rows`` the ids of the examples concerned. ``line`` and ``column`` (1-based) point into
    the template's source where the fault is a place in it. Where the remedy is mechanical it is
    here: ``fixed_template`` is a whole corrected template source, ``fixed_settings`` are what
    ``LabConfig.with_settings`` takes, such as ``("policy.end_of_turn=true",)``.
    """

    code: str
    severity: Severity
    message: str
    remedy: str = ""
    tokens: tuple[int, ...] = ()
    rows: tuple[str, ...] = ()
    fixed_template: str | None = None
    fixed_settings: tuple[str, ...] = ()
    line: int | None = None
    column: int | None = None


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The gravest severity among findings, or None where there are none."""
    for severity in Severity:
        if any(finding.severity is severity for finding in findings):
            return severity
    return None
