"""`python -m erulab.study FILE`: tunes every arm of a study with one budget, then runs and attacks the best trials.

A file with a section `figures` is a study of figures in place of one of methods.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erulab.command import prepare_command
from erulab.errors import ConfigError, Interrupted, NumericFault

# The help answers at once, so whatever loads Hydra, scipy or torch is imported where it is used.
if TYPE_CHECKING:
    from erulab.launching.job import Job
    from erulab.study.choose import TrialRun
    from erulab.study.figures_spec import FigureStudy
    from erulab.study.spec import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a study, or continues it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.study",
        description="Compares methods after the same tuning.",
        epilog="The same command continues a stopped study. Typed in several terminals, it shares the runs among them.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="such as launch/studies/embedded.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every run, such as output=FOLDER"
    )
    parser.add_argument("--reverse", action="store_true", help="begin with the last arm or run, in a second terminal")
    parser.add_argument("--tune-only", action="store_true", help="stop before the reported runs")
    parser.add_argument("--only", metavar="SETTING", help="study of figures: one of its settings")
    parser.add_argument("--write", action="store_true", help="study of figures: marks in reports follow its result")
    options = parser.parse_intermixed_args(arguments)
    from erulab.config.messages import USER_ERRORS, exit_with_line
    from erulab.faults import machine_faults_named

    try:
        with machine_faults_named():
            _run(options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    except KeyboardInterrupt:  # while composing or waiting; a stopped run prints its own message
        return exit_with_line(Interrupted("stopped; type the same command to continue"))
    return 0


def _run(options: argparse.Namespace) -> None:
    from erulab.study import spec
    from erulab.study.figures_spec import FigureStudy

    study = spec.read_study(options.file)
    _check_options(study, options)
    if isinstance(study, FigureStudy):
        # It loads torch, which a study of methods needs only once its first run starts.
        from erulab.study.figures_study import run_figure_study

        run_figure_study(study, options)
    else:
        _run_study(study, options)


def _check_options(study: Study | FigureStudy, options: argparse.Namespace) -> None:
    """Refuses options of the other kind of study.

    Raises:
        ConfigError: one was typed.
    """
    from erulab.study.figures_spec import FigureStudy

    of_figures = {"--only": options.only is not None, "--write": options.write}
    other = {"--tune-only": options.tune_only} if isinstance(study, FigureStudy) else of_figures
    for name in (name for name, typed in other.items() if typed):
        kind = "methods" if isinstance(study, FigureStudy) else "figures"
        raise ConfigError(f"{name} is for a study of {kind}, and {options.file} is none; leave it out")


def _run_study(study: Study, options: argparse.Namespace) -> None:
    from erulab.launching import machine
    from erulab.launching.folder_key import short_hash
    from erulab.reporting import compare
    from erulab.rundir import RunDir
    from erulab.study import spec, work

    arms = spec.list_arms(study)
    for arm in arms:
        _compose_first_runs(study, arm, options.overrides)
    numbered = list(enumerate(arms))[:: -1 if options.reverse else 1]
    tuned = {number: _tune_arm(study, arm, options.overrides) for number, arm in numbered}
    if options.tune_only:
        return
    jobs: dict[int, list[Job]] = {}
    for number, arm in numbered:
        jobs[number] = []
        if tuned[number]["best"] is None:
            print(f"{' '.join(arm)}: no trial ended with a number, so it has no reported runs", flush=True)
            continue
        common = [*arm, *study.common.split(), *study.report.common.split(), *tuned[number]["best"], *options.overrides]
        jobs[number] = [work.plan_run([*common, *one]) for one in spec.expand_sweep(study.report.runs)]
        for job in work.run_jobs(jobs[number]):
            print(f"{' '.join(arm)}: {job.rundir.path}", flush=True)
    rows = [
        {"arm": " ".join(arm), **tuned[number], "folders": [str(job.rundir.path) for job in jobs[number]]}
        for number, arm in enumerate(arms)
    ]
    reported = [job for own in jobs.values() for job in own]
    if not reported:
        raise NumericFault("no trial of any arm ended with a number; choose lower bounds in tuning.space")
    key = short_hash([asdict(study), options.overrides])
    rundir = RunDir(Path(reported[0].config.output) / "studies" / f"{options.file.stem}-{key}")
    rundir.make()
    # sweep.json names the runs, so that a study is compared in the same way as a sweep.
    named = [{"overrides": row["arm"].split(), "folder": folder} for row in rows for folder in row["folders"]]
    rundir.write_json(rundir.path / "sweep.json", {"key": key, "command": machine.typed_command(), "jobs": named})
    rundir.write_json(rundir.path / "study.json", {"study": asdict(study), "arms": rows})
    print(compare([rundir.path]), flush=True)
    rundir.write_text(rundir.report_md, compare([rundir.path], "md"))
    rundir.write_text(rundir.report_html, compare([rundir.path], "html"))
    print(f"study folder: {rundir.path}")


def _compose_first_runs(study: Study, arm: list[str], more: list[str]) -> None:
    """Composes a trial and a reported run of an arm, so that a mistake in the last arm shows before the first run.

    Raises:
        ConfigError and others of USER_ERRORS: a run does not compose.
    """
    from erulab.study import spec, work

    common, tuning, report = study.common.split(), study.tuning, study.report
    point = spec.draw_trials(tuning, arm)[0]
    work.plan_run([*arm, *common, *tuning.common.split(), *point, *more, *spec.expand_sweep(tuning.rounds[0].runs)[0]])
    work.plan_run([*arm, *common, *report.common.split(), *point, *more, *spec.expand_sweep(report.runs)[0]])


def _tune_arm(study: Study, arm: list[str], more: list[str]) -> dict[str, Any]:
    """Runs the arm's trials; returns their figures and the overrides of the best, which are None if all diverged."""
    from erulab.study import spec, work
    from erulab.study.choose import average_runs, best_trials, read_trial_run

    tuning = study.tuning
    points = spec.draw_trials(tuning, arm)
    seen: list[list[TrialRun]] = [[] for _ in points]
    alive = list(range(len(points)))
    for stage in tuning.rounds:
        alive = (
            [alive[i] for i in best_trials([seen[i] for i in alive], tuning.kept, stage.trials)] if seen[0] else alive
        )
        common = [*arm, *study.common.split(), *tuning.common.split()]
        jobs = {
            i: [work.plan_run([*common, *points[i], *more, *one], "trial") for one in spec.expand_sweep(stage.runs)]
            for i in alive
        }
        # All jobs of the round at once: while another process works on one of them, this one works on the others.
        for job in work.run_jobs([job for own in jobs.values() for job in own]):
            print(f"{' '.join(arm)}: {job.rundir.path}", flush=True)
        for i, own in jobs.items():
            seen[i] += [read_trial_run(work.read_scores(job), tuning.utility) for job in own]
            now = average_runs(seen[i])
            figures = f"|knowledge left| {now.distance:.3f}, utility kept {now.kept:.3f}"
            print(f"{' '.join(arm)} {' '.join(points[i])}: {figures}", flush=True)
    chosen = alive[best_trials([seen[i] for i in alive], tuning.kept, 1)[0]]
    made = average_runs(seen[chosen])
    return {
        "best": points[chosen] if math.isfinite(made.distance) else None,
        "distance": made.distance,
        "kept": made.kept,
        "trials": [
            {"overrides": point, "runs": [vars(run) for run in runs]} for point, runs in zip(points, seen, strict=True)
        ],
    }


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
