"""Which keys of its messages a template can possibly read, told from its syntax tree.

A row whose answer is nothing but a tool call is tried in several shapes where its first one prints
no answer. None of them can, if the template never reads ``tool_calls``. So what is found here must
never leave a key out: every place where messages stand must be one that is understood.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from jinja2 import nodes

from sft_core.provenance import dialect

_LISTS: Final = frozenset({"messages"})
_COUNTING: Final = frozenset({"length", "count"})
_METHODS: Final = frozenset(dir(dict)) | frozenset(dir(list))
_PLAIN_LOOP: Final = frozenset(
    {"first", "last", "index", "index0", "revindex", "revindex0", "length"}
)


@lru_cache(maxsize=64)
def keys_read(source: str) -> frozenset[str] | None:
    """All keys by which a template can get at what a message holds; None where that cannot be
    told. Raises TemplateError where the source cannot be read."""
    tree = dialect.parse(source)
    reading = _Reading()
    while reading.found_names(tree):
        pass
    return frozenset(reading.keys) if reading.understands(tree) else None


class _Reading:
    """``names`` are the variables that may hold messages or a message."""

    def __init__(self) -> None:
        self.names: set[str] = set(_LISTS)
        self.keys: set[str] = set()

    def found_names(self, tree: nodes.Node) -> bool:
        """Follows messages into loops and assignments; whether that gave a new name."""
        before = len(self.names)
        for loop in tree.find_all(nodes.For):
            if isinstance(loop.target, nodes.Name) and self._holds(loop.iter):
                self.names.add(loop.target.name)
        for assign in tree.find_all(nodes.Assign):
            if isinstance(assign.target, nodes.Name) and self._holds(assign.node):
                self.names.add(assign.target.name)
        return len(self.names) > before

    def _holds(self, node: nodes.Node) -> bool:
        """Whether an expression is messages, some of them, or one."""
        match node:
            case nodes.Name(name=name):
                return name in self.names
            case nodes.Getitem(node=inner, arg=nodes.Slice()):
                return self._holds(inner)
            case nodes.Getitem(
                node=inner, arg=nodes.Const(value=int()) | nodes.Neg(node=nodes.Const(value=int()))
            ):
                return self._holds(inner)
        return False

    def understands(self, node: nodes.Node) -> bool:
        """Whether messages stand only where what is read of them is known; notes the keys."""
        match node:
            case nodes.Name(name="loop"):
                return False
            case nodes.Name(name=name, ctx="load") if name in self.names:
                return False
            case nodes.Getattr(node=nodes.Name(name="loop"), attr=attribute):
                return attribute in _PLAIN_LOOP
            case nodes.Getattr(node=inner, attr=key) if self._holds(inner):
                return self._reads(inner, key)
            case nodes.Getitem(node=inner, arg=nodes.Const(value=str(key))) if self._holds(inner):
                return self._reads(inner, key)
            case nodes.Test(node=inner, args=[]) | nodes.Not(node=inner) if self._holds(inner):
                return self._sliced(inner)
            case nodes.Filter(node=inner, name=name) if inner is not None and self._holds(inner):
                return name in _COUNTING and self._sliced(inner)
            case nodes.For(target=nodes.Name(), iter=inner) if self._holds(inner):
                rest = [*node.body, *node.else_, *([node.test] if node.test else [])]
                return self._sliced(inner) and all(map(self.understands, rest))
            case nodes.Assign(target=nodes.Name(), node=inner) if self._holds(inner):
                return self._sliced(inner)
        return all(map(self.understands, node.iter_child_nodes()))

    def _reads(self, inner: nodes.Node, key: str) -> bool:
        self.keys.add(key)
        return key not in _METHODS and self._sliced(inner)

    def _sliced(self, inner: nodes.Node) -> bool:
        """An expression that holds messages, but for what its slices are made of."""
        if isinstance(inner, nodes.Getitem):
            return self._sliced(inner.node) and self.understands(inner.arg)
        return True
