"""A seeded sample of the trials in CI: nothing is lost, and nobody is fooled."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.reliability import damages, disks, fuzz, hostile, kills
from tests.reliability.trials import Trial, try_all

SEED = 16


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> damages.Base:
    """The runs that are damaged."""
    return damages.make_base(tmp_path_factory.mktemp("reliability"))


def check(trials: Iterable[Trial]) -> None:
    results = list(try_all(list(trials)))
    assert results
    faults = [f"{result.name}: {result.fault}" for result in results if result.fault is not None]
    assert not faults, "\n".join(faults)


def test_killed_runs_end_with_the_results_of_one_left_alone() -> None:
    """FAULTS 22: five runs, one to three SIGKILLs each at random moments; the same bits, no litter.

    Two of them are jobs of a sweep, whose worker is a copy of a process that outlives it.
    """
    kills.prepare(1)
    check(kills.trials(3, SEED, methods=1))
    check(kills.trials(2, SEED, (kills.SWEEP, "engine=local"), methods=1))


def test_a_full_disk_ends_with_4_and_with_room_the_run_continues(base: damages.Base) -> None:
    """FAULTS 18: a file in the place of the cache, a full disk, and a read-only one if this user can make it."""
    check(disks.trials(base, 3))


def test_random_input_ends_in_one_line(base: damages.Base) -> None:
    """FAULTS 7, 8 and 12: forty random overrides, data files, run folders and model folders."""
    check(fuzz.trials(base, 40, SEED))


def test_hostile_files_are_refused(base: damages.Base) -> None:
    """FAULTS 8, 28, 35 and 36: pickles, code, paths, templates, bombs; no canary is touched."""
    check(hostile.trials(base))
