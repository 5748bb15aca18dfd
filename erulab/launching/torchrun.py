"""torchrun, which starts several ranks: its command line, its log, and the entry point of each rank.

torchrun returns 1 whatever the codes of the ranks were, so what happened is read from its log.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from erulab.command import STOP_SIGNALS
from erulab.launching.hosts import Failure, Meeting
from erulab.launching.pulse import start_pulse
from erulab.rundir import RunDir

STOP_SECONDS = 600  # how long a stopped run may take to write its checkpoint
MEET_SECONDS = 600  # how long hosts wait for one another at the start


def torchrun_command(processes: int, meeting: Meeting | None, worker: Sequence[str]) -> list[str]:
    """Returns the command that starts `processes` ranks on this host.

    Args:
        processes: number of ranks on this host.
        meeting: where this host meets the others; None for a run on one host.
        worker: the module that each rank runs, and its argument.
    """
    where = ["--standalone"]
    if meeting is not None:
        where = [
            "--nnodes",
            str(meeting.nodes),
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            meeting.endpoint,
            "--rdzv-id",
            meeting.key,
            # The host at the address may be the last to come: the others wait for it as long as it waits for them.
            "--rdzv-conf",
            f"join_timeout={MEET_SECONDS},read_timeout={MEET_SECONDS}",
        ]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *where,
        "--nproc-per-node",
        str(processes),
        "--signals-to-handle",
        ",".join(signal.name for signal in STOP_SIGNALS),
        "--shutdown-timeout",
        str(STOP_SECONDS),
        "-m",
        "erulab.launching.torchrun",
        *worker,
    ]


class TorchrunLog:
    """The log of torchrun on this host; each rank writes one line to it before it starts to write its own."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def ranks(self) -> dict[int, int]:
        """The ranks that have started on this host: local rank -> rank."""
        started = re.findall(r"erulab: rank (\d+) is local rank (\d+)", self._text)
        return {int(local): int(rank) for rank, local in started}

    @property
    def failing(self) -> bool:
        """Whether torchrun has seen a rank fail, and is stopping the others."""
        return "closing signal" in self._text and not self.stopped

    @property
    def failure(self) -> Failure | None:
        """The first rank that torchrun saw fail, None if there is none."""
        first = re.search(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", self._text)
        return Failure(self.ranks.get(int(first[2]), int(first[2])), int(first[1])) if first else None

    @property
    def stopped(self) -> bool:
        """Whether torchrun has received a signal, which it passes on to its ranks."""
        return re.search(r"Received \w+ death signal", self._text) is not None

    @property
    def _text(self) -> str:
        return self._file.read_text(errors="replace") if self._file.is_file() else ""


def _run_rank(module: str, folder: str) -> None:
    """Becomes one rank: names itself in torchrun's log, redirects its output to its own log and runs the worker."""
    rank = int(os.environ["RANK"])
    print(f"erulab: rank {rank} is local rank {os.environ['LOCAL_RANK']}", flush=True)
    log = os.open(RunDir(folder).rank_log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    start_pulse(RunDir(folder).beat(rank))
    sys.argv = [module, folder]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_rank(*sys.argv[1:])
