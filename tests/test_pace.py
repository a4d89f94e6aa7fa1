"""When to stop, how fast it goes, how long it takes."""

from __future__ import annotations

import mmap

import pytest
import torch

from sft_core.pace import Brake, Clock, Done, Meter, device_name, memory_mb, never, still_due


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_brake_holds_on_request_and_remembers_why() -> None:
    answers = iter([False, True])
    brake = Brake(lambda: next(answers))
    assert not brake()
    assert brake()
    assert brake()  # it does not ask again
    assert brake.reason == "Stopped on request."


def test_a_brake_holds_at_the_time_limit() -> None:
    watch = Watch()
    brake = Brake(never, 1.5, watch)
    watch.time += 89
    assert not brake()
    assert brake.seconds_left() == pytest.approx(1)
    watch.time += 1
    assert brake()
    assert brake.reason == "The time limit of 1.5 minutes was reached."


def test_the_time_left_is_made_of_what_each_kind_takes() -> None:
    watch = Watch()
    clock = Clock(watch)
    for kind, seconds in (("step", 2), ("step", 4), ("eval", 10)):
        with clock.timing(kind):
            watch.time += seconds
    assert clock.left({"step": 5, "eval": 2, "score": 9}) == 5 * 3 + 2 * 10
    assert clock.last("step") == 4
    assert clock.elapsed() == 16


def test_old_steps_are_forgotten() -> None:
    watch = Watch()
    clock = Clock(watch)
    for seconds in [50] + [1] * 20:
        with clock.timing("step"):
            watch.time += seconds
    assert clock.left({"step": 3}) == 3


def test_a_meter_reads_the_rate_since_it_was_read() -> None:
    meter = Meter()
    assert meter.read() == Done(0, 0, 0)
    meter.add(Done(100, 40, 9e6), 2)
    meter.add(Done(50, 20, 3e6), 1)
    assert meter.read() == Done(50, 20, 4e6)
    meter.add(Done(10, 4, 1e6), 1)
    assert meter.read() == Done(10, 4, 1e6)


@pytest.mark.parametrize(
    ("every", "step", "total", "left"),
    [(0, 3, 10, 1), (5, 0, 10, 2), (5, 5, 10, 1), (5, 9, 10, 1), (3, 2, 10, 4), (20, 1, 10, 1)],
)
def test_how_often_something_is_still_due(every: int, step: int, total: int, left: int) -> None:
    later = {at for at in range(step + 1, total) if every and at % every == 0}
    assert still_due(every, step, total) == left == len(later) + 1


def test_memory_is_that_of_this_process() -> None:
    before = memory_mb(torch.device("cpu"))
    # Straight from the system: an allocator may hand out what an earlier test gave back to it.
    with mmap.mmap(-1, 50 * 2**20) as held:
        held.write(b"x" * len(held))
        assert 30 < memory_mb(torch.device("cpu")) - before < 120


def test_the_name_of_the_processor_says_how_many_threads() -> None:
    assert device_name(torch.device("cpu")).startswith(f"cpu, {torch.get_num_threads()} thread")
