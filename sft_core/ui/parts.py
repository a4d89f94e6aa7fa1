"""Small things that every tab is made of."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr

from sft_core.ui.view import view

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


def introduction(text: str) -> gr.HTML:
    """What the page is for, in its own words."""
    return gr.HTML(f"<p>{text}</p>", elem_classes="introduction", apply_default_css=False)


def next_steps(*steps: tuple[str, str]) -> gr.HTML:
    """Buttons to (tab, in these words), the likeliest first."""
    return view("next", {"steps": [{"tab": tab, "text": text} for tab, text in steps]})
