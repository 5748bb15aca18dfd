"""A trial: something that is broken on purpose, and what must hold; results are kept as JSON lines."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.reliability.commands import in_fork

ANSWER = "answer: "  # begins the line by which a trial's process says what did not hold
LIMIT = 1800.0  # seconds after which a trial counts as hung


@dataclass(frozen=True)
class Trial:
    """One trial: its name is unique, and says with the seed all there is to do."""

    kind: str  # the table's row
    name: str
    # Tries it in the empty folder that it is given; returns what did not hold, None if all did.
    holds: Callable[[Path], str | None]


@dataclass(frozen=True)
class Result:
    """How a trial ended. `fault` is None if all held."""

    kind: str
    name: str
    fault: str | None
    seconds: float


def try_all(trials: Sequence[Trial], kept: Path | None = None, jobs: int = 1) -> Iterator[Result]:
    """Tries all, in `jobs` processes at once, and yields each result when it is there.

    Args:
        trials: those that `kept` already holds are not tried again.
        kept: a file of JSON lines, to which results are added; None: none are kept.
        jobs: number of trials at once.
    """
    done = {(r.kind, r.name): r for r in _read(kept)}
    left = []
    for trial in trials:
        if (known := done.get((trial.kind, trial.name))) is not None:
            yield known
        else:
            left.append(trial)
    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(try_one, trial) for trial in left]):
            result = future.result()
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
            yield result


def try_one(trial: Trial) -> Result:
    """Tries one in a copy of this process and in a folder of its own, which is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="reliability-"))
    started = time.monotonic()

    def call() -> int:
        try:
            fault = trial.holds(folder)
        except Exception as error:
            traceback.print_exc()
            fault = f"the trial itself failed: {type(error).__name__}: {error}"
        print(f"\n{ANSWER}{json.dumps(fault)}", flush=True)
        return 0

    try:
        ended = in_fork(call, LIMIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    answers = [line for line in ended.said.splitlines() if line.startswith(ANSWER)]
    fault = json.loads(answers[-1].removeprefix(ANSWER)) if answers else ended.fault or "gave no answer"
    return Result(trial.kind, trial.name, fault, round(time.monotonic() - started, 1))


def table(results: Iterable[Result]) -> str:
    """Returns a Markdown table: what was tried, how often, how often all held."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.kind, []).append(result)
    lines = ["| what | tried | held |", "| --- | --- | --- |"]
    for kind, of_kind in sorted(rows.items()):
        lines.append(f"| {kind} | {len(of_kind)} | {sum(result.fault is None for result in of_kind)} |")
    return "\n".join(lines)


def _read(kept: Path | None) -> list[Result]:
    if kept is None or not kept.is_file():
        return []
    return [Result(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]
