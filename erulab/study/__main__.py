"""`python -m erulab.study FILE`: tunes every arm of a study with one budget, then runs and attacks the best trials.

A file with a section `figures` is a study of figures in place of one of methods.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from erulab.command import prepare_command
from erulab.config.messages import USER_ERRORS, exit_with_line
from erulab.errors import ConfigError, Interrupted, NumericFault
from erulab.faults import machine_faults_named
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job
from erulab.reporting import compare
from erulab.rundir import RunDir
from erulab.study import spec, work
from erulab.study.choose import Match
from erulab.study.figures_spec import FigureStudy
from erulab.study.spec import Study
from erulab.typed import to_plain


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
    try:
        with machine_faults_named():
            _run(options)
    except USER_ERRORS as error:
        return exit_with_line(error)
    except KeyboardInterrupt:  # while composing or waiting; a stopped run prints its own message
        return exit_with_line(Interrupted("stopped; type the same command to continue"))
    return 0


def _run(options: argparse.Namespace) -> None:
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
    of_figures = {"--only": options.only is not None, "--write": options.write}
    other = {"--tune-only": options.tune_only} if isinstance(study, FigureStudy) else of_figures
    for name in (name for name, typed in other.items() if typed):
        kind = "methods" if isinstance(study, FigureStudy) else "figures"
        raise ConfigError(f"{name} is for a study of {kind}, and {options.file} is none; leave it out")


def _run_study(study: Study, options: argparse.Namespace) -> None:
    # It loads Optuna, which `--help` need not wait for.
    from erulab.study.arm_search import tune_arm

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
            from erulab.study.attacker import attack_reported

            for one, job in zip(typed, jobs[number], strict=True):
                print(f"{' '.join(arm)}: attacking {job.rundir.path}", flush=True)
                attack_reported(study.attacker, one, study.tuning.seed, rundir.path / "attacker")
    rows = [
        {"arm": " ".join(arm), **tuned[number], "folders": [str(job.rundir.path) for job in jobs[number]]}
        for number, arm in enumerate(arms)
    ]
    reported = [job for own in jobs.values() for job in own]
    if not reported:
        raise NumericFault("no trial of any arm ended with a number; choose lower bounds in tuning.space")
    rundir.make()
    matched: dict[str, str] = {}
    if study.tuning.match is not Match.utility:
        from erulab.study.matched_table import matched_distances, matched_table

        for number, row in enumerate(rows):
            row["reported_moved"] = matched_distances(study.tuning.limit, jobs[number])
        table = matched_table(study.tuning.limit, rows)
        matched = {"text": table.render("text"), "md": "\n" + table.render("md")}
    # sweep.json names the runs, so that a study is compared in the same way as a sweep.
    named = [{"overrides": row["arm"].split(), "folder": folder} for row in rows for folder in row["folders"]]
    rundir.write_json(rundir.path / "sweep.json", {"key": key, "command": machine.typed_command(), "jobs": named})
    rundir.write_json(rundir.path / "study.json", {"study": to_plain(asdict(study)), "arms": rows})
    print(compare([rundir.path]), flush=True)
    rundir.write_text(rundir.report_md, compare([rundir.path], "md") + matched.get("md", ""))
    if matched:
        print(matched["text"], flush=True)
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
        from erulab.study.attacker_space import check_attacker

        check_attacker(study.attacker, typed)
    return reported.config.output


if __name__ == "__main__":
    prepare_command()
    sys.exit(main())
