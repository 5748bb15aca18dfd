"""Starts this host's worker processes of a run, follows them to their end, and decides how the run ended."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from erulab.command import STOP_SIGNALS
from erulab.errors import EnvironmentFault, Interrupted
from erulab.launching import machine, torchrun
from erulab.launching.extension_locks import remove_dead_locks
from erulab.launching.hosts import Failure, Host, HostStatus
from erulab.launching.processes import Child, Start, forward_signals, start_process
from erulab.launching.silence import Silence, SilenceWatch
from erulab.redaction import redacted_text
from erulab.rundir import RunDir

# Signals that come from outside; a rank that dies by another one has crashed.
KILLS = (signal.SIGKILL, *STOP_SIGNALS)
POLL_SECONDS = 0.05
LOCK_SECONDS = 5  # between two looks for locks of processes that died, for which a rank would wait without end
LAST_LINES = 15
# How long ranks may live on after one of them has died, on any host (usually torchrun stops them). torchrun may live a
# little longer, because it then reports which rank failed first.
SURVIVE_SECONDS = 20
LAST_WORD_SECONDS = 5
STOPPED = Interrupted.code
AGAIN = "the same command continues from the last checkpoint"


@dataclass(frozen=True)
class RunExit:
    """The end of a run: exit code and message."""

    code: int
    message: str
    rank: int = 0  # the rank that the message is about
    stopped: bool = False  # whether a signal came, on any host
    here: bool = True  # whether rank 0 was on this host, so that its output has been shown
    again: bool = False  # whether the run can go on at once in new processes: a damaged product is to be made again


def run_workers(
    rundir: RunDir,
    processes: int,
    module: str,
    *,
    gpus: int = 0,
    timeout: float = 600,
    host: Host | None = None,
    start: Start = start_process,
) -> RunExit:
    """Runs `python -m <module> RUN_DIR` in `processes` ranks on this host to the end, and shows what rank 0 prints.

    Args:
        rundir: the run folder.
        processes: number of ranks on this host.
        module: erulab.worker, or a stand-in for it in tests.
        gpus: number of GPUs; if it is 0, DeepSpeed is told to use the CPU.
        timeout: seconds for which one of several ranks may be silent.
        host: this host's place among several; None if it is the only one. Workers inherit its lock, so that the folder
            stays in use while one of them lives.
        start: starts the worker of a run of one process.
    Returns:
        The code in exit.json, which the first host writes if the workers could not: the same on all hosts. 75 for a
        rank that was killed.
    """
    host = host or Host(rundir)
    if host.first:
        rundir.clear()
    host.publish(HostStatus())
    alone = processes * host.nodes == 1
    launcher = rundir.launcher_log(host.host_index)
    children: list[Child] = []
    with forward_signals(children) as signals:
        child = Child(
            [sys.executable, "-u", "-m", module, str(rundir.path)]
            if alone
            else torchrun.torchrun_command(processes, host.meeting, [module, str(rundir.path)]),
            rundir.rank_log(0) if alone else launcher,
            _worker_environment(processes, gpus),
            host.inherited,
            start if alone else start_process,
        )
        children.append(child)
        for number in signals:  # those that came before there was a child
            child.send_signal(number)
        console, log = _Console(rundir.rank_log(0), here=alone), torchrun.TorchrunLog(launcher)
        watch = SilenceWatch(rundir, timeout, gpus=bool(gpus), one_host=host.nodes == 1)
        code, status = _follow_child(child, host, log, signals, console, watch)
        # The signal handlers still hold here: a signal that comes while the hosts agree must not leave others waiting.
        ended = _agree_on_exit(rundir, host, status, log, code)
    return dataclasses.replace(ended, stopped=bool(signals) or host.stopped_elsewhere, here=console.here)


def last_lines(rundir: RunDir, rank: int) -> str:
    """Returns the end of a rank's log, to be shown if it crashed."""
    file = rundir.rank_log(rank)
    lines = _plain_log(file).splitlines() if file.is_file() else []
    return "\n".join(lines[-LAST_LINES:])


def _follow_child(
    child: Child,
    host: Host,
    log: torchrun.TorchrunLog,
    signals: list[int],
    console: _Console,
    watch: SilenceWatch,
) -> tuple[int, HostStatus]:
    """Waits until `child` and its descendants have ended, and publishes this host's status meanwhile.

    Args:
        child: this host's worker, or its torchrun.
        log: what torchrun has written.
        signals: those that have come to this process; a signal handler adds to it.
        console: shows rank 0's output while it grows.
        watch: finds silent ranks; then all are killed.
    Returns:
        The child's return code and this host's last status.
    """
    failed_at: float | None = None
    # Whether another host failed first. If so, failures on this host are consequences and are not reported.
    elsewhere = False
    silence: Silence | None = None
    locks_seen = 0.0
    while (code := child.poll()) is None:
        console.show(log)
        others = host.others()
        if time.monotonic() - locks_seen > LOCK_SECONDS:  # a process of another run may die at any time
            locks_seen = time.monotonic()
            remove_dead_locks()
        if any(status.signals for status in others):
            child.send_signal(signal.SIGTERM)
        if any(status.signals > 1 for status in others):
            child.kill()
        if failed_at is None and not signals and not any(status.signals for status in others):
            elsewhere = any(status.failing for status in others)
            if elsewhere or log.failing:
                failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > SURVIVE_SECONDS:
            child.kill_descendants()
        if failed_at is not None and time.monotonic() - failed_at > SURVIVE_SECONDS + LAST_WORD_SECONDS:
            child.kill()
        if silence is None and not elsewhere and (silence := watch.look(log)) is not None:
            child.kill()
        host.publish(HostStatus(len(signals), failing=failed_at is not None))
        time.sleep(POLL_SECONDS)
    child.kill()
    console.show(log, final=True)
    failure = None
    if silence is not None:
        failure = Failure(silence.rank, -signal.SIGKILL, silence.why)
    elif code and not elsewhere:
        failure = Failure(0, code) if host.nodes == 1 and not log.ranks else log.failure
    return code, HostStatus(len(signals), failing=bool(code), ended=True, failure=failure)


def _agree_on_exit(rundir: RunDir, host: Host, status: HostStatus, log: torchrun.TorchrunLog, code: int) -> RunExit:
    """Returns how the run ended, the same on all hosts: the first host decides and writes it to exit.json.

    Args:
        status: this host's last status.
        code: the return code of this host's child.
    """
    stopped = status.signals or host.stopped_elsewhere
    limit = torchrun.STOP_SECONDS if stopped else SURVIVE_SECONDS + 2 * LAST_WORD_SECONDS
    if not host.first:
        host.publish(status)
        host.wait_for_verdict(limit)
        if rundir.exit_json.is_file():
            return RunExit(**rundir.read_json(rundir.exit_json))
        return RunExit(STOPPED, f"the first host was lost; {AGAIN}")
    host.publish(dataclasses.replace(status, ended=False))  # others wait for the verdict
    statuses = [status, *host.wait_for_others(limit)]
    if host.meeting is not None and code and not log.ranks and not any(status.signals for status in statuses):
        ended = RunExit(
            EnvironmentFault.code,
            f"not all {host.nodes} hosts met at {host.meeting.endpoint}; type the same command on each within "
            f"{torchrun.MEET_SECONDS // 60} minutes, with an address that all can reach ({rundir.launcher_log()} says "
            "more)",
        )
    else:
        ended = _decide_exit(rundir, code, statuses, torchrun_stopped=log.stopped)
    with contextlib.suppress(OSError):  # the disk that the run stopped at: its last words are still shown here
        rundir.write_json(rundir.exit_json, {"code": ended.code, "message": ended.message, "rank": ended.rank})
        own_log = rundir.launcher_log(host.host_index)
        for worker_log in (*rundir.path.glob("rank*.log"), *([own_log] if own_log.is_file() else [])):
            rundir.write_text(worker_log, _plain_log(worker_log))
    for beat in rundir.beats:
        beat.unlink(missing_ok=True)
    if ended.code == 0:
        for index in range(host.nodes):
            rundir.launcher_log(index).unlink(missing_ok=True)
    host.leave()
    return ended


def _decide_exit(rundir: RunDir, code: int, statuses: list[HostStatus], *, torchrun_stopped: bool) -> RunExit:
    """Returns how the run ended, from what is left of it.

    Args:
        code: the return code of the first host's child.
        statuses: the last status of every host, the first host's first.
        torchrun_stopped: whether a signal came to the first host's torchrun.
    """
    signals = max(status.signals for status in statuses)
    if signals > 1:
        return RunExit(STOPPED, f"killed by a second signal; {AGAIN}")
    failures = [status.failure for status in statuses if status.failure is not None]
    # A host whose rank was killed and a host whose ranks failed because of that may both report the first failure.
    failure = min(failures, key=lambda failure: -failure.code not in KILLS, default=Failure(0, code))
    # Before exit.json is read: ranks that lose a killed one fail too, and write messages of their own.
    if failure.silence is not None:
        return RunExit(STOPPED, f"{failure.silence}; all ranks were killed, and {AGAIN}", failure.rank)
    if -failure.code in KILLS and (failures or not signals):
        cause = ", by the system if memory ran out" if -failure.code == signal.SIGKILL else ""
        who = f"rank {failure.rank}" if failures else "torchrun, which starts the ranks,"
        return RunExit(STOPPED, f"{who} was killed by signal {-failure.code}{cause}; {AGAIN}", failure.rank)
    lost = next((status.lost for status in statuses if status.lost is not None), None)
    if lost is not None:
        return RunExit(STOPPED, f"host {lost} was lost; {AGAIN}")
    known = rundir.read_json(rundir.exit_json) if rundir.exit_json.is_file() else None
    # A rank that died without a word is the cause; messages of ranks stopped afterwards are its consequences, so it
    # wins. A rank that stopped has spoken, unless another was faster: then that one's message says the same.
    wordless = bool(failures) and failure.code != STOPPED
    silent = wordless and (failure.code < 0 or (known is not None and known["code"] == STOPPED and not signals))
    if known is not None and not (silent and known["rank"] != failure.rank):
        return RunExit(known["code"], known["message"], known["rank"], again=known.get("again", False))
    if signals or torchrun_stopped or failure.code == STOPPED:
        return RunExit(STOPPED, f"stopped before it could say so; {AGAIN}", failure.rank)
    if failure.code == EnvironmentFault.code:  # nothing else ends a rank so, and it could not write why
        why = f"rank {failure.rank} could not write to {rundir.path}, which is full or read-only; make room there"
        return RunExit(failure.code, f"{why}; {AGAIN}", failure.rank)
    died = -failure.code
    how = f"by signal {died} ({signal.Signals(died).name})" if died > 0 else f"with code {failure.code}"
    return RunExit(1, f"rank {failure.rank} ended {how} and left no message", failure.rank)


def _worker_environment(processes: int, gpus: int) -> dict[str, str]:
    variables = dict(os.environ)
    variables.setdefault("OMP_NUM_THREADS", str(max(machine.cores() // processes, 1)))
    variables["PYTHONUNBUFFERED"] = "1"
    variables.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # deprecations between libraries
    if not gpus:
        variables["DS_ACCELERATOR"] = "cpu"
    if sys.stdout.isatty():
        # Workers write to a file, but what they print is shown on this terminal.
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

    def show(self, log: torchrun.TorchrunLog, *, final: bool = False) -> None:
        """Prints what rank 0 has written since the last call.

        Args:
            log: tells whether rank 0 has started on this host.
            final: whether nothing more will come.
        """
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
                sys.stdout.write(redacted_text(text))
                sys.stdout.flush()


def _plain_log(file: Path) -> str:
    """Returns a log without secrets and terminal escapes, and with only the last state of each progress line."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.read_bytes().decode("utf-8", "replace"))
    return redacted_text(re.sub(r"[^\n]*\r(?=[^\n])", "", text.replace("\r\n", "\n")))
