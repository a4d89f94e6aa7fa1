"""Rendering a chat template so that every character of the output knows its source.

The strings that a template can reach are ``Tagged`` with the message that they come from. Its
syntax tree is rewritten in two ways: a literal is tagged with the turn that is current when it is
used, and each loop and macro tells which message it is at, so that there is a current turn. What
cannot be followed raises ``UntraceableError``; the caller then finds the answers another way.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, wraps
from types import BuiltinMethodType
from typing import Any, Final, NamedTuple, cast

import jinja2
from jinja2 import nodes, pass_context, pass_environment
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from sft_core import dialect
from sft_core.tagged import (
    EMPTY,
    NOBODY,
    Decimal,
    Tagged,
    UntraceableError,
    Whole,
    carries_tags,
    plain,
    tags_of,
)

# -- tags -----------------------------------------------------------------------------------------


class Source(NamedTuple):
    """Where a character comes from: content of ``message``, or a literal printed while that
    message was current; ``message`` is None for what belongs to no turn."""

    message: int | None
    content: bool


def literal_tag(message: int | None) -> str:
    return NOBODY if message is None else chr(2 * message + 2)


def content_tag(message: int) -> str:
    return chr(2 * message + 3)


def source(tag: str) -> Source:
    code = ord(tag)
    return Source(None, False) if code < 2 else Source(code // 2 - 1, code % 2 == 1)


class Part(dict[str, Any]):
    """A mapping inside a message. ``_tag`` is what its numbers and punctuation print as."""

    __slots__ = ("_tag",)
    _tag: str


class Turn(Part):
    """A message, as a template sees it; ``_index`` is its place in the conversation."""

    __slots__ = ("_index",)
    _index: int


_MARKUP_KEYS: Final = frozenset({"role", "name", "tool_call_id"})


def turn(index: int, message: Mapping[str, Any]) -> Turn:
    """A message whose every string knows where it comes from."""
    content, literal = content_tag(index), literal_tag(index)
    made = Turn()
    for key, value in message.items():
        made[key] = _tag_all(value, literal if key in _MARKUP_KEYS else content)
    made._tag, made._index = content, index
    return made


def _tag_all(value: Any, tag: str) -> Any:
    if isinstance(value, str):
        return Tagged(value, tag * len(value))
    if type(value) in (int, float):
        number = Whole(value) if type(value) is int else Decimal(value)
        number._tag = tag
        return number
    if isinstance(value, Mapping):
        part = Part({_tag_all(key, tag): _tag_all(item, tag) for key, item in value.items()})
        part._tag = tag
        return part
    if isinstance(value, list):
        return [_tag_all(item, tag) for item in value]
    return value


# -- which turn is current ------------------------------------------------------------------------


class _Here:
    """Where a render stands: the current turn, and those of the loops around it."""

    __slots__ = ("known", "literals", "stack", "tag")

    def __init__(self) -> None:
        self.literals: dict[str, dict[str, Tagged]] = {}
        self.reset()

    def reset(self) -> None:
        self.tag = NOBODY
        self.known = False  # whether the innermost loop runs over messages
        self.stack: list[tuple[str, bool]] = []

    def enter(self, _: Any) -> None:
        self.stack.append((self.tag, self.known))
        self.known = False

    def leave(self, _: Any) -> None:
        self.tag, self.known = self.stack.pop()

    def at(self, item: Any) -> None:
        """The loop is at ``item``: a message makes its turn current."""
        tag, around = _turn_of(item), self.stack[-1][0]
        if tag is None and around == NOBODY:
            tag = _owner_of(item)
        self.tag, self.known = tag or around, tag is not None

    def now(self, value: Any) -> None:
        """A variable was set inside a loop that does not run over messages itself."""
        if not self.known and self.stack and isinstance(value, Turn):
            self.tag, self.known = literal_tag(value._index), True

    def literal(self, text: str) -> Tagged:
        cached = self.literals.get(self.tag)
        if cached is None:
            cached = self.literals[self.tag] = {}
        made = cached.get(text)
        if made is None:
            made = cached[text] = Tagged(text, self.tag * len(text))
        return made

    def printed(self, value: Any) -> Tagged:
        """``value`` as it is printed here: what nobody has a claim on is this turn's."""
        if type(value) is not Tagged:
            text = str(value)
            if type(text) is not Tagged:
                if carries_tags(value):
                    raise UntraceableError("a container printed as it is")
                return Tagged(text, self.tag * len(text))
            value = text
        if self.tag != NOBODY and NOBODY in value._tags:
            return Tagged(plain(value), value._tags.replace(NOBODY, self.tag))
        return value

    def join(self, parts: Iterable[Any]) -> Tagged:
        return EMPTY.join(map(self.printed, parts))


def _turn_of(item: Any) -> str | None:
    """The tag of the turn that a loop's item, or a macro's argument, belongs to."""
    if isinstance(item, Turn):
        return literal_tag(item._index)
    if isinstance(item, tuple):
        return next((tag for tag in map(_turn_of, item) if tag), None)
    if type(item) is dict and "role" in item:
        # A message that the template has put together itself.
        for value in (item.get("content"), item["role"]):
            owners = {source(tag).message for tag in tags_of(value)} if _is_text(value) else set()
            owners.discard(None)
            if owners:
                return literal_tag(max(owner for owner in owners if owner is not None))
    return None


def _owner_of(item: Any) -> str | None:
    """Outside every turn, a piece of a message makes that message's turn current."""
    for value in item if isinstance(item, tuple) else (item,):
        tag = (
            value._tag if isinstance(value, Part) else tags_of(value)[:1] if _is_text(value) else ""
        )
        if tag > NOBODY:
            return literal_tag(source(tag).message)
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# -- the rewritten tree ---------------------------------------------------------------------------

_LITERAL, _ENTER, _LEAVE, _AT, _NOW = "lab:literal", "lab:enter", "lab:leave", "lab:at", "lab:now"
_ARGUMENTS_ARE_NAMES: Final = frozenset(
    "attr dictsort groupby map max min reject rejectattr select selectattr sort sum tojson "
    "unique".split()
)
_ARGUMENTS_ARE_TESTED: Final = frozenset(
    "count endswith find get index lstrip pop raise_exception range rsplit rstrip split "
    "startswith strftime_now strip".split()
)


class _Hooks(NodeTransformer):
    """Puts the hooks into a syntax tree. Conditions are left alone: they print nothing."""

    def __init__(self) -> None:
        self.loops = 0

    def visit_Const(self, node: nodes.Const) -> nodes.Expr:  # noqa: N802  (Jinja's names)
        return _call(_LITERAL, node) if isinstance(node.value, str) else node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:  # noqa: N802
        return _call(_LITERAL, nodes.Const(node.data, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:  # noqa: N802
        return node

    visit_Test = visit_Not = visit_Slice = visit_Compare  # noqa: N815

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802
        test, node.test = node.test, nodes.Const(None)
        self.generic_visit(node)
        node.test = test
        return node

    visit_CondExpr = visit_If  # noqa: N815

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        node.node = self.visit(node.node)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.name not in _ARGUMENTS_ARE_NAMES:
            return self.generic_visit(node)
        if node.node is not None:
            node.node = self.visit(node.node)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        called = node.node
        name = getattr(called, "attr", getattr(called, "name", ""))
        if name not in _ARGUMENTS_ARE_TESTED:
            return self.generic_visit(node)
        node.node = self.visit(called)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        for pair in node.items:
            pair.value = self.visit(pair.value)
        return node

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:  # noqa: N802
        node.iter = self.visit(node.iter)
        self.loops += 1
        node.body = [_statement(_AT, _loaded(node.target)), *self._all(node.body)]
        self.loops -= 1
        node.else_ = self._all(node.else_)
        nothing = nodes.Const(None, lineno=node.lineno)
        return [_statement(_ENTER, nothing), node, _statement(_LEAVE, nothing)]

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        nothing = nodes.Const(None, lineno=node.lineno)
        given = nodes.Tuple([_loaded(arg) for arg in node.args], "load", lineno=node.lineno)
        node.defaults = [self.visit(default) for default in node.defaults]
        node.body = [
            _statement(_ENTER, nothing),
            _statement(_AT, given),
            *self._all(node.body),
            _statement(_LEAVE, nothing),
        ]
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node | list[nodes.Node]:  # noqa: N802
        node.node = self.visit(node.node)
        if self.loops and isinstance(node.target, nodes.Name):
            return [node, _statement(_NOW, _loaded(node.target))]
        return node

    def visit_EvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise UntraceableError("autoescape")

    visit_ScopedEvalContextModifier = visit_EvalContextModifier  # noqa: N815

    def _all(self, body: list[nodes.Node]) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for node in body:
            new = self.visit(node)
            made += new if isinstance(new, list) else [new]
        return made


def _call(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _statement(name: str, node: nodes.Expr) -> nodes.ExprStmt:
    return nodes.ExprStmt(_call(name, node), lineno=node.lineno)


def _loaded(target: nodes.Node) -> nodes.Expr:
    """The expression that reads what a loop or an assignment has just written."""
    if isinstance(target, nodes.Name):
        return nodes.Name(target.name, "load", lineno=target.lineno)
    items = [_loaded(item) for item in getattr(target, "items", ())]
    return nodes.Tuple(items, "load", lineno=target.lineno)


# -- the environment ------------------------------------------------------------------------------


class _TracedEnvironment(ImmutableSandboxedEnvironment):
    """As the plain one, but no operation on text drops the tags."""

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or type(value.__self__) is not Tagged:
            return wrapped
        pattern, by_mapping = value.__self__, value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> Tagged:
            if by_mapping:
                args, kwargs = (), args[0]
            return _format(SandboxedFormatter(self), pattern, args, kwargs)

        return formatted

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if (
            isinstance(__obj, BuiltinMethodType)
            and type(__obj.__self__) is str
            and any(map(carries_tags, args))
        ):
            __obj = getattr(Tagged(__obj.__self__), __obj.__name__)
        return super().call(__context, __obj, *args, **kwargs)


def _format(
    formatter: SandboxedFormatter, pattern: Tagged, args: Any, kwargs: Mapping[str, Any]
) -> Tagged:
    """``pattern.format(...)``: each field keeps its tags, the rest is the pattern's."""
    own = tags_of(pattern)[:1]
    pieces: list[str] = []
    for number, (literal, field, spec, conversion) in enumerate(formatter.parse(plain(pattern))):
        pieces.append(Tagged(literal, own * len(literal)))
        if field is None:
            continue
        value, _ = formatter.get_field(field or str(number), args, kwargs)
        if conversion:
            value = formatter.convert_field(value, conversion)
        if spec or (carries_tags(value) and not isinstance(value, Tagged)):
            raise UntraceableError("a format that could not be followed")
        pieces.append(
            value if isinstance(value, Tagged) else Tagged(f"{value}", own * len(f"{value}"))
        )
    return EMPTY.join(pieces)


@pass_environment
def _join(
    environment: jinja2.Environment,
    value: Iterable[Any],
    d: str = "",
    attribute: str | int | None = None,
) -> Tagged:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return Tagged(d).join(map(str, value)) if type(d) is not Tagged else d.join(map(str, value))


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> Tagged:
    indention = width if isinstance(width, str) else " " * width
    lines = (Tagged(s, tags_of(s)) + "\n").splitlines()
    shown = [
        line
        if (number == 0 and not first) or (number and not line and not blank)
        else indention + line
        for number, line in enumerate(lines)
    ]
    return Tagged("\n").join(shown)


def _title(s: Any) -> Tagged:
    text = str(s)
    titled = jinja2.filters.do_title(plain(text))
    return (
        Tagged(titled, tags_of(text))
        if len(titled) == len(text)
        else Tagged(text, tags_of(text)).like(titled)
    )


def _traced_tojson(value: Any, **options: Any) -> str:
    text: str = dialect.tojson(value, **options)
    if not carries_tags(value):
        return text
    made = EMPTY.join(_json(value, NOBODY, 0, _JsonStyle(**options)))
    if made != text:
        raise UntraceableError("tojson")
    return made


class _JsonStyle(NamedTuple):
    ensure_ascii: bool = False
    indent: int | str | None = None
    separators: tuple[str, str] | None = None
    sort_keys: bool = False

    def line(self, level: int) -> str:
        if self.indent is None:
            return ""
        return "\n" + (self.indent if isinstance(self.indent, str) else " " * self.indent) * level

    def marks(self) -> tuple[str, str]:
        return self.separators or (", " if self.indent is None else ",", ": ")


def _json(value: Any, tag: str, level: int, style: _JsonStyle) -> Iterable[str]:
    """The pieces of ``json.dumps``; what is not text of its own prints as ``tag``."""
    tag = value._tag if isinstance(value, (Part, Whole, Decimal)) else tag

    def mark(text: str) -> Tagged:
        return Tagged(text, tag * len(text))

    comma, colon = style.marks()
    if isinstance(value, str):
        yield _json_text(value, style.ensure_ascii)
    elif isinstance(value, Mapping) and value:
        items = sorted(value.items()) if style.sort_keys else value.items()
        for number, (key, item) in enumerate(items):
            yield mark((comma if number else "{") + style.line(level + 1))
            yield (
                _json_text(key, style.ensure_ascii)
                if isinstance(key, str)
                else mark(f'"{json.dumps(key)}"')
            )
            yield mark(colon)
            yield from _json(item, tag, level + 1, style)
        yield mark(style.line(level) + "}")
    elif isinstance(value, (list, tuple)) and value:
        for number, item in enumerate(value):
            yield mark((comma if number else "[") + style.line(level + 1))
            yield from _json(item, tag, level + 1, style)
        yield mark(style.line(level) + "]")
    else:
        yield mark(json.dumps(value))


def _json_text(text: str, ensure_ascii: bool) -> Tagged:
    encoded, tags = json.dumps(text, ensure_ascii=ensure_ascii), tags_of(text)
    if len(encoded) - 2 != len(text):
        pieces = (json.dumps(c, ensure_ascii=ensure_ascii)[1:-1] for c in str.__iter__(text))
        tags = "".join(tag * len(piece) for tag, piece in zip(tags, pieces, strict=True))
    return Tagged(encoded, NOBODY + tags + NOBODY)


_ESCAPES: Final = (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&#39;"), ('"', "&#34;"))


def _escape(value: Any) -> str:
    if not carries_tags(value):
        return escape(value)
    for character, entity in _ESCAPES:
        value = value.replace(character, entity)
    return str(value)


def _safe(value: Any) -> str:
    """Markup differs from text only where it meets text with +; the comparison with the plain
    render sees to that."""
    return str(value) if carries_tags(value) else Markup(value)


_FOLLOWED: Final[Mapping[str, Callable[..., Any]]] = {
    "join": _join,
    "indent": _indent,
    "title": _title,
    "tojson": _traced_tojson,
    "e": _escape,
    "escape": _escape,
    "forceescape": _escape,
    "safe": _safe,
}
_NOT_FOLLOWED: Final = "striptags urlize wordwrap xmlattr pprint urlencode".split()


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter in which it cannot be seen which character became which."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        tagged = [arg for arg in (*args, *kwargs.values()) if carries_tags(arg)]
        if not tagged:
            return made
        if len(tagged) > 1 or not isinstance(tagged[0], Tagged):
            raise UntraceableError(function.__name__)
        return tagged[0].like(str(made))

    return guarded


# -- rendering ------------------------------------------------------------------------------------


class _Traced:
    """A template compiled with the hooks. One render at a time; others wait their turn."""

    def __init__(self, text: str) -> None:
        self._lock = threading.Lock()
        self._here = here = _Here()
        environment = dialect.environment(_TracedEnvironment)
        environment.concat = here.join  # type: ignore[method-assign, assignment]
        for name, method in (
            (_LITERAL, here.literal),
            (_ENTER, here.enter),
            (_LEAVE, here.leave),
            (_AT, here.at),
            (_NOW, here.now),
        ):
            environment.filters[name] = _unfolded(method)
        environment.filters.update(_FOLLOWED)
        for name in _NOT_FOLLOWED:
            environment.filters[name] = _guarded(environment.filters[name])
        tree = _Hooks().visit(environment.parse(text))
        code = environment.compile(tree)
        self._template = jinja2.Template.from_code(environment, code, environment.globals)
        # What a template prints, and what `~` joins, goes through these two names of its module.
        module = self._template.root_render_func.__globals__
        module.update(str=here.printed, str_join=here.join)

    def render(self, variables: Mapping[str, Any]) -> Tagged:
        with self._lock:
            self._here.reset()
            return cast(Tagged, dialect.collect(dialect.run(self._template, variables), EMPTY.join))


def _unfolded(method: Callable[[Any], Any]) -> Callable[[Context, Any], Any]:
    """The method as a filter that Jinja does not evaluate while it compiles."""

    @pass_context
    def filter_(_: Context, value: Any) -> Any:
        return method(value)

    return filter_


@lru_cache(maxsize=64)
def _traced(text: str) -> _Traced:
    return _Traced(text)


def trace(text: str, variables: Mapping[str, Any]) -> Tagged:
    """The template's output for ``variables``, each character tagged with its source.

    ``variables["messages"]`` are plain dictionaries. Raises UntraceableError where the output
    cannot be followed; whatever the template itself raises is passed on.
    """
    turns = [turn(index, message) for index, message in enumerate(variables["messages"])]
    return _traced(text).render({**variables, "messages": turns})


def literals(text: str) -> tuple[str, ...]:
    """What a template may print besides its variables, in the order of its source. Raises
    TemplateError where the source cannot be read."""
    try:
        tree = _Hooks().visit(dialect.parse(text))
    except UntraceableError:
        return ()
    found = (node.node for node in tree.find_all(nodes.Filter) if node.name == _LITERAL)
    return tuple(node.value for node in found if isinstance(node, nodes.Const))
