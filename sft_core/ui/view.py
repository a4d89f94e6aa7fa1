"""A view: one piece of the page that our own script draws from a value.

Its value travels as JSON text and becomes nodes through ``textContent`` (``static/js``), so that
nothing a person wrote is ever read as markup, and a new value repaints in place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import gradio as gr

STATIC: Final = Path(__file__).with_name("static")
# The page's script may arrive a moment after the first component.
_ON_LOAD: Final = """
const start = () => window.SFT
  ? SFT.mount({name}, element, props, watch, trigger)
  : setTimeout(start, 10);
start();
/* events: {events} */
"""


def dumps(value: Any) -> str:
    """What a view takes as its value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def view(
    name: str, value: Any = None, *, events: Sequence[str] = (), elem_id: str | None = None
) -> gr.HTML:
    """The view called ``name``, showing ``value``. ``events`` are those that it sends; listen with
    ``view.<event>(handler)``."""
    return gr.HTML(
        value=dumps(value) if value is not None else "",
        html_template=f'<div class="view view-{name}"></div>',
        js_on_load=_ON_LOAD.format(name=json.dumps(name), events=json.dumps(list(events))),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["view-block"],
    )


@cache
def script() -> str:
    """All of the page's own JavaScript, the core first."""
    files = sorted((STATIC / "js").glob("*.js"), key=lambda file: (file.stem != "core", file.stem))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def stylesheets() -> list[Path]:
    return sorted((STATIC / "css").glob("*.css"))
