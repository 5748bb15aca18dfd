"""A trial: something that is broken on purpose, and what must hold; results are kept as JSON lines."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.reliability.commands import ROOT, in_fork

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
    """How a trial ended. `fault` is None if all held; `earlier` if a command before this one tried it."""

    kind: str
    name: str
    fault: str | None
    seconds: float
    earlier: bool = False


def try_all(trials: Sequence[Trial], kept: Path | None = None, jobs: int = 1) -> Iterator[Result]:
    """Tries all, in `jobs` processes at once, and yields each result when it is there.

    Args:
        trials: those that `kept` already holds of this code are not tried again.
        kept: a file of JSON lines, to which results are added; None: none are kept.
        jobs: number of trials at once.
    """
    code = _code() if kept is not None else ""
    done = {(r.kind, r.name): r for r in _read(kept, code)}
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
                    file.write(json.dumps({"code": code, **asdict(result)}) + "\n")
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


def _code() -> str:
    """Returns the commit and a hash of what differs from it, with modules and settings that git does not know."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout

    changes = hashlib.sha256(git("diff", "--binary", "HEAD"))
    for name in git("ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml").split(b"\0")[:-1]:
        changes.update(name + b"\0" + (ROOT / name.decode()).read_bytes())
    return f"{git('rev-parse', 'HEAD').decode().strip()} {changes.hexdigest()[:16]}"


def _read(kept: Path | None, code: str) -> list[Result]:
    """Returns the results of this code that a file keeps."""
    if kept is None or not kept.is_file():
        return []
    lines = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    return [Result(**{**line, "earlier": True}) for line in lines if line.pop("code", None) == code]
