"""Starts a run's worker processes, follows them, and says how they ended. The only place that starts workers."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from erulab import environment
from erulab.environment import GPU
from erulab.errors import EnvironmentFault
from erulab.options import EngineName, EngineOptions, Offload, Precision, RunConfig
from erulab.rundir import RunDir

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # from outside; others are crashes
POLL_SECONDS = 0.05
LAST_LINES = 15
# How long ranks may live on after one of them has died (torchrun sees to the most of it), and how long a stop may
# take to write its checkpoint.
SURVIVE_SECONDS = 20
STOP_SECONDS = 600
STOPPED = 75


@dataclass(frozen=True)
class Ended:
    """How the workers ended; `stopped`: by a signal that the user sent to us."""

    code: int
    message: str
    rank: int = 0
    stopped: bool = False


def choose_engine(engine: EngineOptions, gpus: int) -> EngineOptions:
    """`auto` and null made definite: one process, or one a GPU; zero2 where there are several."""
    alone = engine.name is EngineName.local or (engine.name is EngineName.auto and gpus < 2)
    processes = engine.processes or (1 if alone else max(gpus, 1))
    name = engine.name
    if name is EngineName.auto:
        name = EngineName.zero2 if processes > 1 else EngineName.local
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
    linked = compilers and subprocess.run(
        [compilers[0], "-x", "c", "-", *flags[0], "-o", os.devnull, *flags[1], "-laio"],
        input="#include <libaio.h>\nint main(void) { return io_submit(0, 0, 0); }\n",
        text=True, capture_output=True,
    ).returncode == 0  # fmt: skip
    if not linked:
        raise EnvironmentFault(
            "engine.offload=nvme needs libaio and its header, and a program with them does not compile here; install "
            f"them (apt install libaio-dev), or {instead}"
        )
    if engine.nvme_path is None or not os.access(engine.nvme_path, os.W_OK) or not Path(engine.nvme_path).is_dir():
        raise EnvironmentFault(f"engine.nvme_path={engine.nvme_path} is no folder to write to; make it, or {instead}")


def run(rundir: RunDir, processes: int, module: str, *, gpus: int = 0, held: int | None = None) -> Ended:
    """Runs `python -m <module> RUN_DIR` in `processes` ranks to the end, showing what rank 0 prints.

    Args:
        gpus: how many there are; without one DeepSpeed is told to use CPUs.
        held: file descriptor that workers inherit, so that the folder stays locked while one of them lives.
    Returns:
        The code of exit.json, which is also written here where the workers could not. 75 for a rank that was killed.
    """
    for old in [rundir.exit_json, rundir.launcher_log, *rundir.path.glob("rank*.log")]:
        old.unlink(missing_ok=True)
    rundir.rank_log(0).touch()
    alone = processes == 1
    own_log = rundir.rank_log(0) if alone else rundir.launcher_log
    with own_log.open("wb") as log:
        child = subprocess.Popen(
            _command(rundir, processes, module), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=_environment(processes, gpus), pass_fds=() if held is None else (held,),
            # Ctrl-C reaches the whole foreground group: workers must get it once, from us.
            start_new_session=True,
        )  # fmt: skip
    family = Family(child)
    with _forwarding(child, family) as signals, rundir.rank_log(0).open("rb") as console:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        failed_at: float | None = None
        while child.poll() is None:
            _show(decoder.decode(console.read()))
            if failed_at is None and not alone and not signals and _failing(rundir):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > SURVIVE_SECONDS:
                family.kill_descendants()  # torchrun then says who failed first
            family.look()
            time.sleep(POLL_SECONDS)
        family.kill()
        _show(decoder.decode(console.read(), final=True))
    ended = _ended(rundir, child.returncode, alone, len(signals))
    rundir.write_json(rundir.exit_json, {"code": ended.code, "message": ended.message, "rank": ended.rank})
    for rank_log in rundir.path.glob("rank*.log"):
        rundir.write_text(rank_log, _plain(rank_log))
    if ended.code == 0:
        rundir.launcher_log.unlink(missing_ok=True)
    return ended


def last_lines(rundir: RunDir, rank: int) -> str:
    """The end of a rank's log, as shown when it crashed."""
    file = rundir.rank_log(rank)
    lines = _plain(file).splitlines() if file.is_file() else []
    return "\n".join(lines[-LAST_LINES:])


class Family:
    """The worker process and all that it started, also when their parent is gone."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._known: set[psutil.Process] = set()
        self._looked = 0.0

    def look(self) -> None:
        """Remembers descendants, once a second."""
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            with contextlib.suppress(psutil.NoSuchProcess):
                self._known.update(psutil.Process(self._child.pid).children(recursive=True))

    def kill_descendants(self) -> None:
        self._looked = 0.0
        self.look()
        for process in self._known:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        self.kill_descendants()
        self._child.kill()


def _command(rundir: RunDir, processes: int, module: str) -> list[str]:
    folder = str(rundir.path)
    if processes == 1:
        return [sys.executable, "-u", "-m", module, folder]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "--shutdown-timeout", str(STOP_SECONDS),
        "-m", "erulab.dispatch", module, folder,
    ]  # fmt: skip


def _environment(processes: int, gpus: int) -> dict[str, str]:
    variables = dict(os.environ)
    variables.setdefault("OMP_NUM_THREADS", str(max(environment.cores() // processes, 1)))
    variables["PYTHONUNBUFFERED"] = "1"
    variables.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # what libraries tell each other about next year
    if not gpus:
        variables["DS_ACCELERATOR"] = "cpu"
    if sys.stdout.isatty():
        # Workers write to a file that is shown here: what they print is for a terminal all the same.
        size = shutil.get_terminal_size()
        variables |= {"FORCE_COLOR": "1", "COLUMNS": str(size.columns), "LINES": str(size.lines)}
    return variables


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[bytes], family: Family) -> Iterator[list[int]]:
    """Passes the first signal on, for a checkpoint; the second kills. Yields the signals that came."""
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            family.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                # Workers stop alike on every signal; while they still import, only SIGINT would print a traceback.
                child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, receive) for number in FORWARDED}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(rundir: RunDir, returncode: int, alone: bool, signals: int) -> Ended:
    again = "the same command continues from the last checkpoint"
    if signals > 1:
        return Ended(STOPPED, f"killed by a second signal; {again}", stopped=True)
    rank, code = (0, returncode) if alone else _failure(rundir) or (0, returncode)
    # Looked at before exit.json: the ranks that a killed one leaves behind fail too, and say so.
    if -code in KILLS:
        cause = ", by the system if memory ran out" if -code == signal.SIGKILL else ""
        return Ended(STOPPED, f"rank {rank} was killed by signal {-code}{cause}; {again}", rank, bool(signals))
    known = rundir.read_json(rundir.exit_json) if rundir.exit_json.is_file() else None
    # A rank that dies without a word is not what the ranks say that torchrun stopped after it, or that lost it.
    silent = code < 0 or (known is not None and known["code"] == STOPPED and not signals)
    if known is not None and not (silent and known["rank"] != rank):
        return Ended(known["code"], known["message"], known["rank"], bool(signals))
    if signals:
        return Ended(STOPPED, f"stopped before it could say so; {again}", rank, stopped=True)
    how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with code {code}"
    return Ended(1, f"rank {rank} ended {how} and left no message", rank, bool(signals))


def _failing(rundir: RunDir) -> bool:
    """Whether torchrun has seen a rank fail, and is stopping the others."""
    return rundir.launcher_log.is_file() and "closing signal" in rundir.launcher_log.read_text(errors="replace")


def _failure(rundir: RunDir) -> tuple[int, int] | None:
    """(rank, exit code) of the first rank that torchrun saw fail; a killed one's code is minus the signal."""
    text = rundir.launcher_log.read_text(errors="replace") if rundir.launcher_log.is_file() else ""
    first = re.search(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", text)
    return (int(first[2]), int(first[1])) if first else None


def _show(text: str) -> None:
    if text:
        with contextlib.suppress(OSError):  # the terminal may be gone; the run goes on
            sys.stdout.write(text)
            sys.stdout.flush()


def _plain(file: Path) -> str:
    """A log without terminal escapes, and with the last state of each progress line only."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.read_bytes().decode("utf-8", "replace"))
    return re.sub(r"[^\n]*\r(?=[^\n])", "", text.replace("\r\n", "\n"))


def _as_rank(module: str, folder: str) -> None:
    """Entry of one rank under torchrun: prints to its own log, then is the worker."""
    log = os.open(RunDir(folder).rank_log(int(os.environ["RANK"])), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [module, folder]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _as_rank(*sys.argv[1:])
