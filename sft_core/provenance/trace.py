"""Rendering a chat template so that every character of the output knows its source."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, cast

import jinja2
from jinja2 import nodes

from sft_core.provenance import dialect, filters, sources
from sft_core.provenance.dialect import GenerationTag
from sft_core.provenance.enclosed import FollowedTag
from sft_core.provenance.hooks import LITERAL, Here, hooked
from sft_core.provenance.sources import turn
from sft_core.provenance.tagged import EMPTY, Tagged, UntraceableError


def trace(
    template: str,
    variables: Mapping[str, Any],
    *,
    follow_generation_tags: bool = False,
    given: Collection[str] = (),
) -> Tagged:
    """What a template prints for ``variables``, each character tagged with its source, and, where
    asked, with whether the author's generation tags enclose it. Characters of the variables named
    in ``given`` know that the row gave them.

    ``variables["messages"]`` are plain dictionaries. Raises UntraceableError where the output
    cannot be followed; whatever the template itself raises is passed on.
    """
    turns = [turn(index, message) for index, message in enumerate(variables["messages"])]
    tag = FollowedTag if follow_generation_tags else GenerationTag
    marked = {name: sources.given(variables[name]) for name in given}
    return _traced(template, tag).render({**variables, **marked, "messages": turns})


@lru_cache(maxsize=64)
def literals(template: str) -> tuple[str, ...]:
    """What a template may print besides its variables, in the order of its source. Raises
    TemplateError where the source cannot be read."""
    try:
        tree = hooked(dialect.parse(template))
        found = [node.node for node in tree.find_all(nodes.Filter) if node.name == LITERAL]
    except UntraceableError:
        return ()
    except RecursionError as error:  # a chain of a thousand attributes parses, but is too deep
        raise dialect.explained(error, None) from None
    return tuple(node.value for node in found if isinstance(node, nodes.Const))


class _Traced:
    """A template compiled with the hooks. One render at a time; others wait their turn."""

    def __init__(self, template: str, tag: type[GenerationTag]) -> None:
        self._lock = threading.Lock()
        self._here = here = Here()
        environment = filters.environment(tag)
        environment.concat = here.join  # type: ignore[method-assign]
        environment.filters.update(here.filters())
        code = environment.compile(hooked(environment.parse(template)))
        self._template = jinja2.Template.from_code(environment, code, environment.globals)
        # What a template prints, and what `~` joins, goes through these two names of its module.
        module = self._template.root_render_func.__globals__
        module.update(str=here.printed, str_join=here.join)

    def render(self, variables: Mapping[str, Any]) -> Tagged:
        with self._lock:
            self._here.reset()
            pieces = dialect.run(self._template, variables)
            return cast(Tagged, dialect.collect(pieces, EMPTY.join))


@lru_cache(maxsize=64)
def _traced(template: str, tag: type[GenerationTag]) -> _Traced:
    return _Traced(template, tag)
