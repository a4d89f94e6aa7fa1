"""One process among several: what it does alone, and how it hears of the others' end.

What several do together is tested with real ones in ``test_learner`` and ``test_together``."""

from __future__ import annotations

import os
import threading

import pytest
import torch
import torch.distributed as dist

from sft_core import processes
from sft_core.processes import Processes, _alone_again, _Board, local
from sft_core.settings import launched, leads
from sft_core.types import StorageError, TrainingError
from tests.tensors import tiny_model


def test_a_process_on_its_own_waits_for_nobody() -> None:
    alone = Processes()
    assert (alone.alone, alone.leads, alone.sharded, alone.count) == (True, True, False, 1)
    numbers = torch.tensor([1.0, 2.0])
    assert alone.sum(numbers) is numbers
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.told("as it is") == "as it is"
    alone.wait()
    model = tiny_model()
    assert alone.state(model) is None
    with alone.in_step(model):
        assert not model._forward_hooks


def test_weights_are_taken_back() -> None:
    one, other = tiny_model(seed=0), tiny_model(seed=1)
    Processes().restore(one, other.state_dict)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert local(one.lm_head.weight) is one.lm_head.weight
    tied = {name: tensor for name, tensor in other.state_dict().items() if "lm_head" not in name}
    Processes().restore(one, lambda: tied)
    del tied["model.norm.weight"]
    with pytest.raises(StorageError, match=r"weights lack model\.norm\.weight"):
        Processes().restore(one, lambda: tied)


def test_an_error_alone_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="odd"), Processes().one_fate(lambda _: None):
        raise ValueError("odd")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StorageError("The disk is full.\nmore"), "The disk is full."),
        (ValueError("odd"), "ValueError: odd"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_others_hear_why_a_process_ended(error: BaseException, words: str) -> None:
    store = dist.HashStore()
    failed, other = _Board(1, store), _Board(0, store)
    assert other.heard() is None
    failed.tell(error)
    heard = other.heard()
    assert isinstance(heard, TrainingError)
    assert str(heard).startswith("Process 1 of ")
    assert str(heard).endswith(f": {words}")
    assert failed.heard() is None  # it knows itself


def test_the_first_error_counts() -> None:
    store = dist.HashStore()
    _Board(1, store).tell(StorageError("first"))
    _Board(2, store).tell(StorageError("second"))
    assert "first" in str(_Board(0, store).heard())


def test_a_process_that_cannot_be_reached_says_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.05)
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", leave)
    store = dist.HashStore()
    _Board(1, store).tell(StorageError("gone"))
    said: list[str] = []
    stuck = _Board(0, store)
    with pytest.raises(SystemExit):
        stuck.look_out(threading.Event(), lambda error: said.append(str(error)))
    assert left == [1]
    assert said[0].endswith("gone")
    # One that ends in time is left alone.
    ended = threading.Event()
    threading.Timer(0.02, ended.set).start()
    stuck.look_out(ended, lambda error: said.append(str(error)))
    assert left == [1]
    assert len(said) == 1


def test_the_environment_says_how_many_and_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (launched(), leads()) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (launched(), leads()) == (1, True)  # a machine's setting, and nobody was launched
    monkeypatch.setenv("RANK", "3")
    assert (launched(), leads()) == (4, False)
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert launched() == 1


def test_a_lost_companion_is_told_from_other_errors() -> None:
    assert _alone_again(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1"))
    assert _alone_again(dist.DistNetworkError("x"))
    assert not _alone_again(ValueError("odd"))
