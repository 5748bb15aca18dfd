"""Compares jobs of a sweep that share their imports with the same jobs in processes of their own: time and bits."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from erulab.config.compose import compose_config
from erulab.errors import ErulabError
from erulab.launching.job import Job, plan_job, run_job
from erulab.launching.prepared import PreparedWorkers, prepared_workers
from erulab.launching.processes import Start, start_process
from erulab.rundir import RunDir

# Figures that depend on the machine and on what else it does.
MACHINE = ("seconds", "time", "rows_per_second", "cost/seconds", "cost/peak_memory_gb")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--methods", default="ga,gd,npo,simnpo", help="of the jobs (ga,gd,npo,simnpo)")
    parser.add_argument("--seeds", type=int, default=3, help="jobs of each method (3)")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="overrides for every job, such as trainer.steps=3"
    )


def run(options: argparse.Namespace) -> None:
    """Runs every job in both ways, in turn, and prints the times; the first job of each way learns the target.

    Raises:
        ErulabError: a job failed, or gave other results in the other way.
    """
    typed = [
        [f"method={method}", f"seed={seed}", *options.overrides]
        for method, seed in itertools.product(options.methods.split(","), range(options.seeds))
    ]
    table = Table("job", "apart, s", "together, s")
    seconds: dict[str, list[float]] = {"apart": [], "together": []}
    trackers = [compose_config(typed[0]).tracker.name.value]
    with tempfile.TemporaryDirectory(prefix="erulab-bench-") as name, prepared_workers(trackers) as prepared:
        for number, overrides in enumerate(typed):
            outcomes = {}
            # In turn, so that what else the machine does meets both ways.
            for way in ("apart", "together") if number % 2 else ("together", "apart"):
                outcomes[way], spent = _timed(overrides, Path(name) / way, _start_of(way, prepared))
                seconds[way].append(spent)
            if outcomes["apart"] != outcomes["together"]:
                raise ErulabError(f"{' '.join(overrides)}: the two ways give different results")
            table.add_row(" ".join(overrides[:2]), *(f"{seconds[way][-1]:.1f}" for way in seconds))
    totals = {way: sum(spent) for way, spent in seconds.items()}
    table.add_row("all", *(f"{total:.1f}" for total in totals.values()))
    Console().print(table)
    rest = sum(seconds["apart"][1:]) / sum(seconds["together"][1:])
    print(
        f"{len(typed)} jobs together are {totals['apart'] / totals['together']:.2f} times as fast as apart, "
        f"{rest:.2f} times without the first job; same figures and weights"
    )


def _start_of(way: str, prepared: PreparedWorkers) -> Start:
    return prepared.start if way == "together" else start_process


def _timed(overrides: Sequence[str], output: Path, start: Start) -> tuple[dict[str, Any], float]:
    """Runs a job; returns what it gave, and the seconds from its start to its end."""
    job = plan_job(compose_config([*overrides, f"output={output}"]))
    said = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(said):
        ended = run_job(job, start)
    spent = time.perf_counter() - began
    if ended.code:
        raise ErulabError(f"{' '.join(overrides)}: {ended.message}")
    return _outcome(job), spent


def _outcome(job: Job) -> dict[str, Any]:
    """Returns the figures of a run without those of the machine, and a hash of its weights."""
    rundir: RunDir = job.rundir
    figures = [file for file in (rundir.scores_json, rundir.attacks_json) if file.is_file()]
    parts = {file.name: _without_machine(json.loads(file.read_text())) for file in figures}
    weights = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in rundir.model.glob("*.safetensors")}
    return {**parts, **weights}


def _without_machine(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_machine(part) for key, part in value.items() if key not in MACHINE}
    return [_without_machine(part) for part in value] if isinstance(value, list) else value
