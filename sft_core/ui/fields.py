"""Groups of named controls whose values reach a handler as one value.

Gradio hands a handler whose inputs are a *set* one dictionary from component to value. ``bind``
turns that into the handler's own parameters, where a ``Fields`` counts as one of them, so that no
handler has a long row of positional parameters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Generic, ParamSpec, TypeVar

import gradio as gr
from gradio.components import Component

from sft_core.ui.session import sentence

T = TypeVar("T")
P = ParamSpec("P")
Values = dict[Component, Any]


class Fields(Generic[T]):
    """Components by the names of the fields of ``kind``, a dataclass of plain values."""

    def __init__(self, kind: type[T], /, **components: Component) -> None:
        self.kind = kind
        self.components = components
        # A text field that nobody touched comes as None.
        self._texts = {field.name for field in fields(kind) if field.type == "str"}  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        return self.components[name]

    def all(self) -> list[Component]:
        return list(self.components.values())

    def read(self, values: Mapping[Component, Any]) -> T:
        """The value that the components spell together."""
        given = {name: values[part] for name, part in self.components.items()}
        empty = {name: "" for name in self._texts if given.get(name, "") is None}
        return self.kind(**{**given, **empty})


def bind(
    handler: Callable[..., Any],
    *parts: Fields[Any] | Component,
    fixed: Sequence[Any] = (),
    event: bool = False,
) -> tuple[Callable[..., Any], set[Component]]:
    """``handler(*fixed, *values of parts)`` as Gradio wants it: a function, and its inputs as a
    set. With ``event`` the handler's last parameter is what the browser sent along, a dict."""
    told = honest(handler)
    inputs: set[Component] = set()
    for part in parts:
        inputs |= set(part.all()) if isinstance(part, Fields) else {part}

    def arguments(values: Values) -> list[Any]:
        return [
            *fixed,
            *(part.read(values) if isinstance(part, Fields) else values[part] for part in parts),
        ]

    if inspect.isgeneratorfunction(handler):

        def stream(values: Values) -> Iterator[Any]:
            yield from told(*arguments(values))

        return stream, inputs
    if event:

        def answer(values: Values, sent: gr.EventData) -> Any:
            return told(*arguments(values), sent._data or {})

        return answer, inputs

    def call(values: Values) -> Any:
        return told(*arguments(values))

    return call, inputs


def honest(handler: Callable[P, Any]) -> Callable[P, Any]:
    """The handler, with an error that escapes it told as one sentence instead of a traceback.
    What can be explained is shown in place by the handlers; this is for what nobody foresaw."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            try:
                yield from handler(*args, **kwargs)
            except gr.Error:
                raise
            except Exception as error:  # noqa: BLE001 - logged whole by sentence()
                raise gr.Error(sentence(error), print_exception=False) from None

        return stream

    @functools.wraps(handler)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 - logged whole by sentence()
            raise gr.Error(sentence(error), print_exception=False) from None

    return call
