"""The page's controls as a visitor has set them, for tests of handlers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sft_core.lessons import FROM_SCRATCH
from sft_core.ui.session import Choices, preset_source
from sft_core.ui.sources import pack


def from_scratch(**values: Any) -> Choices:
    """The lesson from scratch on the controls: six tasks, bytes, INST / RESP; then ``values``."""
    lesson = Choices(
        held=pack(FROM_SCRATCH.data),
        model=FROM_SCRATCH.model.name,
        preset=FROM_SCRATCH.template.name,
        source=preset_source(FROM_SCRATCH.template.name, FROM_SCRATCH.model.name),
    )
    return replace(lesson, **values)


def on_arrival(**values: Any) -> Choices:
    """The controls as they stand when the page is opened, with the preset's text in the editor;
    then ``values``."""
    fresh = Choices()
    return replace(replace(fresh, source=preset_source(fresh.preset, fresh.model)), **values)
