"""`python -m tests.reliability`: the long trial; prints a line per case and a table at the end.

python -m tests.reliability --kills 50 --damages all --fuzz 1000 --engine zero2 --seed 1
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.reliability import damages, disks, fuzz, hostile, kills, ranks
from tests.reliability.trials import Trial, table, try_all

ENGINES = {"local": ("engine=local",), "zero2": ("engine=zero2", "engine.processes=2")}
PARTS = ("damages", "disks", "hostile", "fuzz", "kills", "ranks")


def main() -> int:
    """Tries what is asked for; returns 1 if something did not hold."""
    options = _options()
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    _import_all()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [part for part in PARTS if part in options.only]
    results = []
    shutil.rmtree(folder / "base", ignore_errors=True)  # of a command that was broken off
    base = damages.make_base(folder / "base") if {*wanted} - {"kills", "ranks"} else None
    for part in wanted:
        for result in try_all(list(_trials(part, base, options)), folder / "results.jsonl", options.jobs):
            results.append(result)
            when = "earlier" if result.earlier else f"{result.seconds} s"
            print(f"{result.kind}: {result.name}: {result.fault or 'held'} ({when})", flush=True)
    print(f"\n{table(results)}")
    return int(any(result.fault is not None for result in results))


def _trials(part: str, base: damages.Base | None, options: argparse.Namespace) -> Iterable[Trial]:
    if part == "kills":
        engine = ENGINES[options.engine]
        kills.prepare(options.kills, engine)
        return kills.trials(options.kills, options.seed, engine)
    if part == "ranks":
        return ranks.trials(options.ranks, options.seed)
    assert base is not None
    of_base: dict[str, Callable[[damages.Base], Iterable[Trial]]] = {
        "damages": lambda base: damages.trials(base, options.damages, options.seed),
        "disks": disks.trials,
        "hostile": hostile.trials,
        "fuzz": lambda base: fuzz.trials(base, options.fuzz, options.seed),
    }
    return of_base[part](base)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed one to three times")
    parser.add_argument("--damages", type=lambda text: None if text == "all" else int(text), default="all")
    parser.add_argument("--fuzz", type=int, default=1000, help="random inputs")
    parser.add_argument("--ranks", type=int, default=20, help="ranks that are stopped or killed")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="local", help="of the runs that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="trials at once")
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, help=f"of {','.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=Path("outputs/reliability"), help="keeps what was tried")
    options = parser.parse_args()
    if unknown := {*options.only} - {*PARTS}:
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return options


def _import_all() -> None:
    """Imports what commands import, so that copies of this process start at once."""
    import erulab.report
    import erulab.run
    import erulab.worker  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
