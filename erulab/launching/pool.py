"""Runs many jobs of a sweep at once on this host: a queue of jobs, and slots with GPUs of their own."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from erulab.errors import ConfigError, EnvironmentFault
from erulab.launching import machine, workers
from erulab.launching.machine import GPU
from erulab.launching.processes import Child, forward_signals
from erulab.launching.sweep import Sweep, Task

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time, with the GPUs that only this job sees."""

    gpus: list[GPU]

    @property
    def devices(self) -> str:
        """The value of CUDA_VISIBLE_DEVICES for the job."""
        return ",".join(gpu.device for gpu in self.gpus)


@dataclass
class Running:
    """A task whose process runs in a slot."""

    task: Task
    slot: Slot
    child: Child
    log: Path
    started: float


def make_slots(gpus: list[GPU], gpus_per_job: int, slots: int | None) -> list[Slot]:
    """Distributes GPUs over slots.

    Args:
        gpus: the GPUs of this host.
        gpus_per_job: number of GPUs of each slot.
        slots: how many jobs run at once; None: as many as there are GPUs for, or one if there are no GPUs.
    Raises:
        ConfigError: a number below 1.
        EnvironmentFault: there are not enough GPUs.
    """
    for name, value in (("gpus_per_job", gpus_per_job), ("slots", slots)):
        if value is not None and value < 1:
            raise ConfigError(f"hydra.launcher.{name} must be > 0, got {value}")
    if not gpus:
        return [Slot([]) for _ in range(slots or 1)]
    most = len(gpus) // gpus_per_job
    if (slots or 1) > most:
        raise EnvironmentFault(
            f"hydra.launcher.slots={slots or 1} with gpus_per_job={gpus_per_job} needs {(slots or 1) * gpus_per_job} "
            f"GPUs, there are {len(gpus)}; try hydra.launcher.slots={most}"
            if most
            else f"hydra.launcher.gpus_per_job={gpus_per_job}, but there are {len(gpus)} GPUs; try "
            f"hydra.launcher.gpus_per_job={len(gpus)}"
        )
    return [Slot(gpus[i * gpus_per_job : (i + 1) * gpus_per_job]) for i in range(slots or most)]


def run_pool(sweep: Sweep, slots: list[Slot]) -> None:
    """Runs a sweep's tasks, each in a process of its own. A failure ends only its task, a signal stops all.

    Raises:
        ConfigError: a job wants several hosts; nothing has started then.
    """
    if any(task.job.config.engine.nodes > 1 for task in sweep.tasks):
        raise ConfigError("hydra/launcher=gpu_pool runs jobs on this host alone; type engine.nodes=1")
    sweep.start()
    waiting, free = deque(sweep.tasks), deque(slots)
    running: list[Running] = []
    children: list[Child] = []
    with forward_signals(children) as signals:
        while running or (waiting and not signals):
            while waiting and free and not signals:
                task = waiting.popleft()
                if sweep.skip_if_finished(task):
                    continue
                slot = free.popleft()
                running.append(_start_task(sweep, task, slot, len(slots)))
                children.append(running[-1].child)
                for number in signals:  # those that came before there was a child
                    running[-1].child.send_signal(number)
            for one in list(running):
                code = one.child.poll()
                if code is not None:
                    running.remove(one)
                    children.remove(one.child)
                    free.append(one.slot)
                    _finish_task(sweep, one, code)
            time.sleep(POLL_SECONDS)
    sweep.show()
    sweep.compare()


def _start_task(sweep: Sweep, task: Task, slot: Slot, slots: int) -> Running:
    variables = dict(os.environ)
    # The slots share the cores, and a job shares its part among its processes.
    processes = task.job.config.engine.processes or 1
    variables.setdefault("OMP_NUM_THREADS", str(max(machine.cores() // (slots * processes), 1)))
    task.gpus = slot.devices
    if slot.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = slot.devices
    log = sweep.log_file(task)
    sweep.announce(task, f" starts{' on GPU ' * bool(slot.gpus)}{slot.devices}")
    return Running(task, slot, Child(task.command, log, variables), log, time.monotonic())


def _finish_task(sweep: Sweep, one: Running, code: int) -> None:
    one.child.kill()  # its descendants may have outlived it
    task = one.task
    if code < 0:
        code = workers.STOPPED if -code in workers.KILLS else 1
    task.code, task.seconds = code, time.monotonic() - one.started
    sweep.write()
    sweep.announce(task, f" {task.state} after {task.seconds:.0f} s")
    if code:
        print(f"  code {code}: {_last_line(one.log)} ({one.log})", flush=True)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith("run folder:")]
    return said[-1] if said else "nothing was said"
