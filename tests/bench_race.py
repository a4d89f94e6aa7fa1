"""Contenders timed in turn, in wall time and in processor time: the tables of ``make bench``."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to be timed: ``run`` does the work and says how many units it did."""

    name: str
    run: Callable[[], float]


def processor_seconds() -> float:
    """Processor time of this process and of the children that it has now, such as the sandbox's."""
    me = psutil.Process()
    family = [me, *me.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def race(
    title: str, unit: str, contenders: Sequence[Contender], rounds: int
) -> dict[str, list[float]]:
    """Times contenders in turn, so that a drifting machine treats all alike; the first one is
    what the others are compared with. Prints a table and gives each one's rates, run by run."""
    rates: dict[str, list[float]] = {it.name: [] for it in contenders}
    costs: dict[str, list[float]] = {it.name: [] for it in contenders}
    for _ in range(rounds):
        for contender in contenders:
            gc.collect()
            spent, started = processor_seconds(), time.perf_counter()
            done = contender.run()
            rates[contender.name].append(done / (time.perf_counter() - started))
            costs[contender.name].append((processor_seconds() - spent) / done)
    print(f"\n{title} ({unit}, median of {rounds} interleaved runs; cpu: microseconds a unit)")
    print(
        f"{'':48s}{'median':>10s}{'least':>10s}{'most':>10s}{'ratio':>8s}{'cpu':>10s}{'ratio':>8s}"
    )
    first = statistics.median(rates[contenders[0].name])
    least = statistics.median(costs[contenders[0].name])
    for name, found in rates.items():
        middle, cost = statistics.median(found), statistics.median(costs[name])
        row = "".join(f"{value:10,.0f}" for value in (middle, min(found), max(found)))
        print(f"{name:48s}{row}{middle / first:8.2f}{cost * 1e6:10,.1f}{cost / least:8.2f}")
    return rates
