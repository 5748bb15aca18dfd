"""Files of the cache, of run folders and of checkpoints: one bit flipped, cut to half, emptied, deleted."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.commands import Ended, in_fork, typed
from tests.reliability.trials import Trial
from tests.reliability.world import METHODS, Outcome, litter, outcome, overrides
from tests.samples.damages import empty, flip_bit, halve

CACHE, CHECKPOINT, RUN = "cache", "checkpoint", "run"
# Made anew at every command, by the command itself; nothing of them is read again.
WRITTEN_ANEW = ("run.log", "rank0.log", "env.json", "exit.json", "report.md", "report.html", "plots", "README.md")
CHECKPOINTS = ("trainer.save_every=2",)
OTHER = METHODS["npo"]


def flip(file: Path, draws: random.Random) -> None:
    """Flips a random bit."""
    flip_bit(file, draws.random(), draws.randrange(8))


# What is done to a file: its name in the table of results -> (file, draws).
DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": flip,
    "halve": lambda file, _: halve(file),
    "empty": lambda file, _: empty(file),
    "delete": lambda file, _: file.unlink(),
}


@dataclass(frozen=True)
class Base:
    """A finished run and a run that was stopped at a checkpoint, which trials copy, and what both commands give."""

    folder: Path
    whole: Outcome
    other: Outcome  # of another method that starts from the same target


def make_base(folder: Path) -> Base:
    """Makes the runs that are damaged and those that results are compared with."""
    finished, stopped, other = (folder / name for name in ("finished", "stopped", "other"))
    _check(typed(overrides(finished, *CHECKPOINTS)))
    shutil.copytree(finished / ".cache", other / ".cache")
    _check(typed(overrides(other, *CHECKPOINTS, *OTHER)))
    _check_stopped(in_fork(lambda: _stop_at_step(4, overrides(stopped, *CHECKPOINTS)), 120))
    return Base(folder, outcome(finished), outcome(other))


def _stop_at_step(step: int, options: list[str]) -> int:
    """Runs a command whose worker is killed behind the checkpoint of this step of the unlearning."""
    from erulab.training.checkpoints import Checkpoints
    from tests.reliability.commands import _run

    save = Checkpoints.save

    def save_and_die(self: Checkpoints, at: int, *arguments: object) -> None:
        save(self, at, *arguments)  # type: ignore[arg-type]
        if at == step and "unlearned" in str(self._folder):
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = save_and_die  # type: ignore[assignment, method-assign]
    return _run(options)


def _check(ended: Ended) -> None:
    assert ended.code == 0, ended.said[-3000:]


def _check_stopped(ended: Ended) -> None:
    assert ended.code == 75, ended.said[-3000:]


def files(base: Base) -> dict[str, list[tuple[str, str]]]:
    """Returns for each kind of file those of the base: (folder, path in it)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in ("finished", "stopped"):
        root = base.folder / name
        for file in sorted(root.rglob("*")):
            path = file.relative_to(root)
            if not file.is_file() or file.suffix == ".lock" or file.name == "lock" or path.parts[-1] in WRITTEN_ANEW:
                continue
            if path.parts[0] != ".cache" and (name == "stopped" or "plots" in path.parts):
                continue
            if name == "stopped" and "checkpoints" not in path.parts:
                continue
            found.setdefault(_kind(path), []).append((name, str(path)))
    return found


def _kind(path: Path) -> str:
    """Returns the kind of a file: `unlearned/*/model/config.json`, `checkpoint/engine/weights`, `run/scores.json`."""
    text = re.sub(r"[0-9a-f]{16,32}", "*", str(path))
    if "/checkpoints/" in text:
        return f"{CHECKPOINT}/" + re.sub(r".*/checkpoints/(step-\d+/)?", "", text)
    if path.parts[0] == ".cache":
        return f"{CACHE}/" + text.removeprefix(".cache/")
    return f"{RUN}/" + "/".join(path.parts[2:])


def trials(base: Base, count: int | None, seed: int) -> Iterator[Trial]:
    """Yields a trial for each kind of file and damage, in random order.

    Args:
        count: how many; None: all.
    """
    draws = random.Random(seed)
    drawn = [(kind, draws.choice(of_kind), damage) for kind, of_kind in files(base).items() for damage in DAMAGES]
    draws.shuffle(drawn)
    for kind, (run, path), damage in drawn[:count]:

        def holds(folder: Path, run: str = run, path: str = path, damage: str = damage) -> str | None:
            return notice(base, folder, run, path, DAMAGES[damage], random.Random(f"{seed} {path}"))

        yield Trial(f"damages ({kind.partition('/')[0]})", f"{kind}: {damage}, seed {seed}", holds)


def notice(
    base: Base,
    folder: Path,
    run: str,
    path: str,
    damage: Callable[[Path, random.Random], None],
    draws: random.Random,
) -> str | None:
    """Damages one file, types the same command and one of another method, and compares what they give."""
    outputs = [folder / "same", folder / "other"]
    for output in outputs:
        shutil.copytree(base.folder / run, output)
        # RUN_DIR/model shares its inodes with the cache, as in the run that was copied.
        _link_model(output)
        damage(output / path, random.Random(draws.random()))
        if path.startswith(".cache"):  # a finished run would not read it
            for record in output.glob("*/*/finished.json"):
                record.unlink()
    if run == "stopped" or path.split("/")[0] != ".cache":
        outputs = outputs[:1]
    faults = []
    for output, more, wanted in zip(outputs, ((), OTHER), (base.whole, base.other), strict=False):
        before = _digest(output / path)
        ended = typed(overrides(output, *CHECKPOINTS, *more))
        fault = ended.fault or _judge(ended, output, path, more, wanted, before)
        if fault is not None:
            faults.append(f"{'another method' if more else 'the same command'}: {fault}")
    return "; ".join(faults) or None


def _judge(
    ended: Ended, output: Path, path: str, more: tuple[str, ...], wanted: Outcome, before: str | None
) -> str | None:
    # A product's key, which its files share, or the name of a file of the run.
    name = Path(path).parts[2] if path.startswith(".cache") else Path(path).name
    if ended.code == 6:
        named = name in ended.said or Path(path).name in ended.said
        return None if named else f"refused without its name: {ended.last_line}"
    if ended.code != 0:
        return f"exit {ended.code}: {ended.last_line}"
    if more:  # the finished run that the copy holds, beside the run of the other method
        for folder in output.glob("*/eru-*"):
            shutil.rmtree(folder)
    if (difference := outcome(output).difference(wanted)) is not None:
        return f"exit 0 with other results: {difference}"
    if left := litter(output):
        return f"litter: {left[0]}"
    # With equal results a file is either not read (and still damaged, for the next reader) or made again. Tables of
    # reference values are read while a model is unlearned only, which the other method's command does.
    unread = "checkpoints" in path or "references" in path
    if not more and path.startswith(".cache") and not unread and _digest(output / path) == before:
        said = any(name in line and "made again" in line for line in ended.said.splitlines())
        return None if said else "read or left as it is, without a word"
    return None


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _link_model(output: Path) -> None:
    for file in output.glob("*/*/model/*"):
        for original in output.glob(f".cache/unlearned/*/model/{file.name}"):
            if original.read_bytes() == file.read_bytes():
                file.unlink()
                os.link(original, file)
