"""The runs that come with the lab are those that are written down."""

from __future__ import annotations

from pathlib import Path

from sft_core.config import LabConfig
from sft_core.lessons import FROM_SCRATCH

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_lesson_from_scratch_is_the_one_that_is_written_down() -> None:
    written = (EXAMPLES / "six_tasks" / "run.json").read_text(encoding="utf-8")
    assert LabConfig.from_json(written) == FROM_SCRATCH


def test_it_shares_nothing_with_the_default_but_what_any_run_does() -> None:
    default = LabConfig()
    for part in ("data", "template", "model", "train", "generate"):
        assert getattr(FROM_SCRATCH, part) != getattr(default, part), part
    assert FROM_SCRATCH.policy == default.policy
