"""Where rows and models may come from on this host, and the rows themselves, loaded and split."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gradio.utils import get_upload_folder

from sft_core import data
from sft_core.catalogue import Origin, find
from sft_core.config import DataConfig, LabConfig
from sft_core.settings import HOST, Host
from sft_core.types import Example, LimitError

SETS_KEPT: Final = 6
_TYPED: Final = (Origin.FOLDER, Origin.HUB)
"""Models that are known by what a visitor typed: the others are the lab's own, whatever folder of
the same name stands beside it."""
PARTS: Final[Mapping[str, str]] = {"train": "train", "eval": "eval", "test": "held out"}


@dataclass(frozen=True, slots=True)
class Pick:
    """A row of the data set: which part it belongs to, and its place there."""

    part: str = "train"
    place: int = 0


def pack(config: DataConfig) -> str:
    """A data configuration as the page keeps it: text, since Gradio must be able to hash it."""
    return json.dumps(LabConfig(data=config).to_dict()["data"])


def unpack(text: str) -> DataConfig:
    return LabConfig.from_dict({"data": json.loads(text)}).data


# -- what a visitor may open -----------------------------------------------------------------


def uploads() -> Path:
    """The only folder that a file chosen on the page comes from: Gradio's own."""
    return Path(get_upload_folder())


def check_model(name: str, host: Host = HOST) -> None:
    """Raises LimitError for a folder of this machine, where visitors may not open any."""
    if not host.local_paths and _names_a_path(name) and find(name).origin in _TYPED:
        raise LimitError(
            f"{name!r} is a folder or path, and this host opens none for visitors. "
            "Use a model of the list or a hub id, or run the lab on your own machine."
        )


def check_source(source: str, host: Host = HOST) -> None:
    """Raises LimitError for a file of this machine that was not uploaded here."""
    if host.local_paths or source in data.BUILT_IN:
        return
    if Path(source).is_absolute() and Path(source).resolve().is_relative_to(uploads().resolve()):
        return
    if _names_a_path(source):
        raise LimitError(
            f"{source!r} is a path, and this host opens none for visitors. "
            "Upload the file, or give a hub id such as owner/name."
        )


def _names_a_path(name: str) -> bool:
    path = Path(name).expanduser()
    return name.startswith((".", "~", "/", "\\")) or ".." in path.parts or path.exists()


# -- data ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """A data set as loaded, with its parts."""

    loaded: data.Loaded
    splits: data.Splits
    seen: frozenset[str]

    def part(self, name: str) -> tuple[Example, ...]:
        if name == "all":
            return (*self.splits.train, *self.splits.eval, *self.splits.test)
        return tuple(getattr(self.splits, name))

    def at(self, pick: Pick) -> Example | None:
        rows = self.part(pick.part)
        return rows[pick.place] if 0 <= pick.place < len(rows) else None

    def fact_seen(self, example: Example) -> bool | None:
        """Whether the row's fact stands in training; None where the data names no facts."""
        return None if example.fact is None else example.fact in self.seen

    def fact_note(self, example: Example) -> str | None:
        """What to say of a held-out row's fact; None where it is the same for all of them."""
        if not {True, False} <= {self.fact_seen(row) for row in self.splits.test}:
            return None
        seen = self.fact_seen(example)
        return None if seen is None else ("fact in training" if seen else "fact not in training")


_sets: OrderedDict[tuple[str, float], Rows] = OrderedDict()
_sets_lock = threading.Lock()


def rows_of(config: DataConfig, host: Host = HOST) -> Rows:
    """Loads and splits a data set, or remembers it. Raises DataError, HubError, LimitError."""
    check_source(config.source, host)
    key = (pack(config), changed(config.source))
    with _sets_lock:
        if key in _sets:
            _sets.move_to_end(key)
            return _sets[key]
    limit = min(config.rows or host.max_rows, host.max_rows)
    loaded = data.load(config, max_rows=limit)
    splits = data.split(loaded, config)
    rows = Rows(loaded, splits, data.seen_facts(splits.train))
    with _sets_lock:
        _sets[key] = rows
        while len(_sets) > SETS_KEPT:
            _sets.popitem(last=False)
    return rows


def changed(source: str) -> float:
    """When a file was last changed; 0 for what is none."""
    try:
        return Path(source).stat().st_mtime
    except (OSError, ValueError):
        return 0.0
