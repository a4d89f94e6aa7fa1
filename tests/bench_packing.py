"""How fast rows are packed, how full windows get, and what packing's order does to steps.

    python -m tests.bench_packing
    python -m tests.bench --only packing

Lengths are drawn from log-normal distributions, as those of real rows roughly are; the first shape
is that of the second seed's example, a mean of 250 tokens in windows of 2,048. Three figures a way
of packing: the share of places left empty; how much the number of rows in a step of 8 windows
varies (standard deviation over mean); and how many of the pairs that share a window do so again in
the next epoch. Seconds are the fastest of three, on one core.
"""

from __future__ import annotations

import copy
import math
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from statistics import mean, pstdev
from typing import Any, Final

from sft_core import heap
from sft_core.batch import collate
from sft_core.catalogue import BYTES_GPT
from sft_core.config import ModelConfig, TrainConfig
from sft_core.dealing import layouts, percent
from sft_core.learner import Learner
from sft_core.models import Opened, open_model
from sft_core.packing import Windows, best_fit, pack
from sft_core.prepare import Row
from sft_core.types import IGNORE_INDEX
from tests.bench_race import Contender, race

STEP: Final = 8
EPOCHS: Final = 4
Packer = Callable[[Sequence[int], int, int], Windows]
SHAPES: Final = (("talk", 250, 0.8, 2048), ("short", 90, 0.6, 256), ("long", 600, 0.6, 1024))
"""Name, mean, sigma, window."""


def lengths_of(center: float, sigma: float, window: int, rows: int) -> list[int]:
    rng = random.Random(f"{center}/{rows}")
    middle = math.log(center) - sigma**2 / 2
    drawn = (round(rng.lognormvariate(middle, sigma)) for _ in range(rows))
    return [min(window, max(8, length)) for length in drawn]


def shuffled(rows: int, epoch: int) -> list[int]:
    order = list(range(rows))
    random.Random(f"7/{epoch}").shuffle(order)
    return order


def next_fit(lengths: Sequence[int], window: int, epoch: int) -> Windows:
    """A row joins the window before it or opens one: what filling up as rows come does."""
    windows: list[list[int]] = []
    left = 0
    for row in shuffled(len(lengths), epoch):
        if lengths[row] > left:
            windows.append([])
            left = window
        windows[-1].append(row)
        left -= lengths[row]
    return tuple(map(tuple, windows))


def any_order(lengths: Sequence[int], window: int, epoch: int) -> Windows:
    return best_fit(lengths, window, shuffled(len(lengths), epoch))


def decreasing(lengths: Sequence[int], window: int, epoch: int) -> Windows:
    order = sorted(shuffled(len(lengths), epoch), key=lambda row: -lengths[row])
    return best_fit(lengths, window, order)


def ours(lengths: Sequence[int], window: int, epoch: int) -> Windows:
    return pack(lengths, window, seed=7, epoch=epoch).windows


PACKERS: Final[dict[str, Packer]] = {
    "next fit": next_fit,
    "best fit, random order": any_order,
    "best fit, decreasing": decreasing,
    "the lab: halves first": ours,
}


def variation(windows: Windows, seed: int) -> float:
    """Of the number of rows in a step."""
    order = list(windows)
    random.Random(seed).shuffle(order)
    steps = [order[at : at + STEP] for at in range(0, len(order) - STEP + 1, STEP)]
    rows = [sum(map(len, step)) for step in steps]
    return pstdev(rows) / mean(rows)


def again(epochs: Sequence[Windows]) -> float:
    """The share of pairs in one window that are together in the next epoch as well."""
    pairs = [
        {pair for window in windows for pair in combinations(sorted(window), 2)}
        for windows in epochs
    ]
    return mean(len(one & other) / max(1, len(one)) for one, other in pairwise(pairs))


def seconds_of(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def ways() -> None:
    print("2,000 rows, four epochs: empty / steps differ by / pairs again")
    print(f"{'':<26}" + "".join(f"{f'{c} in {w:,}':>26}" for _, c, _, w in SHAPES))
    for name, packer in PACKERS.items():
        cells = []
        for _, center, sigma, window in SHAPES:
            lengths = lengths_of(center, sigma, window, 2000)
            epochs = [packer(lengths, window, epoch) for epoch in range(EPOCHS)]
            empty = mean(1 - sum(lengths) / (len(it) * window) for it in epochs)
            differ = mean(variation(it, at) for at, it in enumerate(epochs))
            cells.append(f"{percent(empty)} / {percent(differ)} / {percent(again(epochs))}")
        print(f"{name:<26}" + "".join(f"{cell:>26}" for cell in cells))


def speed() -> None:
    print(f"\n{'rows':>8}{'seconds':>10}{'windows':>10}{'packed':>10}", end="")
    print(f"{'at limit':>10}{'longest':>10}{'grouped':>10}   (share of places empty)")
    _, center, sigma, window = SHAPES[0]
    for rows in (1_000, 10_000, 100_000):
        lengths = lengths_of(center, sigma, window, rows)
        taken = seconds_of(lambda lengths=lengths: pack(lengths, window, seed=7))  # type: ignore[misc]
        found = layouts(lengths, STEP, window, seed=7)
        assert found is not None
        slots = (found.packed, found.to_window, found.to_longest, found.grouped)
        shares = "".join(f"{percent(found.empty(each)):>10}" for each in slots)
        print(f"{rows:>8,}{taken:>10.3f}{found.windows:>10,}{shares}")


def speeds(rounds: int = 3) -> None:
    """Tokens a second in training on rows of the second seed's shape, each with an answer as its
    second half: eight rows to a step padded, by the lab as they are, and packed."""
    config = TrainConfig(batch_size=STEP, max_length=2048, precision="fp32", seed=7)
    lengths = lengths_of(250, 0.8, 2048, 4 * STEP)
    rows = [_row(length, at) for at, length in enumerate(lengths)]
    opened = open_model(ModelConfig(BYTES_GPT, width=192, depth=4, heads=4, context=2048), None, 0)

    def padded(to: int | None) -> Callable[[], float]:
        def run() -> float:
            learner = _learner(opened, config, rows)
            learner.forward.flat = False
            learner.forward.cut = lambda lengths, rows: (tuple(rows),)
            learner.forward.lay = lambda chosen: collate(chosen, 0, length=to)
            return _train(learner)

        return run

    def lab(**changes: Any) -> Callable[[], float]:
        return lambda: _train(_learner(opened, replace(config, **changes), rows))

    contenders = [
        Contender("padded to the window", padded(2048)),
        Contender("padded to the longest of the batch", padded(None)),
        Contender("the lab, 8 rows a step", lab()),
        Contender("the lab, packed: 1 window a step", lab(packing=True, batch_size=1)),
    ]
    with heap.kept():
        race(f"One epoch, mean {mean(lengths):.0f}, window 2,048", "tokens/s", contenders, rounds)


def _row(length: int, at: int) -> Row:
    rng = random.Random(at)
    ids = array("i", [rng.randrange(256) for _ in range(length)])
    half = length // 2
    labels = array("i", [IGNORE_INDEX] * half) + ids[half:]
    return Row(str(at), ids, labels, array("B", bytes(length)), length - half, 0)


def _learner(opened: Opened, config: TrainConfig, rows: Sequence[Row]) -> Learner:
    fresh = replace(opened, model=copy.deepcopy(opened.model))
    return Learner(fresh, replace(config, epochs=1, warmup_steps=0), rows)


def _train(learner: Learner) -> float:
    return sum(step.tokens for it in learner.steps() if (step := learner.optimise(it)))


def bench_packing() -> None:
    ways()
    speed()
    speeds()


if __name__ == "__main__":
    bench_packing()
