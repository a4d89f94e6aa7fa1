"""What this host allows: every bound on what a visitor can start, read from the environment.

``HOST`` is read once, at import. On a Space the defaults are tight, because strangers share the
machine; on one's own machine they are generous. ``check`` refuses a configuration that goes
beyond them, in a sentence that names the bound. README.md's table is tested against ``TABLE``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

from sft_core.config import LabConfig
from sft_core.types import ConfigError, LimitError


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: its default at home and on a Space, and what it bounds."""

    variable: str
    home: str
    space: str
    meaning: str


TABLE: Final[Mapping[str, Setting]] = {
    "max_rows": Setting("SFT_MAX_ROWS", "100000", "5000", "rows read from a data set"),
    "max_length": Setting("SFT_MAX_LENGTH", "8192", "1024", "tokens in a training example"),
    "max_steps": Setting("SFT_MAX_STEPS", "100000", "2000", "optimiser steps in a run"),
    "max_minutes": Setting(
        "SFT_MAX_MINUTES", "720", "10", "minutes that a run may take at a stretch"
    ),
    "max_parameters": Setting(
        "SFT_MAX_PARAMETERS", "8000000000", "400000000", "parameters of a model"
    ),
    "max_new_tokens": Setting("SFT_MAX_NEW_TOKENS", "2048", "256", "tokens in an answer"),
    "max_prompts": Setting("SFT_MAX_PROMPTS", "32", "8", "prompts compared at once"),
    "max_upload_mb": Setting("SFT_MAX_UPLOAD_MB", "512", "20", "megabytes of an uploaded file"),
    "queue_size": Setting("SFT_QUEUE_SIZE", "64", "16", "jobs waiting for the compute process"),
    "sessions": Setting("SFT_SESSIONS", "200", "200", "visitors whose state is kept"),
    "keep_hours": Setting("SFT_KEEP_HOURS", "0", "12", "hours that a run is kept; 0 for ever"),
    "keep_runs": Setting("SFT_KEEP_RUNS", "200", "40", "runs kept on disk, newest first"),
    "local_paths": Setting(
        "SFT_LOCAL_PATHS", "1", "0", "1 lets the page open folders and files of this machine"
    ),
    "runs_dir": Setting("SFT_RUNS_DIR", "runs", "runs", "folder that runs are kept in"),
}


@dataclass(frozen=True, slots=True)
class Host:
    """The bounds in force. Counts are whole numbers; minutes and hours may be fractions."""

    max_rows: int
    max_length: int
    max_steps: int
    max_minutes: float
    max_parameters: int
    max_new_tokens: int
    max_prompts: int
    max_upload_mb: float
    queue_size: int
    sessions: int
    keep_hours: float
    keep_runs: int
    local_paths: bool
    runs_dir: Path
    on_space: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises ConfigError where a variable holds no number."""
        on_space = bool(environment.get("SPACE_ID"))
        values: dict[str, object] = {"on_space": on_space}
        kinds = {f.name: str(f.type) for f in fields(cls)}
        for name, setting in TABLE.items():
            default = setting.space if on_space else setting.home
            values[name] = _parse(
                setting.variable, environment.get(setting.variable, default), kinds[name]
            )
        return cls(**values)  # type: ignore[arg-type]

    def check(self, config: LabConfig) -> None:
        """Raises LimitError for the first setting of ``config`` that this host does not allow."""
        bounds = (
            ("data.rows", config.data.rows, self.max_rows, "max_rows"),
            ("train.max_length", config.train.max_length, self.max_length, "max_length"),
            ("model.context", config.model.context, self.max_length, "max_length"),
            ("train.max_steps", config.train.max_steps, self.max_steps, "max_steps"),
            ("train.max_minutes", config.train.max_minutes, self.max_minutes, "max_minutes"),
            (
                "generate.max_new_tokens",
                config.generate.max_new_tokens,
                self.max_new_tokens,
                "max_new_tokens",
            ),
            (
                "the number of sample prompts",
                len(config.train.sample_prompts),
                self.max_prompts,
                "max_prompts",
            ),
        )
        for name, value, bound, key in bounds:
            if value is not None and value > bound:
                raise LimitError(
                    f"{name} is {value:,}, but this host allows {bound:,} "
                    f"({TABLE[key].variable}). Lower it, or run the lab on your own machine."
                )


def on_zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space, read as the spaces package reads it."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def _parse(variable: str, text: str, kind: str) -> object:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        raise ConfigError(f"{variable} must be a number, not {text!r}.") from None
    if kind == "bool":
        return text.strip().lower() in {"1", "true", "yes", "on"}
    return Path(text)


HOST: Final = Host.from_environment(os.environ)


def launched() -> int:
    """How many processes were started to train one model together, as ``accelerate launch`` and
    ``torchrun`` say it: they number each one, too."""
    if "RANK" not in os.environ:
        return 1
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def leads() -> bool:
    """Whether this process speaks for all that were launched together."""
    return os.environ.get("RANK", "0") == "0"
