"""A search on disk: it finds an optimum that is known, goes on after a kill, and is shared without a doubled trial."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from erulab.commands import status
from erulab.errors import IntegrityFault
from erulab.tuning.objective import TrialRun, objective_values
from erulab.tuning.options import Goal, ObjectiveOptions, SamplerName, TuningOptions
from erulab.tuning.result import best_trial, pareto_front
from erulab.tuning.samplers import draw_points
from erulab.tuning.search import JOURNAL, SAME, TYPED, Search
from erulab.tuning.space import Choices, Range, Space

SPACE: Space = {"lr": Range(1e-5, 1e-1, log=True), "beta": Range(0.0, 4.0)}


def opened(folder: Path, sampler: SamplerName = SamplerName.tpe, space: Space = SPACE, goals: int = 1) -> Search:
    return Search(folder, "trials", space, sampler, 3, goals)


def distance(typed: list[str]) -> float:
    """The squared distance from lr = 1e-3, beta = 1, in decades and in units."""
    lr, beta = (float(one.split("=")[1]) for one in typed)
    return (math.log10(lr) + 3) ** 2 + (beta - 1) ** 2


def go_on(search: Search, most: int, *, pause: float = 0.0, ran: Path | None = None) -> None:
    """Runs trials one by one until there are `most`; writes into `ran` which ones."""
    while taken := search.take(1, most):
        time.sleep(pause)
        if ran is not None:
            with ran.open("a") as file:
                file.write(f"{taken[0].number}\n")
        search.tell(taken[0], [distance(taken[0].typed)])


def settings(search: Search) -> list[tuple[list[str], list[float] | None]]:
    return [(trial.user_attrs[TYPED], trial.values) for trial in search.trials]


def in_child(work: Callable[[], None]) -> int:
    """Starts work in a process of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)  # as a killed process: nothing is given back or cleaned up


def test_the_status_of_a_search_counts_trials_and_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = opened(tmp_path)
    go_on(search, 3)
    failed, left = search.take(2, 5)
    search.tell(failed, None)
    best = min(search.trials[:3], key=lambda trial: trial.values[0])
    assert status.main([str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["states"] == {"COMPLETE": 3, "FAIL": 1, "RUNNING": 1}
    assert found["best"]["trial"] == best.number + 1 and found["best"]["typed"] == best.user_attrs[TYPED]
    assert status.main([str(tmp_path)]) == 0
    assert "3 done, 1 without figures" in capsys.readouterr().out
    search.give_back(left)


def test_it_finds_a_known_optimum(tmp_path: Path) -> None:
    search = opened(tmp_path)
    go_on(search, 60)
    best = best_trial(search.trials, TuningOptions())
    assert best is not None
    # A random trial is as near with probability pi * 0.1 / 16 = 0.02.
    assert best.values[0] < 0.1
    late = sorted(value[0] for _, value in settings(search)[40:] if value)
    early = sorted(value[0] for _, value in settings(search)[:10] if value)
    assert late[len(late) // 2] < early[len(early) // 2] / 3


@pytest.mark.parametrize("sampler", list(SamplerName))
def test_killed_and_continued_it_has_the_same_trials(tmp_path: Path, sampler: SamplerName) -> None:
    """FAULTS 30: a process that dies with a trial loses none, and the trials after it are what they would have been."""
    whole = opened(tmp_path / "whole", sampler)
    go_on(whole, 14)

    def die_in_the_middle() -> None:
        search = opened(tmp_path / "killed", sampler)
        go_on(search, 12)
        search.take(1, 14)

    os.waitpid(in_child(die_in_the_middle), 0)
    search = opened(tmp_path / "killed", sampler)
    assert [trial.state for trial in search.trials][12:] == [TrialState.RUNNING]
    go_on(search, 14)
    assert settings(search) == settings(whole)


def test_two_processes_share_it_without_a_doubled_trial(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    children = [in_child(lambda: go_on(opened(tmp_path / "s"), 12, pause=0.02, ran=ran)) for _ in range(2)]
    for child in children:
        os.waitpid(child, 0)
    numbers = [int(line) for line in ran.read_text().split()]
    assert sorted(numbers) == list(range(12))
    points = [typed for typed, _ in settings(opened(tmp_path / "s"))]
    assert len({tuple(point) for point in points}) == 12
    assert all(trial.state is TrialState.COMPLETE for trial in opened(tmp_path / "s").trials)


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    (held,) = one.take(1, 1)
    assert other.take(1, 1) == [] and other.others() == 1
    one.give_back(held)
    (taken,) = other.take(1, 1)
    assert (taken.number, taken.typed) == (held.number, held.typed)


def test_equal_settings_run_once(tmp_path: Path) -> None:
    search = opened(tmp_path, SamplerName.random, {"adversary": Choices(("none", "rfa"))})
    taken = search.take(8, 8)
    assert sorted(one.typed for one in taken) == [["adversary=none"], ["adversary=rfa"]]
    for one in taken:
        search.tell(one, [float(one.typed == ["adversary=rfa"])])
    assert search.take(8, 8) == [] and search.others() == 0
    assert all(value == [float(typed == ["adversary=rfa"])] for typed, value in settings(search))
    assert sum(SAME in trial.user_attrs for trial in search.trials) == 6


def test_a_failed_trial_counts_and_is_not_the_best(tmp_path: Path) -> None:
    search = opened(tmp_path)
    for number, value in enumerate(([0.5], None, [0.2])):
        (one,) = search.take(1, 3)
        assert one.number == number
        search.tell(one, value)
    assert search.take(1, 3) == []
    best = best_trial(search.trials, TuningOptions())
    assert best is not None and best.number == 2


def test_a_half_written_line_is_removed_and_damage_is_named(tmp_path: Path) -> None:
    """FAULTS 33."""
    search = opened(tmp_path)
    go_on(search, 3)
    before = settings(search)
    journal = tmp_path / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    assert settings(opened(tmp_path)) == before
    journal.write_bytes(b"no journal\n" + journal.read_bytes())
    with pytest.raises(IntegrityFault, match="journal.log is damaged"):
        opened(tmp_path)


def test_every_space_of_one_shape_has_the_same_sobol_points(tmp_path: Path) -> None:
    """The search on disk draws the points that are composed beforehand, and one in each eighth of every axis."""
    points = draw_points(SPACE, 3, 8)
    assert opened(tmp_path, SamplerName.qmc).draw_all(8) == points
    assert sorted(int(float(point[1].split("=")[1]) * 2) for point in points) == list(range(8))
    other: Space = {"lr": Range(1e-4, 1.0, log=True), "c": Range(0.0, 4.0)}
    for one, moved in zip(points, draw_points(other, 3, 8), strict=True):
        assert float(moved[0].split("=")[1]) == pytest.approx(10 * float(one[0].split("=")[1]), rel=1e-2)


def test_the_objective_in_closed_form() -> None:
    options = ObjectiveOptions(floor=0.9, penalty=10.0)
    assert objective_values(TrialRun(-0.3, 0.95), options) == pytest.approx([0.3])
    assert objective_values(TrialRun(0.2, 0.8), options) == pytest.approx([0.2 + 10 * 0.1])
    assert objective_values(TrialRun(None, 0.8), options) is None
    assert objective_values(TrialRun(0.2, None), options) is None
    pareto = ObjectiveOptions(goal=Goal.pareto)
    assert objective_values(TrialRun(-0.3, 0.75), pareto) == pytest.approx([0.3, 0.25])
    assert objective_values(TrialRun(0.1, 1.2), pareto) == pytest.approx([0.1, 0.0])


def test_the_front_and_the_trial_that_is_taken_from_it(tmp_path: Path) -> None:
    search = opened(tmp_path, SamplerName.random, goals=2)
    for knowledge, kept in ((0.1, 0.5), (0.4, 0.95), (0.5, 0.92), (0.8, 1.0)):
        (one,) = search.take(1, 4)
        values = objective_values(TrialRun(knowledge, kept), ObjectiveOptions(goal=Goal.pareto))
        search.tell(one, values, {"knowledge_left": knowledge, "utility_kept": kept})
    assert pareto_front(search.trials) == {0, 1, 3}
    best = best_trial(search.trials, TuningOptions(goal=Goal.pareto, floor=0.9))
    assert best is not None and best.number == 1
