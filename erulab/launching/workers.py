"""Starts this host's worker processes of a run, follows them, and says how the run ended."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from erulab.errors import EnvironmentFault
from erulab.launching import machine, torchrun
from erulab.launching.hosts import Failure, Host, Note
from erulab.launching.machine import GPU
from erulab.launching.processes import Child, passing_on
from erulab.options import EngineName, EngineOptions, Offload, Precision, RunConfig
from erulab.rundir import RunDir

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # from outside; others are crashes
POLL_SECONDS = 0.05
LAST_LINES = 15
# How long ranks may live on after one of them has died, on whichever host (torchrun sees to the most of it); torchrun
# itself a little longer, since it then says who failed first.
SURVIVE_SECONDS = 20
LAST_WORD_SECONDS = 5
STOPPED = 75
AGAIN = "the same command continues from the last checkpoint"


@dataclass(frozen=True)
class Ended:
    """How the run ended; `stopped`: a signal came, to any host; `here`: rank 0 was on this host, its output shown."""

    code: int
    message: str
    rank: int = 0
    stopped: bool = False
    here: bool = True


def choose_engine(engine: EngineOptions, gpus: int) -> EngineOptions:
    """`auto` and null made definite: one process, or one a GPU; zero2 where there are several, or several hosts."""
    alone = engine.name is EngineName.local or (engine.name is EngineName.auto and gpus < 2 and engine.nodes == 1)
    processes = engine.processes or (1 if alone else max(gpus, 1))
    name = engine.name
    if name is EngineName.auto:
        name = EngineName.zero2 if processes * engine.nodes > 1 else EngineName.local
    return dataclasses.replace(engine, name=name, processes=processes)


def check_machine(config: RunConfig, gpus: list[GPU]) -> None:
    """What can be known to be missing before a worker starts. `config.engine` is definite.

    Raises:
        EnvironmentFault: naming the setting to use.
    """
    engine = config.engine
    processes = engine.processes or 1
    if gpus and processes > len(gpus):
        raise EnvironmentFault(
            f"engine.processes={processes}, but this machine offers {len(gpus)} GPU{'s' * (len(gpus) > 1)}; "
            f"try engine.processes={len(gpus)}, or CUDA_VISIBLE_DEVICES= to run on the CPU"
        )
    old = next((gpu for gpu in gpus if gpu.capability is not None and gpu.capability < 8), None)
    if config.trainer.precision is Precision.bf16 and old is not None:
        raise EnvironmentFault(f"trainer.precision=bf16, which {old.name} cannot do; try trainer.precision=fp32")
    if engine.name is EngineName.local:
        return
    instead = "try engine=local, which needs no DeepSpeed"
    if importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentFault(f"engine={engine.name.name} needs DeepSpeed: pip install deepspeed, or {instead}")
    # On CPUs DeepSpeed compiles its communication when it starts.
    compilers = [name for name in (os.environ.get("CXX", "c++"), "g++", "clang++") if shutil.which(name)]
    ninja = shutil.which("ninja") is not None or importlib.util.find_spec("ninja") is not None
    if not gpus and not (compilers and ninja):
        missing = "a C++ compiler (apt install g++)" if not compilers else "ninja (pip install ninja)"
        raise EnvironmentFault(f"engine={engine.name.name} on CPUs needs {missing}; install it, or {instead}")
    if engine.offload is Offload.nvme:
        _check_nvme(engine, compilers)


def _check_nvme(engine: EngineOptions, compilers: list[str]) -> None:
    """Looks for what DeepSpeed's operator for disks is compiled from, as DeepSpeed does: by linking a program."""
    instead = "try engine.offload=cpu"
    flags = [shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS")]
    linked = (
        compilers
        and subprocess.run(
            [compilers[0], "-x", "c", "-", *flags[0], "-o", os.devnull, *flags[1], "-laio"],
            input="#include <libaio.h>\nint main(void) { return io_submit(0, 0, 0); }\n",
            text=True,
            capture_output=True,
        ).returncode
        == 0
    )
    if not linked:
        raise EnvironmentFault(
            "engine.offload=nvme needs libaio and its header, and a program with them does not compile here; install "
            f"them (apt install libaio-dev), or {instead}"
        )
    if engine.nvme_path is None or not os.access(engine.nvme_path, os.W_OK) or not Path(engine.nvme_path).is_dir():
        raise EnvironmentFault(f"engine.nvme_path={engine.nvme_path} is no folder to write to; make it, or {instead}")


def run(rundir: RunDir, processes: int, module: str, *, gpus: int = 0, host: Host | None = None) -> Ended:
    """Runs `python -m <module> RUN_DIR` in `processes` ranks of this host to the end, showing what rank 0 prints.

    Args:
        gpus: how many there are; without one DeepSpeed is told to use CPUs.
        host: this host's place beside others; None where it is the only one. Its lock is inherited by workers, so that
            the folder stays in use while one of them lives.
    Returns:
        The code of exit.json, which the first host also writes where the workers could not: the same on all hosts. 75
        for a rank that was killed.
    """
    host = host or Host(rundir)
    if host.first:
        rundir.clear()
    host.tell(Note())
    alone = processes * host.nodes == 1
    launcher = rundir.launcher_log(host.seat)
    children: list[Child] = []
    with passing_on(children) as signals:
        child = Child(
            [sys.executable, "-u", "-m", module, str(rundir.path)]
            if alone
            else torchrun.command(processes, host.meeting, [module, str(rundir.path)]),
            rundir.rank_log(0) if alone else launcher,
            _environment(processes, gpus),
            host.inherited,
        )
        children.append(child)
        for number in signals:  # that came before there was anybody to pass it on to
            child.tell(number)
        console, log = _Console(rundir.rank_log(0), here=alone), torchrun.Log(launcher)
        code, told = _follow(child, host, log, signals, console)
        # Still under the handlers: a signal that comes while the hosts agree must not leave the others without an end.
        ended = _agreed(rundir, host, told, log, code)
    return dataclasses.replace(ended, stopped=bool(signals) or host.stopped_elsewhere, here=console.here)


def last_lines(rundir: RunDir, rank: int) -> str:
    """The end of a rank's log, as shown when it crashed."""
    file = rundir.rank_log(rank)
    lines = _plain(file).splitlines() if file.is_file() else []
    return "\n".join(lines[-LAST_LINES:])


def _follow(child: Child, host: Host, log: torchrun.Log, signals: list[int], console: _Console) -> tuple[int, Note]:
    """Until `child` has ended and nothing of it is left: its return code, and what this host tells the others."""
    failed_at: float | None = None
    elsewhere = False  # whether another host was the first to fail; then what ends here ends by that
    while (code := child.poll()) is None:
        console.show(log)
        others = host.others()
        if any(note.signals for note in others):
            child.tell(signal.SIGTERM)
        if any(note.signals > 1 for note in others):
            child.kill()
        if failed_at is None and not signals and not any(note.signals for note in others):
            elsewhere = any(note.failing for note in others)
            if elsewhere or log.failing:
                failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > SURVIVE_SECONDS:
            child.kill_descendants()
        if failed_at is not None and time.monotonic() - failed_at > SURVIVE_SECONDS + LAST_WORD_SECONDS:
            child.kill()
        host.tell(Note(len(signals), failing=failed_at is not None))
        time.sleep(POLL_SECONDS)
    child.kill()
    console.show(log, final=True)
    failure = None
    if code and not elsewhere:
        failure = Failure(0, code) if host.nodes == 1 and not log.ranks else log.failure
    return code, Note(len(signals), failing=bool(code), ended=True, failure=failure)


def _agreed(rundir: RunDir, host: Host, told: Note, log: torchrun.Log, code: int) -> Ended:
    """How the run ended, on all hosts: the first host says so, in exit.json."""
    stopped = told.signals or host.stopped_elsewhere
    limit = torchrun.STOP_SECONDS if stopped else SURVIVE_SECONDS + 2 * LAST_WORD_SECONDS
    if not host.first:
        host.tell(told)
        host.wait_for_verdict(limit)
        if rundir.exit_json.is_file():
            return Ended(**rundir.read_json(rundir.exit_json))
        return Ended(STOPPED, f"the first host was lost; {AGAIN}")
    host.tell(dataclasses.replace(told, ended=False))  # others wait for the verdict
    notes = [told, *host.wait_for_others(limit)]
    if host.meeting is not None and code and not log.ranks and not any(note.signals for note in notes):
        ended = Ended(
            EnvironmentFault.code,
            f"not all {host.nodes} hosts met at {host.meeting.endpoint}; type the same command on each within "
            f"{torchrun.MEET_SECONDS // 60} minutes, with an address that all can reach ({rundir.launcher_log()} says "
            "more)",
        )
    else:
        ended = _ended(rundir, code, notes)
    rundir.write_json(rundir.exit_json, {"code": ended.code, "message": ended.message, "rank": ended.rank})
    for rank_log in rundir.path.glob("rank*.log"):
        rundir.write_text(rank_log, _plain(rank_log))
    if ended.code == 0:
        for seat in range(host.nodes):
            rundir.launcher_log(seat).unlink(missing_ok=True)
    host.leave()
    return ended


def _ended(rundir: RunDir, code: int, notes: list[Note]) -> Ended:
    signals = max(note.signals for note in notes)
    if signals > 1:
        return Ended(STOPPED, f"killed by a second signal; {AGAIN}")
    failures = [note.failure for note in notes if note.failure is not None]
    # A host whose rank was killed and one whose ranks failed by that may both believe to be the first.
    failure = min(failures, key=lambda failure: -failure.code not in KILLS, default=Failure(0, code))
    # Looked at before exit.json: the ranks that a killed one leaves behind fail too, and say so.
    if failures and -failure.code in KILLS:
        cause = ", by the system if memory ran out" if -failure.code == signal.SIGKILL else ""
        return Ended(STOPPED, f"rank {failure.rank} was killed by signal {-failure.code}{cause}; {AGAIN}", failure.rank)
    lost = next((note.lost for note in notes if note.lost is not None), None)
    if lost is not None:
        return Ended(STOPPED, f"host {lost} was lost; {AGAIN}")
    known = rundir.read_json(rundir.exit_json) if rundir.exit_json.is_file() else None
    # A rank that dies without a word is not what the ranks say that torchrun stopped after it, or that lost it.
    silent = failure.code < 0 or (known is not None and known["code"] == STOPPED and not signals)
    if known is not None and not (silent and known["rank"] != failure.rank):
        return Ended(known["code"], known["message"], known["rank"])
    if signals:
        return Ended(STOPPED, f"stopped before it could say so; {AGAIN}", failure.rank)
    died = -failure.code
    how = f"by signal {died} ({signal.Signals(died).name})" if died > 0 else f"with code {failure.code}"
    return Ended(1, f"rank {failure.rank} ended {how} and left no message", failure.rank)


def _environment(processes: int, gpus: int) -> dict[str, str]:
    variables = dict(os.environ)
    variables.setdefault("OMP_NUM_THREADS", str(max(machine.cores() // processes, 1)))
    variables["PYTHONUNBUFFERED"] = "1"
    variables.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # what libraries tell each other about next year
    if not gpus:
        variables["DS_ACCELERATOR"] = "cpu"
    if sys.stdout.isatty():
        # Workers write to a file that is shown here: what they print is for a terminal all the same.
        size = shutil.get_terminal_size()
        variables |= {"FORCE_COLOR": "1", "COLUMNS": str(size.columns), "LINES": str(size.lines)}
    return variables


class _Console:
    """Shows rank 0's log while it grows, on the host where rank 0 is."""

    def __init__(self, rank_log: Path, *, here: bool) -> None:
        self.here = here
        self._file = rank_log
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(self, log: torchrun.Log, *, final: bool = False) -> None:
        """`log`: says whether rank 0 has started on this host; `final`: nothing more will come."""
        self.here = self.here or 0 in log.ranks.values()
        if not self.here:
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        self._read += len(content)
        text = self._decoder.decode(content, final)
        if text:
            with contextlib.suppress(OSError):  # the terminal may be gone; the run goes on
                sys.stdout.write(text)
                sys.stdout.flush()


def _plain(file: Path) -> str:
    """A log without terminal escapes, and with the last state of each progress line only."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.read_bytes().decode("utf-8", "replace"))
    return re.sub(r"[^\n]*\r(?=[^\n])", "", text.replace("\r\n", "\n"))
