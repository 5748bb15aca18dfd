"""The tuning of one arm: an Optuna study of Sobol points, of which the best go on, round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job
from erulab.study import spec, work
from erulab.study.choose import Match, StudyRun, TrialMean, average_runs, best_trials
from erulab.study.matching import measure_run
from erulab.study.spec import Study, Tuning
from erulab.tuning.objective import read_trial_run
from erulab.tuning.options import SamplerName
from erulab.tuning.search import Search


def tune_arm(study: Study, arm: list[str], more: list[str], folder: Path) -> dict[str, Any]:
    """Runs the arm's trials; returns their figures and the overrides of the best, which are None if all diverged.

    The rounds are a successive halving with worlds as the resource. All trials of a round end before the best of them
    go on: with Optuna's own pruner, how many go on depends on the order in which they end, and budgets would differ.

    Args:
        arm: its overrides.
        more: overrides of every run.
        folder: where the searches of all arms are, which several processes share.
    """
    tuning = study.tuning
    search = Search(folder, search_name(arm), spec.search_space(tuning, arm), SamplerName.qmc, tuning.seed)
    points = search.draw_all(tuning.rounds[0].trials)
    seen: list[list[StudyRun]] = [[] for _ in points]
    alive = list(range(len(points)))
    for number, stage in enumerate(tuning.rounds):
        if number:
            kept = [alive[i] for i in best_trials([seen[i] for i in alive], tuning.limit, stage.trials)]
            for i in set(alive) - set(kept):
                search.finish(i, None, pruned=True)
            alive = kept
        common = [*arm, *study.common.split(), *tuning.common.split()]
        jobs = {
            i: [work.plan_run([*common, *points[i], *more, *one], "trial") for one in spec.expand_sweep(stage.runs)]
            for i in alive
        }
        # All jobs of the round at once: while another process works on one of them, this one works on the others.
        for job in work.run_jobs([job for own in jobs.values() for job in own]):
            print(f"{' '.join(arm)}: {job.rundir.path}", flush=True)
        for i, own in jobs.items():
            seen[i] += [_read_run(job, tuning) for job in own]
            now = average_runs(seen[i])
            figures = f"|knowledge left| {now.distance:.3f}, utility kept {now.kept:.3f}"
            if tuning.match is not Match.utility:
                figures += f", {tuning.match.words} {now.moved:.4g}"
            print(f"{' '.join(arm)} {' '.join(points[i])}: {figures}", flush=True)
            search.report(i, number, now.distance, _notes(now, seen[i]))
    for i in alive:
        reached = average_runs(seen[i]).distance
        search.finish(i, reached if math.isfinite(reached) else None)
    chosen = alive[best_trials([seen[i] for i in alive], tuning.limit, 1)[0]]
    made = average_runs(seen[chosen])
    return {
        "best": points[chosen] if math.isfinite(made.distance) else None,
        "distance": made.distance,
        "kept": made.kept,
        "moved": made.moved if math.isfinite(made.moved) else None,
        "trials": [
            {"overrides": point, "runs": [vars(run) for run in runs]} for point, runs in zip(points, seen, strict=True)
        ],
    }


def search_name(arm: Sequence[str]) -> str:
    """Returns the name of an arm's Optuna study: its method, and a hash of all its overrides."""
    methods = [override.partition("=")[2] for override in arm if override.startswith("method=")]
    return "-".join([*methods, short_hash(list(arm))])


def _read_run(job: Job, tuning: Tuning) -> StudyRun:
    """Reads the figures of a trial's run, and measures its model if arms are matched by distance."""
    run = read_trial_run(work.read_scores(job), tuning.utility, "tuning.utility")
    if tuning.match is Match.utility or run.knowledge is None:
        return StudyRun(run.knowledge, run.kept)
    return StudyRun(run.knowledge, run.kept, measure_run(job, tuning.match))


def _notes(now: TrialMean, runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Returns the attributes of a trial after a round."""
    kept, moved = (value if math.isfinite(value) else None for value in (now.kept, now.moved))
    return {"utility_kept": kept, "moved": moved, "runs": len(runs)}
