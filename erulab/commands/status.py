"""`python -m erulab status FOLDER`: how far a sweep, a run or a search is, when it may end, and what to type."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from erulab.commands.arguments import ended_with_line, new_parser
from erulab.commands.search_status import JOURNAL, search_lines, search_status
from erulab.commands.state import (
    State,
    holder_of,
    local_time,
    read_last_line,
    started_at,
    state_of,
    wanted_stages,
)
from erulab.errors import DataError, Interrupted
from erulab.redaction import redacted_text
from erulab.reporting import shapes
from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult, job_folder, load_figures
from erulab.reporting.numbers import duration
from erulab.reporting.read_results import ResultFiles, read_json
from erulab.reporting.shapes import list_of, record
from erulab.rundir import RunDir

NOT_RUN = "not run"
LOSSES = {"loss": "loss", "forget_loss": "forget", "retain_loss": "retain"}  # in metrics.jsonl, and in words
SWEEP = record(
    {
        "command": shapes.text,
        "jobs": list_of(
            # A study keeps no outcomes: those of the run folders count.
            record(
                {"folder": shapes.text, "overrides": list_of(shapes.text)},
                {"code": shapes.figure, "seconds": shapes.figure},
            )
        ),
    }
)
ORDER = (State.running, State.done, State.stopped, State.failed, State.lost, State.damaged)


@dataclass(frozen=True)
class JobStatus:
    """One run of a sweep.

    state: of its folder; None if it has not started.
    seconds: that it took in this sweep; None if it was finished before, or is not finished.
    started: its last start; None if it has not started.
    """

    overrides: tuple[str, ...]
    folder: Path
    state: State | None
    seconds: float | None
    started: datetime | None
    message: str = ""  # how it ended, or the stage that it is in


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the status; returns the exit code: 3 for a folder of none of these, 6 for a damaged one."""
    return ended_with_line(lambda: _show_status(arguments))


def _show_status(arguments: Sequence[str] | None) -> int:
    parser = new_parser("status", "Says how far a sweep, a run or a search is, when it may end, and how to go on.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a sweep, a run or a search")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    options = parser.parse_args(arguments)
    folder, now = options.folder, datetime.now(UTC)
    if (folder / "sweep.json").is_file():
        found = sweep_status(folder, now)
        lines = _sweep_lines(found)
    elif RunDir(folder).run_yaml.is_file():
        found = run_status(folder, now)
        lines = _run_lines(found)
    elif (folder / JOURNAL).is_file():
        found = search_status(folder)
        lines = search_lines(found)
    else:
        raise DataError(
            f"{folder} is no folder of a sweep, a run or a search: neither sweep.json nor run.yaml nor {JOURNAL} is in "
            "it; type erulab ls for the runs that there are"
        )
    text = json.dumps(found, indent=1) if options.json else "\n".join(visible(line) for line in lines)
    sys.stdout.write(f"{redacted_text(text)}\n")
    return 0


def sweep_status(folder: Path, now: datetime) -> dict[str, Any]:
    """Returns what `--json` prints of a sweep.

    Args:
        folder: the sweep folder.
        now: the time that running jobs are measured to.
    Raises:
        IntegrityFault: sweep.json is damaged.
    """
    sweep = read_json(folder / "sweep.json", SWEEP)
    jobs: dict[str, JobStatus] = {}
    for job in sweep["jobs"]:  # jobs that amount to the same run share a folder
        jobs.setdefault(job["folder"], _job_status(job, folder))
    found = list(jobs.values())
    counts = Counter(NOT_RUN if job.state is None else job.state.value for job in found)
    running = [job for job in found if job.state is State.running]
    began = [job.started for job in found if job.started and (job.seconds is not None or job in running)]
    left = seconds_left(found, now)
    common = set.intersection(*(set(job.overrides) for job in found)) if len(found) > 1 else set()
    return {
        "sweep": str(folder),
        "jobs": len(found),
        "states": {name: counts[name] for name in (*(state.value for state in ORDER), NOT_RUN) if counts[name]},
        "running": bool(running),
        "since": min(began).isoformat() if began else None,
        "seconds_left": left,
        "expected_end": (now + timedelta(seconds=left)).isoformat() if left and running else None,
        "unfinished": [
            {
                "overrides": list(job.overrides),
                "differs": [one for one in job.overrides if one not in common],
                "folder": str(job.folder),
                "state": NOT_RUN if job.state is None else job.state.value,
                "message": job.message,
            }
            for job in found
            if job.state is not State.done
        ],
        "command": sweep["command"],
    }


def seconds_left(jobs: Sequence[JobStatus], now: datetime) -> float | None:
    """Estimates the seconds until the last job ends, as if each took the mean of those that are finished.

    As many run at once as do now; one, if none does. None if no job of the sweep has finished in it.
    """
    taken = [job.seconds for job in jobs if job.state is State.done and job.seconds is not None]
    if not taken:
        return None
    mean = sum(taken) / len(taken)
    running = [job for job in jobs if job.state is State.running]
    elapsed = [(now - job.started).total_seconds() for job in running if job.started is not None]
    waiting = sum(job.state is not State.done for job in jobs) - len(running)
    # A job that has taken longer than the mean may end at any moment.
    work = waiting * mean + sum(max(mean - seconds, 0.0) for seconds in elapsed)
    return work / max(len(running), 1)


def run_status(folder: Path, now: datetime) -> dict[str, Any]:
    """Returns what `--json` prints of a run. Arguments as for `sweep_status`."""
    run = load_figures(folder)
    rundir = RunDir(folder)
    wanted, missing = wanted_stages(run), run.missing
    state, holder, started = state_of(run), holder_of(rundir), started_at(run)
    steps = ResultFiles().metrics(rundir.metrics_jsonl)
    last = steps[-1] if steps and state is not State.done else {}
    return {
        "run": str(folder),
        "state": state.value,
        "by": None if holder is None else holder.words,
        "since": started.isoformat(),
        "seconds": (now - started).total_seconds() if state is State.running else None,
        "stages": wanted,
        "stage": missing[0] if missing else None,
        "place": _stage_in_words(run) if missing else "",
        "steps": _steps_of(run) if last else None,
        "last_step": last.get("step"),
        "losses": {words: last[name] for name, words in LOSSES.items() if name in last},
        "last_line": "" if state is State.done else read_last_line(rundir.rank_log(0)),
        "code": run.ended.get("code"),
        "message": str(run.ended.get("message", "")),
        "damaged": list(run.damaged),
        "command": run.env.get("command"),
    }


def _job_status(job: dict[str, Any], sweep: Path) -> JobStatus:
    folder = job_folder(Path(job["folder"]), sweep)
    overrides, code, seconds = tuple(job["overrides"]), job.get("code"), job.get("seconds")
    of_code = None if code is None else State.stopped if code == Interrupted.code else State.failed
    if not RunDir(folder).run_yaml.is_file():  # a job that could not even start has a code, but no folder
        return JobStatus(overrides, folder, of_code, seconds, None)
    run = load_figures(folder)
    state = state_of(run)
    if state is State.lost and of_code is not None:  # it ended before its workers could say so
        state = of_code
    said = str(run.ended.get("message", ""))
    if state is State.running and run.missing:
        said = _stage_in_words(run)
    return JobStatus(overrides, folder, state, seconds, started_at(run), said)


def _stage_in_words(run: RunResult) -> str:
    """Returns where an unfinished run is: `stage 3 of 6: unlearn`."""
    wanted, stage = wanted_stages(run), run.missing[0]
    return f"stage {wanted.index(stage) + 1} of {len(wanted)}: {stage}"


def _steps_of(run: RunResult) -> int | None:
    """Returns the unlearning steps that the config names; None if they follow from the rows."""
    steps = (run.config.get("trainer") or {}).get("steps")
    return steps if isinstance(steps, int) else None


def _sweep_lines(found: dict[str, Any]) -> list[str]:
    parts = [f"{count} {state}" for state, count in found["states"].items() if state != State.done.value]
    done = found["states"].get(State.done.value, 0)
    lines = [", ".join([f"sweep {found['sweep']}: {done} of {found['jobs']} jobs done", *parts])]
    if found["since"] is not None:
        lines.append(f"since {_local(found['since'])}")
    if found["seconds_left"]:
        more = f"about {duration(found['seconds_left'])} more, if the others take as long as the finished jobs"
        end = f", until about {_local(found['expected_end'])}" if found["expected_end"] else ""
        lines.append(f"{more}{end}")
    for job in found["unfinished"]:
        why = f": {job['message']}" if job["message"] else ""
        lines.append(f"  {job['state']:<8} {' '.join(job['differs'])}{why}")
    if found["unfinished"] and not found["running"]:
        lines += ["to go on, type the same command; finished jobs are not repeated:", f"  {found['command']}"]
    return lines


def _run_lines(found: dict[str, Any]) -> list[str]:
    by = f" by {found['by']}" if found["by"] else ""
    lines = [f"run {found['run']}: {found['state']}{by}, started {_local(found['since'])}"]
    if found["seconds"] is not None:
        lines[0] += f", {duration(found['seconds'])} ago"
    if found["place"]:
        lines.append(found["place"])
    if found["last_step"] is not None:
        of = f" of {found['steps']}" if found["steps"] else ""
        losses = [f"{words} {value:.3f}" for words, value in found["losses"].items() if isinstance(value, int | float)]
        lines.append(f"unlearning step {found['last_step'] + 1}{of}{'  ' if losses else ''}{'  '.join(losses)}")
    if found["message"]:
        lines.append(f"ended with code {found['code']}: {found['message']}")
    elif found["last_line"]:
        lines.append(f"last line: {found['last_line']}")
    lines += found["damaged"]
    if found["state"] not in (State.running.value, State.done.value) and found["command"]:
        lines += ["to go on, type the same command:", f"  {found['command']}"]
    return lines


def _local(moment: str) -> str:
    return local_time(datetime.fromisoformat(moment))
