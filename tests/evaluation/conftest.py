"""A small world with a random model that speaks its words, and ranks that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.ranks import Ranks
from erulab.registry import load_plugins

load_plugins()


class ThreadRanks(Ranks):
    """One of several ranks that exchange values through a shared list."""

    def __init__(self, rank: int, world: int, slots: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, world)
        self._slots, self._barrier = slots, barrier

    def gather_objects(self, value: Any) -> list[Any]:
        self._slots[self.rank] = value
        self._barrier.wait(timeout=60)
        values = list(self._slots)
        self._barrier.wait(timeout=60)
        return values


def on_ranks(world: int, function: Callable[[Ranks], Any]) -> list[Any]:
    """Runs a function on several ranks and returns the result of each."""
    slots, results = [None] * world, [None] * world
    barrier = threading.Barrier(world)

    def run(rank: int) -> None:
        try:
            results[rank] = function(ThreadRanks(rank, world, slots, barrier))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def small_world() -> Benchmark:
    options = FictitiousOptions(
        world=7, forget_authors=2, retain_authors=2, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return FictitiousWorld(options).load(0)


def random_speaker(world: Benchmark) -> LoadedModel:
    """Returns a model with random weights, large enough that predictions are far from uniform."""
    loaded = TinyModel(TinyOptions(layers=2, width=32, heads=2)).load(world, seed=3)
    with torch.no_grad():
        for p in loaded.model.parameters():
            if p.dim() == 2:
                p.mul_(5)
    return loaded


@pytest.fixture(scope="session")
def world() -> Benchmark:
    return small_world()


@pytest.fixture(scope="session")
def loaded(world: Benchmark) -> LoadedModel:
    return random_speaker(world)
