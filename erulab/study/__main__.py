"""`python -m erulab.study FILE`: every arm of a study tuned with one budget, then run and attacked."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.config.messages import USER_ERRORS, exit_with_line
from erulab.errors import Interrupted, NumericFault
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job
from erulab.reporting import compare
from erulab.rundir import RunDir
from erulab.study import spec, work
from erulab.study.choose import Tried, best, standing, tried
from erulab.study.spec import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a study to its end, or as far as it was not before; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erulab.study",
        description="Compares methods after the same tuning.",
        epilog="The same command goes on where it stopped; typed in several terminals, they share the runs.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="such as launch/studies/embedded.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run, such as output=FOLDER")
    parser.add_argument("--reverse", action="store_true", help="the last arm first: for a second terminal")
    parser.add_argument("--tune-only", action="store_true", help="stop before the runs that are reported")
    options = parser.parse_args(arguments)
    try:
        _run(spec.read(options.file), options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    except KeyboardInterrupt:  # while it composes or waits; a run that is stopped says so itself
        return exit_with_line(Interrupted("stopped; type the same command to go on"))
    return 0


def _run(study: Study, options: argparse.Namespace) -> None:
    arms = spec.arms(study)
    for arm in arms:
        _check(study, arm, options.overrides)
    numbered = list(enumerate(arms))[:: -1 if options.reverse else 1]
    tuned = {number: _tune(study, arm, options.overrides) for number, arm in numbered}
    if options.tune_only:
        return
    jobs: dict[int, list[Job]] = {}
    for number, arm in numbered:
        jobs[number] = []
        if tuned[number]["best"] is None:
            print(f"{' '.join(arm)}: no trial ended with a number, so there is none to report", flush=True)
            continue
        common = [*arm, *study.common.split(), *study.report.common.split(), *tuned[number]["best"], *options.overrides]
        jobs[number] = [work.plan([*common, *one]) for one in spec.each(study.report.runs)]
        for job in work.run(jobs[number]):
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
    # The runs of a study are compared as those of a sweep are: sweep.json names them.
    named = [{"overrides": row["arm"].split(), "folder": folder} for row in rows for folder in row["folders"]]
    rundir.write_json(rundir.path / "sweep.json", {"key": key, "command": machine.typed_command(), "jobs": named})
    rundir.write_json(rundir.path / "study.json", {"study": asdict(study), "arms": rows})
    print(compare([rundir.path]), flush=True)
    rundir.write_text(rundir.report_md, compare([rundir.path], "md"))
    rundir.write_text(rundir.report_html, compare([rundir.path], "html"))
    print(f"study folder: {rundir.path}")


def _check(study: Study, arm: list[str], more: list[str]) -> None:
    """Composes a trial and a reported run of an arm: a mistake in the last arm must not show after hours.

    Raises:
        ConfigError and others of USER_ERRORS: one does not compose.
    """
    common, tuning, report = study.common.split(), study.tuning, study.report
    point = spec.trials(tuning)[0]
    work.plan([*arm, *common, *tuning.common.split(), *point, *more, *spec.each(tuning.rounds[0].runs)[0]])
    work.plan([*arm, *common, *report.common.split(), *point, *more, *spec.each(report.runs)[0]])


def _tune(study: Study, arm: list[str], more: list[str]) -> dict[str, Any]:
    """The arm's trials with what became of them, and the overrides of the best; None where every trial diverged."""
    tuning = study.tuning
    points = spec.trials(tuning)
    seen: list[list[Tried]] = [[] for _ in points]
    alive = list(range(len(points)))
    for stage in tuning.rounds:
        alive = [alive[i] for i in best([seen[i] for i in alive], tuning.kept, stage.trials)] if seen[0] else alive
        common = [*arm, *study.common.split(), *tuning.common.split()]
        jobs = {
            i: [work.plan([*common, *points[i], *more, *one], "trial") for one in spec.each(stage.runs)] for i in alive
        }
        # All of the round at once: where another process has one of them, there are others to go on with.
        for job in work.run([job for own in jobs.values() for job in own]):
            print(f"{' '.join(arm)}: {job.rundir.path}", flush=True)
        for i, own in jobs.items():
            seen[i] += [tried(work.scores(job), tuning.utility) for job in own]
            now = standing(seen[i])
            print(f"{' '.join(arm)} {' '.join(points[i])}: |K| {now.distance:.3f}, kept {now.kept:.3f}", flush=True)
    chosen = alive[best([seen[i] for i in alive], tuning.kept, 1)[0]]
    made = standing(seen[chosen])
    return {
        "best": points[chosen] if math.isfinite(made.distance) else None,
        "distance": made.distance,
        "kept": made.kept,
        "trials": [
            {"overrides": point, "runs": [vars(run) for run in runs]} for point, runs in zip(points, seen, strict=True)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
