"""A study of methods: the same tuning for every arm, then the reported runs, and their comparison."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from erulab.errors import NumericFault
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job
from erulab.reporting import compare
from erulab.rundir import RunDir
from erulab.study import spec, work
from erulab.study.arm_search import tune_arm
from erulab.study.attacker import attack_reported
from erulab.study.attacker_space import check_attacker
from erulab.study.choose import Match
from erulab.study.matched_table import matched_distances, matched_table
from erulab.study.spec import Study
from erulab.typed import to_plain


def run_methods_study(study: Study, options: argparse.Namespace) -> None:
    """Tunes each arm, makes its reported runs with the best settings, and compares them.

    Raises:
        ErulabError: a run does not compose or was stopped, or no trial of any arm ended with a number.
    """
    arms = spec.list_arms(study)
    outputs = [_compose_first_runs(study, arm, options.overrides) for arm in arms]
    key = short_hash([asdict(study), options.overrides])
    rundir = RunDir(Path(outputs[0]) / "studies" / f"{options.file.stem}-{key}")
    searches = rundir.path / "tuning"
    numbered = list(enumerate(arms))[:: -1 if options.reverse else 1]
    tuned = {number: tune_arm(study, arm, options.overrides, searches) for number, arm in numbered}
    if options.tune_only:
        return
    jobs: dict[int, list[Job]] = {}
    for number, arm in numbered:
        jobs[number] = []
        if tuned[number]["best"] is None:
            print(f"{' '.join(arm)}: no trial ended with a number, so it has no reported runs", flush=True)
            continue
        common = [*arm, *study.common.split(), *study.report.common.split(), *tuned[number]["best"], *options.overrides]
        typed = [[*common, *one] for one in spec.expand_sweep(study.report.runs)]
        jobs[number] = [work.plan_run(one) for one in typed]
        for job in work.run_jobs(jobs[number]):
            print(f"{' '.join(arm)}: {job.rundir.path}", flush=True)
        if study.attacker is not None:
            for one, job in zip(typed, jobs[number], strict=True):
                print(f"{' '.join(arm)}: attacking {job.rundir.path}", flush=True)
                attack_reported(study.attacker, job, one, study.tuning.seed, rundir.path / "attacker")
    rows = [
        {"arm": " ".join(arm), **tuned[number], "folders": [str(job.rundir.path) for job in jobs[number]]}
        for number, arm in enumerate(arms)
    ]
    reported = [job for own in jobs.values() for job in own]
    if not reported:
        raise NumericFault("no trial of any arm ended with a number; choose lower bounds in tuning.space")
    rundir.make()
    matched = None
    if study.tuning.match is not Match.utility:
        for number, row in enumerate(rows):
            row["reported_moved"] = matched_distances(study.tuning.limit, jobs[number])
        matched = matched_table(study.tuning.limit, rows)
    # sweep.json names the runs, so that a study is compared in the same way as a sweep.
    named = [{"overrides": row["arm"].split(), "folder": folder} for row in rows for folder in row["folders"]]
    rundir.write_json(rundir.path / "sweep.json", {"key": key, "command": machine.typed_command(), "jobs": named})
    rundir.write_json(rundir.path / "study.json", {"study": to_plain(asdict(study)), "arms": rows})
    print(compare([rundir.path]), flush=True)
    if matched is not None:
        print(matched.render("text"), flush=True)
    more = "" if matched is None else "\n" + matched.render("md")
    rundir.write_text(rundir.report_md, compare([rundir.path], "md") + more)
    rundir.write_text(rundir.report_html, compare([rundir.path], "html", at=rundir.path))
    print(f"study folder: {rundir.path}")


def _compose_first_runs(study: Study, arm: list[str], more: list[str]) -> str:
    """Composes a trial and a reported run of an arm, so that a mistake in the last arm shows before the first run.

    Returns:
        The folder of its run folders.
    Raises:
        ConfigError and others of USER_ERRORS: a run does not compose.
    """
    common, tuning, report = study.common.split(), study.tuning, study.report
    point = spec.draw_trials(tuning, arm)[0]
    work.plan_run([*arm, *common, *tuning.common.split(), *point, *more, *spec.expand_sweep(tuning.rounds[0].runs)[0]])
    typed = [*arm, *common, *report.common.split(), *point, *more, *spec.expand_sweep(report.runs)[0]]
    reported = work.plan_run(typed)
    if study.attacker is not None:
        check_attacker(study.attacker, typed)
    return reported.config.output
