"""Writes a run's figures while it runs: to metrics.jsonl always, and to its tracker if it has one. Rank 0 only."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erulab.options import RunConfig
from erulab.rundir import RunDir
from erulab.tracking.mirror import Mirror
from erulab.tracking.services import mirror_of

if TYPE_CHECKING:
    from erulab.ranks import Ranks

STAGE = "unlearn"  # the stage whose steps metrics.jsonl holds


class Tracker:
    """Writes RUN_DIR/metrics.jsonl and mirrors it to a tracker; does nothing on ranks other than the first."""

    def __init__(self, rundir: RunDir, config: RunConfig, ranks: Ranks) -> None:
        self._rundir, self._first = rundir, ranks.first
        self._started = False
        self._request, self._first_step = "", 0
        self._mirror: Mirror | None = mirror_of(rundir, config) if self._first else None

    def begin(self, request: str, first_step: int) -> None:
        """Starts one of several requests: its steps are counted on from `first_step`, and its lines carry its name."""
        self._request, self._first_step, self._started = request, first_step, False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one unlearning step to metrics.jsonl.

        The first step of a process drops the lines from that step on, because a resumed run repeats the steps after its
        checkpoint.
        """
        if not self._first:
            return
        step += self._first_step
        if not self._started:
            self._write_lines(self._lines_before(step))
            self._started = True
        line = {"step": step, **{k: _finite_or_none(v) for k, v in values.items()}, "stage": STAGE, "time": time.time()}
        if self._request:
            line["request"] = self._request
        with self._rundir.metrics_jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._send({"step": step, **values})

    def log_stage(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Sends a step of learning target or oracle, as `<stage>/<name>`. metrics.jsonl leaves these out."""
        self._send({f"{stage}/{name}": value for name, value in {"step": step, **values}.items()})

    def resume(self, metrics: Path) -> list[str]:
        """Takes over the lines that an unfinished unlearning has written so far, possibly in another run folder.

        Args:
            metrics: the lines, kept beside the checkpoints.
        Returns:
            The lines taken over; empty if metrics.jsonl already had them.
        """
        if not self._first or not metrics.is_file():
            return []
        text = metrics.read_text(encoding="utf-8")
        found = [self._with_step_and_request(line, self._first_step, self._request) for line in text.splitlines()]
        known, last = self._read_lines(), max(map(_step_of, found), default=-1.0)
        later = [line for line in known if last < _step_of(line) < math.inf]
        lines = [*self._lines_before(self._first_step), *found, *later]
        if lines == known:
            return []
        self._write_lines(lines)
        return found

    def replay(self, metrics: Path) -> None:
        """Takes over the metrics.jsonl of an unlearning that was found in the cache, and sends its lines.

        A second run in this folder sends none, because the first one sent them; a tracker without this run gets all.
        """
        found = self.resume(metrics)
        if self._mirror is not None and self._mirror.fresh:
            found = self._lines_of_request()
        for line in found:
            self._send({name: value for name, value in json.loads(line).items() if isinstance(value, int | float)})

    def keep(self, metrics: Path) -> None:
        """Writes this request's lines so far beside its checkpoints, with steps from 0 and without its name."""
        if self._first and self._rundir.metrics_jsonl.is_file():
            moved = [self._with_step_and_request(line, -self._first_step, "") for line in self._lines_of_request()]
            metrics.write_text("".join(f"{line}\n" for line in moved), encoding="utf-8")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sends final figures to the tracker; nested names are joined by `/`."""
        if self._mirror is not None:
            self._mirror.summary(values)

    def finish(self, *, failed: bool = False) -> str | None:
        """Sends verdict, attacks, plots and page, and ends the tracked run.

        Prints and returns the command that uploads an offline run.

        Args:
            failed: whether the run did not come to its end.
        """
        line = self._mirror.finish(failed=failed) if self._mirror is not None else None
        if line is not None:
            print(f"to upload: {line}", flush=True)
        return line

    def _send(self, values: dict[str, Any]) -> None:
        if self._mirror is not None:
            self._mirror.log(values)

    def _read_lines(self) -> list[str]:
        file = self._rundir.metrics_jsonl
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def _lines_of_request(self) -> list[str]:
        """Returns the lines so far of the request that is being unlearned."""
        return [line for line in self._read_lines() if self._first_step <= _step_of(line) < math.inf]

    def _lines_before(self, step: int) -> list[str]:
        return [line for line in self._read_lines() if _step_of(line) < step]

    def _write_lines(self, lines: list[str]) -> None:
        self._rundir.write_text(self._rundir.metrics_jsonl, "".join(f"{line}\n" for line in lines))

    def _with_step_and_request(self, line: str, steps: int, request: str) -> str:
        """Returns the line with `steps` added to its step, and with the request's name; unchanged without requests."""
        if not self._request:
            return line
        row = json.loads(line)
        row = {name: value for name, value in row.items() if name != "request"} | {"step": row["step"] + steps}
        return json.dumps(row | ({"request": request} if request else {}), allow_nan=False)


def _step_of(line: str) -> float:
    """Returns the step of a line; infinity for a line that a crash cut short, which is dropped."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
