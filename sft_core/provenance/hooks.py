"""The hooks in a template's syntax tree, and what they keep track of.

A literal is tagged with the turn that is current when it is used. Loops and macros say which
message they are at, so that there is a current turn; conditions are left as they are, because
they print nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from sft_core.provenance.enclosed import claimed
from sft_core.provenance.sources import Turn, literal_tag, owner_of, turn_of
from sft_core.provenance.tagged import (
    EMPTY,
    NOBODY,
    Tagged,
    UntraceableError,
    carries_tags,
)

LITERAL: Final = "lab:literal"
_ENTER: Final = "lab:enter"
_LEAVE: Final = "lab:leave"
_AT: Final = "lab:at"
_NOW: Final = "lab:now"

_CACHED_TURNS: Final = 256


class Here:
    """Where a render stands: the current turn, and those of the loops around it."""

    __slots__ = ("_literals", "_over_messages", "_stack", "_tag")

    def __init__(self) -> None:
        self._literals: dict[str, dict[str, Tagged]] = {}
        self.reset()

    def reset(self) -> None:
        self._tag = NOBODY
        self._over_messages = False  # whether the innermost loop has named its message
        self._stack: list[tuple[str, bool]] = []
        if len(self._literals) > _CACHED_TURNS:
            self._literals.clear()

    def filters(self) -> Mapping[str, Callable[[Context, Any], Any]]:
        """The hooks under the names by which the rewritten tree calls them."""
        methods = {
            LITERAL: self._literal,
            _ENTER: self._enter,
            _LEAVE: self._leave,
            _AT: self._at,
            _NOW: self._now,
        }
        return {name: _unfolded(method) for name, method in methods.items()}

    def _enter(self, _: Any) -> None:
        self._stack.append((self._tag, self._over_messages))
        self._over_messages = False

    def _leave(self, _: Any) -> None:
        self._tag, self._over_messages = self._stack.pop()

    def _at(self, item: Any) -> None:
        """A loop is at ``item``, or a macro got it: a message makes its turn current."""
        tag, around = turn_of(item), self._stack[-1][0]
        if tag is None and around == NOBODY:
            tag = owner_of(item)
        self._tag, self._over_messages = tag or around, tag is not None

    def _now(self, value: Any) -> None:
        """A variable was set in a loop: over numbers, say, by which it fetches its messages."""
        if not self._over_messages and self._stack and isinstance(value, Turn):
            self._tag, self._over_messages = literal_tag(value._index), True

    def _literal(self, text: str) -> Tagged:
        cached = self._literals.setdefault(self._tag, {})
        made = cached.get(text)
        if made is None:
            made = cached[text] = Tagged(text, self._tag * len(text))
        return made

    def printed(self, value: Any) -> Tagged:
        """``value`` as it is printed here: what nobody has a claim on is this turn's."""
        text: str = value if type(value) is Tagged else str(value)
        if type(text) is Tagged:
            return claimed(text, self._tag)
        if carries_tags(value):
            raise UntraceableError("a container printed as it is")
        return Tagged(text, self._tag * len(text))

    def join(self, parts: Iterable[Any]) -> Tagged:
        """What ``~`` does, and what collects the output of macros and blocks."""
        return EMPTY.join(map(self.printed, parts))


def _unfolded(method: Callable[[Any], Any]) -> Callable[[Context, Any], Any]:
    """A method as a filter that Jinja does not evaluate while it compiles."""

    @pass_context
    def hook(_: Context, value: Any) -> Any:
        return method(value)

    return hook


# -- the tree -------------------------------------------------------------------------------------

_TAKE_NAMES: Final = frozenset(
    """attr dictsort groupby map max min reject rejectattr select selectattr sort sum tojson
    unique""".split()  # noqa: SIM905  (read more easily than a column of strings)
)
"""Filters whose arguments are names and numbers, which are never printed."""
_TAKE_PATTERNS: Final = frozenset(
    """count endswith find get index lstrip pop raise_exception range rsplit rstrip split
    startswith strftime_now strip""".split()  # noqa: SIM905
)
"""Functions and methods of which the same is true."""


def hooked(tree: nodes.Template) -> nodes.Template:
    """``tree`` with the hooks in it. Raises UntraceableError where it cannot be followed."""
    made: nodes.Template = _Hooks().visit(tree)
    return made


class _Hooks(NodeTransformer):
    # Jinja's visitors find their methods by these names.

    def __init__(self) -> None:
        self._loops = 0

    def visit_Const(self, node: nodes.Const) -> nodes.Expr:  # noqa: N802
        return _call(LITERAL, node) if isinstance(node.value, str) else node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:  # noqa: N802
        return _call(LITERAL, nodes.Const(node.data, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Expr) -> nodes.Expr:  # noqa: N802
        return node

    visit_Test = visit_Not = visit_Slice = visit_Compare  # noqa: N815

    def visit_If(self, node: nodes.If | nodes.CondExpr) -> nodes.Node:  # noqa: N802
        test, node.test = node.test, nodes.Const(None)
        self.generic_visit(node)
        node.test = test
        return node

    visit_CondExpr = visit_If  # noqa: N815

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        node.node = self.visit(node.node)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.name not in _TAKE_NAMES:
            return self.generic_visit(node)
        if node.node is not None:
            node.node = self.visit(node.node)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        name = getattr(node.node, "attr", getattr(node.node, "name", ""))
        if name not in _TAKE_PATTERNS:
            return self.generic_visit(node)
        node.node = self.visit(node.node)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        for pair in node.items:
            pair.value = self.visit(pair.value)
        return node

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:  # noqa: N802
        node.iter = self.visit(node.iter)
        self._loops += 1
        node.body = [_statement(_AT, _loaded(node.target)), *self._all(node.body)]
        self._loops -= 1
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
        if self._loops and isinstance(node.target, nodes.Name):
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
