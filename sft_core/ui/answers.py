"""Questions and answers as the Compare tab holds them: prompts, examples to take, and a board that
fills as both sides write. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sft_core.catalogue import Origin, find
from sft_core.config import LabConfig
from sft_core.events import Answered, Side, TextGenerated
from sft_core.settings import HOST
from sft_core.types import ConfigError, Example, Message
from sft_core.ui.header import template_title
from sft_core.ui.run_view import described
from sft_core.ui.session import parse
from sft_core.ui.sources import Rows
from sft_core.ui.words import short_run

EXAMPLES: Final = 8
FIRST_PROMPTS: Final = 3
MOST_CHARACTERS: Final = 20_000


def prompts_value(rows: Rows) -> dict[str, Any]:
    """Example chips from held-out rows (training rows where none are held out), the first few
    of them as prompts already."""
    held = rows.splits.test
    source = held or rows.splits.eval or rows.splits.train
    examples = [_example(rows, row, bool(held)) for row in _mixed(source, EXAMPLES)]
    return {
        "prompts": [
            {"text": item["text"], "example": item["row"]} for item in examples[:FIRST_PROMPTS]
        ],
        "examples": examples,
        "most": HOST.max_prompts,
        "caption": "Held-out rows to ask:" if held else "Rows to ask:",
    }


def _mixed(rows: Sequence[Example], count: int) -> list[Example]:
    """The first rows, one category after the other, so that a few show all kinds."""
    queues: dict[str | None, list[Example]] = {}
    for row in rows:
        queues.setdefault(row.category, []).append(row)
    picked: list[Example] = []
    while len(picked) < min(count, len(rows)):
        picked += [queue.pop(0) for queue in queues.values() if queue]
    return picked[:count]


def _example(rows: Rows, row: Example, held: bool) -> dict[str, Any]:
    note = (rows.fact_note(row) if held else None) or ""
    return {"row": row.id, "text": row.prompt[-1].text if row.prompt else "", "note": note}


def title_value(run: str | None, config: LabConfig | None) -> dict[str, Any]:
    """What is compared with what."""
    if run is None or config is None:
        return {
            "text": "No run yet, so only the base model answers. Train one to compare.",
            "level": "info",
        }
    return {
        "text": f"Run {short_run(run)}: {described(config)}. Both sides get each prompt through "
        f"{template_title(config)}, as in training."
    }


class Board:
    """Answers as they come in, and the value that shows them."""

    def __init__(
        self, prompts: Sequence[str], expected: Sequence[str], config: LabConfig, run: str | None
    ) -> None:
        self.tuned = run is not None
        model = config.model.name.rpartition("/")[2]
        untrained = find(config.model.name).origin is Origin.RANDOM
        self.titles = {
            "base": f"Base: {model}{', random weights' if untrained else ''}",
            "tuned": f"Tuned: run {short_run(run)}" if run else "Tuned",
        }
        self.prompts = prompts
        self.expected = expected
        self.sides: dict[tuple[Side, int], dict[str, Any]] = {
            (side, at): self._blank(side) for side in Side for at in range(len(prompts))
        }

    def _blank(self, side: Side) -> dict[str, Any]:
        if side is Side.TUNED and not self.tuned:
            return {"text": "", "state": "absent", "tokens": 0, "reason": "no run yet"}
        return {"text": "", "state": "waiting", "tokens": 0}

    def add(self, event: TextGenerated | Answered) -> None:
        place = (event.side, event.prompt)
        if isinstance(event, TextGenerated):
            self.sides[place] = {"text": event.text, "state": "writing", "tokens": event.tokens}
            return
        count = len(event.ids)
        rate = f"{count / event.seconds:,.0f} tokens/s" if event.seconds > 0 and count else ""
        self.sides[place] = {
            "text": event.text,
            "state": "done",
            "tokens": count,
            "stopped": event.stopped,
            "reason": event.reason,
            "rate": rate,
        }

    def halt(self) -> bool:
        """What is still being written stays as it is. Says whether there was anything."""
        open_sides = [s for s in self.sides.values() if s["state"] in ("waiting", "writing")]
        for side in open_sides:
            side["state"] = "halted"
        return bool(open_sides)

    def value(self) -> dict[str, Any]:
        return {
            "titles": self.titles,
            "prompts": [
                {
                    "prompt": prompt,
                    "expected": self.expected[at],
                    "base": self.sides[Side.BASE, at],
                    "tuned": self.sides[Side.TUNED, at],
                }
                for at, prompt in enumerate(self.prompts)
            ],
            "empty": "",
        }


NO_ANSWERS: Final[dict[str, Any]] = {
    "titles": {"base": "Base", "tuned": "Tuned"},
    "prompts": [],
    "empty": "Answers appear here side by side: the base model on the left, the tuned one on the "
    "right.",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt as conversation, and what a held-out row expects."""

    text: str
    messages: tuple[Message, ...]
    expected: str = ""


def questions(shown: str, rows: Rows | None) -> list[Question]:
    """The prompts on the page. An example that was not changed is asked with all its turns.
    Raises ConfigError."""
    prompts = parse(shown).get("prompts") or []
    known = {row.id: row for row in rows.part("all")} if rows else {}
    found = []
    for prompt in prompts if isinstance(prompts, list) else []:
        text = str(prompt.get("text") or "") if isinstance(prompt, dict) else ""
        if not text.strip():
            continue
        if len(text) > MOST_CHARACTERS:
            raise ConfigError(
                f"A prompt is longer than {MOST_CHARACTERS:,} characters: shorten it."
            )
        row = known.get(str(prompt.get("example")))
        if row is not None and row.prompt and row.prompt[-1].text == text:
            found.append(Question(text, row.prompt, row.answer))
        else:
            found.append(Question(text, (Message("user", text),)))
    if not found:
        raise ConfigError("There is nothing to ask yet: write a prompt or take an example.")
    if len(found) > HOST.max_prompts:
        raise ConfigError(f"{HOST.max_prompts} prompts at once are as many as this host takes.")
    return found
