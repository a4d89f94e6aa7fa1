"""The Jinja dialect of chat templates: what ``apply_chat_template`` of transformers renders with.

``render`` is the plain render, the reference that everything else is compared with. Whatever goes
wrong in a template becomes a ``TemplateError`` with one sentence and, where known, a place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sft_core.types import TemplateError, TemplateLimitError

MAX_SOURCE: Final = 200_000
"""Characters that a template's source may have; the longest in use have about 30,000."""
MAX_OUTPUT: Final = 2_000_000
"""Characters that one conversation may render to."""
_LONGEST_MESSAGE: Final = 300
"""Characters of an error that a template may have chosen itself."""
_PIECES_AT_ONCE: Final = 256


Variables = Mapping[str, Any]


class RefusedError(jinja2.TemplateError):
    """A template called ``raise_exception``."""


class GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}``, with which an author encloses what is to be
    trained. It prints its body; ``enclosed`` has the kinds that also note where it stands."""

    tags = {"generation"}  # noqa: RUF012  (Jinja reads this name from the class)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller: Macro) -> Any:
        return caller()


class _Dict:
    """``dict`` for templates, without the attributes of the class itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """``namespace`` for templates: private names cannot be stored on it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace cannot hold {name!r}: names there may not begin with an underscore"
        )


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise RefusedError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandboxed environment, which looks into plain dictionaries first. What is found there
    is what it would find: an attribute comes before a key, and a dictionary's are all methods."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _OF_EVERY_DICT:
            return obj[attribute]
        return super().getattr(obj, attribute)


_OF_EVERY_DICT: Final = frozenset(dir(dict))


def environment(
    kind: type[ImmutableSandboxedEnvironment] = _Environment,
    tag: type[GenerationTag] = GenerationTag,
) -> ImmutableSandboxedEnvironment:
    """A fresh environment with the filters, globals and tags that chat templates rely on."""
    made = kind(trim_blocks=True, lstrip_blocks=True, extensions=[tag, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        dict=_Dict(),
        namespace=_Namespace,
    )
    return made


# -- the plain render -----------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _compiled(source: str, tag: type[GenerationTag] = GenerationTag) -> jinja2.Template:
    parse(source)
    try:
        return environment(tag=tag).from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise _syntax_error(source, error) from None
    except Exception as error:  # noqa: BLE001  (the template's author chose what is evaluated)
        raise explained(error, None) from None


def run(template: jinja2.Template, variables: Variables) -> Iterator[str]:
    """The pieces that a template yields. Its globals are merged here because Jinja would copy
    them through a chain of maps, which takes longer than a short template."""
    environment = template.environment
    merged = {**_globals(template), **variables}
    context = environment.context_class(environment, merged, template.name, template.blocks)
    return template.root_render_func(context)


@lru_cache(maxsize=256)
def _globals(template: jinja2.Template) -> dict[str, Any]:
    return dict(template.globals)


def parse(source: str) -> nodes.Template:
    """The syntax tree of a template; nothing in it is evaluated. Raises TemplateError."""
    check_source(source)
    try:
        return _PARSER.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise _syntax_error(source, error) from None
    except Exception as error:  # noqa: BLE001  (a number of 5,000 digits is a ValueError)
        raise explained(error, None) from None


_PARSER: Final = environment()


@lru_cache(maxsize=64)
def has_generation_tags(source: str) -> bool:
    """Whether a template's author enclosed anything in ``{% generation %}``. Raises
    TemplateError where the source cannot be read."""
    calls = parse(source).find_all(nodes.CallBlock)
    owners = (call.call.node for call in calls if isinstance(call.call, nodes.Call))
    return any(
        isinstance(owner, nodes.ExtensionAttribute) and owner.identifier == GenerationTag.identifier
        for owner in owners
    )


def check_source(source: str) -> None:
    """Raises TemplateLimitError where a template is too long to be looked at."""
    if len(source) > MAX_SOURCE:
        raise TemplateLimitError(
            f"This template has {len(source):,} characters; the limit is {MAX_SOURCE:,}. "
            "Shorten it."
        )


def render(source: str, variables: Variables, tag: type[GenerationTag] = GenerationTag) -> str:
    """The text that ``apply_chat_template`` prints, as it prints it.

    ``variables`` are the template's names (messages, tools, add_generation_prompt, eos_token,
    ...); ``tag`` is what ``{% generation %}`` does. Raises TemplateError with the line where known.
    """
    template = _compiled(source, tag)  # type: ignore[arg-type]  # mypy doubts that classes hash
    try:
        return collect(run(template, variables))
    except TemplateError:
        raise
    except Exception as error:  # noqa: BLE001  (a template can raise whatever it likes)
        raise explained(error, template) from None


def collect(pieces: Iterable[str], join: Callable[[Iterable[str]], str] = "".join) -> str:
    """The pieces as one text. Raises TemplateLimitError as soon as they grow too long."""
    source, kept, length = iter(pieces), [], 0
    while some := list(islice(source, _PIECES_AT_ONCE)):
        kept.append(join(some))
        length += len(kept[-1])
        if length > MAX_OUTPUT:
            raise TemplateLimitError(
                f"The template prints more than {MAX_OUTPUT:,} characters for one conversation. "
                "Look for a loop that repeats text."
            )
    return kept[0] if len(kept) == 1 else join(kept)


# -- errors in words ------------------------------------------------------------------------------


def explained(error: Exception, template: jinja2.Template | None) -> TemplateError:
    """Any exception of a template as the error that a person reads."""
    line = _line(error.__traceback__, template) if template else None
    where = f" (line {line})" if line else ""
    message = _shortened(str(error)).rstrip(".")
    match error:
        case TemplateError():
            return error
        case RefusedError():
            return TemplateError(
                f"The template refuses this conversation{where}: {_ended(message)} "
                "Change the conversation, or the condition in the template.",
                line,
            )
        case jinja2.UndefinedError():
            return TemplateError(
                f"The template needs something that is not there{where}: {message}. "
                "Check the name, or test it first with `is defined`.",
                line,
            )
        case jinja2.exceptions.SecurityError():
            return TemplateError(
                f"The template asks for something that the sandbox does not allow{where}: "
                f"{message}. Remove that expression.",
                line,
            )
        case RecursionError():
            return TemplateLimitError(
                f"The template calls itself, or nests, too deeply{where}. Make it shallower.", line
            )
        case MemoryError() | OverflowError():
            return TemplateLimitError(
                f"The template needs more memory than it may use{where}. "
                "Look for text that is multiplied or doubled in a loop.",
                line,
            )
        case TypeError() if message.startswith("no loader"):
            return TemplateError(
                f"The template asks for another template{where}. "
                "A chat template must stand alone: paste the other one's text in.",
                line,
            )
        case SyntaxError():
            return TemplateError(f"The template cannot be compiled: {error.msg}. Make it simpler.")
    return TemplateError(
        f"The template fails on this conversation{where}: {message or type(error).__name__}. "
        "Check that this expression suits what the messages hold.",
        line,
    )


def _shortened(message: str) -> str:
    message = message.strip()
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE - 60]} ... {message[-40:]}"


def _ended(message: str) -> str:
    message = message or "it gives no reason"
    return message if message[-1] in ".!?" else f"{message}."


def _line(trace: TracebackType | None, template: jinja2.Template) -> int | None:
    """The line of the template in which an exception was raised."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


_OFFSET = re.compile(r"unexpected char .* at (\d+)$")
_QUOTED = re.compile(r"(?:got|tag|named|block|unexpected) '([^']+)'")


def _syntax_error(source: str, error: jinja2.TemplateSyntaxError) -> TemplateError:
    message = _shortened(error.message or "it cannot be read").rstrip(".")
    line, column = error.lineno, _column(source, error.lineno, message)
    where = f"line {line}" + (f", column {column}" if column else "")
    message = re.sub(r" at \d+$", "", message)
    return TemplateError(f"The template cannot be read at {where}: {message}.", line, column)


def _column(source: str, line: int, message: str) -> int | None:
    """Jinja tells the line only; the column follows from what its message quotes. Where that
    names no place, it is where the line ends for a template that ends too soon, else where the
    line begins."""
    if offset := _OFFSET.search(message):
        before = re.sub(r"\r\n|\r", "\n", source)[: int(offset[1])]
        return len(before) - before.rfind("\n")
    lines = source.splitlines()
    quoted = _QUOTED.search(message)
    if not 0 < line <= len(lines):
        return None
    here = lines[line - 1]
    if quoted and here.count(quoted[1]) == 1:
        return here.index(quoted[1]) + 1
    if "end of template" in message.lower():
        return len(here) + 1
    return len(here) - len(here.lstrip()) + 1
