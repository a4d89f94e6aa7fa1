"""Ten runs that are killed at random moments and resumed, beside one that nobody disturbs.

Each of the ten is killed by its parent, which knows nothing of what the run does at that moment:
at a random time while a random step of the run is computed, saved or looked at, one to three times
on the way. What is compared afterwards are the weights of the result, the best weights, and every
figure that the run tells, bit for bit. ``python -m tests.bench_resume``
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from sft_core.checkpoint import STATE, newest, saved_numbers
from sft_core.events import RunStarted, StepLogged
from sft_core.record import RunStatus
from sft_core.rundir import RunDirectory
from tests.killed import PROCESSES, Fate, a_run, carry_out, equal, live, story, weights

KILLS: Final = 10
STEPS: Final = 60


def kill_at_random(directory: RunDirectory, chance: random.Random) -> int | None:
    """Carries the run on and kills it at a random moment during one of the steps that are left;
    gives the last step that it had logged, None where it came to its end before."""
    resume = newest(directory.path / STATE) is not None
    begun = (saved_numbers(directory.path) or {}).get("step", 0) if resume else 0
    wanted = chance.randint(begun, STEPS)
    _, offset = directory.tail(0)
    process = PROCESSES.Process(target=carry_out, args=(directory.path, resume, Fate()))
    process.start()
    step, began = begun, False
    while process.is_alive() and not (began and step >= wanted):
        events, offset = directory.tail(offset)
        for event in events:
            began = began or isinstance(event, RunStarted)
            step = event.step if isinstance(event, StepLogged) else step
        time.sleep(0.001)
    # A step takes some milliseconds, so this falls anywhere in the next few.
    time.sleep(chance.random() * 0.05)
    process.kill()
    process.join()
    for event in directory.tail(offset)[0]:
        step = event.step if isinstance(event, StepLogged) else step
    directory.interrupt("Killed.")
    return None if process.exitcode == 0 else step


def main(arguments: list[str] | None = None) -> bool:
    """Prints the table; gives whether all runs ended alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args(arguments).seed
    chance = random.Random(seed)
    alike = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = RunDirectory.create(folder / "whole", a_run(folder, f"max_steps={STEPS}"))
        assert live(whole.path) == 0
        expected, told = weights(whole.path), story(whole.read())
        print(f"\nA run of {STEPS} steps, killed at random and resumed (seed {seed})")
        head = "killed after step -> resumed after step"
        print(f"{'run':>4}  {head:<44}{'weights':>11}{'figures':>11}")
        for number in range(1, KILLS + 1):
            directory = RunDirectory.create(folder / str(number), whole.config())
            deaths = []
            for _ in range(chance.randint(1, 3)):
                step = kill_at_random(directory, chance)
                if step is None:
                    break
                deaths.append(f"{step} -> {(saved_numbers(directory.path) or {}).get('step', 0)}")
            if directory.read().status is not RunStatus.FINISHED:
                assert live(directory.path, resume=newest(directory.path / STATE) is not None) == 0
            found = weights(directory.path)
            same = all(equal(found[name], expected[name]) for name in expected)
            figures = story(directory.read()) == told
            alike += same and figures
            words = ["different", "identical"]
            print(f"{number:>4}  {', '.join(deaths):<44}{words[same]:>11}{words[figures]:>11}")
    print(f"{alike} of {KILLS} ended bit for bit as the run that was not disturbed.")
    return alike == KILLS


if __name__ == "__main__":
    raise SystemExit(not main())
