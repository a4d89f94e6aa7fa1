"""How long the rows are that a run would train on, as far as the page can know it at once: the
first rows of the set, rendered and encoded as training does, and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sft_core import audit
from sft_core.config import GenerateConfig, LabConfig, TrainConfig
from sft_core.types import Encoded, LabError
from sft_core.ui.look import limit, look
from sft_core.ui.sources import changed, rows_of

SAMPLED: Final = 1000
"""So many rows are encoded for it, the first ones."""
KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Sampled:
    """Rows that training would use, by their places among the training rows; ``total`` is how
    many training rows there are, ``looked`` how many of them were looked at."""

    places: tuple[int, ...]
    ids: tuple[str, ...]
    rows: tuple[Encoded, ...]
    looked: int
    total: int

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.rows]

    @property
    def whole(self) -> bool:
        return self.looked == self.total


def sampled(config: LabConfig) -> Sampled:
    """Raises LabError where template, tokenizer or data cannot be used at all; rows that fail or
    have nothing to train are left out, as in training."""
    # What does not change tokens does not change the key.
    plain = config.but(train=TrainConfig(max_length=limit(config)), generate=GenerateConfig())
    return _sampled(plain.to_json(None), changed(config.data.source))


def mean_length(config: LabConfig) -> float | None:
    """The mean of tokens a row; None where no row can be trained on."""
    try:
        lengths = sampled(config).lengths
    except LabError:
        return None  # the page says elsewhere what is wrong; here it only means: not known
    return sum(lengths) / len(lengths) if lengths else None


@lru_cache(maxsize=KEPT)
def _sampled(key: str, _changed: float) -> Sampled:
    config = LabConfig.from_json(key)
    train = rows_of(config.data).splits.train
    first = train[:SAMPLED]
    if not first:
        return Sampled((), (), (), 0, 0)
    seen = look(config, first[0])
    if seen.template is None or seen.tokenizer is None:
        assert seen.error is not None
        raise seen.error
    made = audit.rows(first, seen.template, seen.tokenizer, config.policy, config.train.max_length)
    kept = [
        (place, example.id, row)
        for place, (example, row) in enumerate(made)
        if isinstance(row, Encoded) and row.trained
    ]
    places, ids, rows = zip(*kept, strict=True) if kept else ((), (), ())
    return Sampled(places, ids, rows, len(first), len(train))
