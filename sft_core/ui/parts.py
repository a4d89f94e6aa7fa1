"""Small things that every tab is made of."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr

LIGHT: Final[dict[str, Any]] = {
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""How a handler is wired that answers at once: never waiting for another, never dimming what one
reads, and no part of a public interface."""


def heading(text: str, level: int = 2) -> gr.HTML:
    """A heading of the page's own words."""
    return gr.HTML(f"<h{level}>{text}</h{level}>", apply_default_css=False, padding=False)


def note(text: str) -> gr.HTML:
    """A quiet sentence of the page's own words."""
    return gr.HTML(f'<p class="note">{text}</p>', apply_default_css=False, padding=False)


def skip(count: int) -> Any:
    """Leaves ``count`` outputs as they are."""
    return gr.skip() if count == 1 else (gr.skip(),) * count
