"""Hydra launcher `submitit_slurm`: submits the jobs of a sweep to Slurm by the plugin hydra-submitit-launcher."""

import copy
import importlib.util
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from .base import SweepLauncher

if TYPE_CHECKING:
    from erulab.launching.machine import GPU
    from erulab.launching.sweep import Sweep, Task


@dataclass
class SubmititSlurmConfig:
    """The options: one node and one task per job. Names and units are the plugin's, which passes them to sbatch.

    There is no file in conf/, because Hydra would check it against the plugin's own entry of the same name. This entry
    counts because it is stored later (prepare_command_line appends launch/ to the path).
    """

    _target_: str = "hydra_plugins.erulab_launchers.slurm.SubmititSlurmLauncher"
    partition: Optional[str] = None  # null: the cluster's default
    account: Optional[str] = None
    gpus_per_node: int = 1  # also the processes of a job, unless engine.processes says otherwise
    cpus_per_task: int = 8
    mem_gb: int = 64
    timeout_min: int = 480
    signal_delay_s: int = 300  # before the time limit: a checkpoint is written; the same command submits what is left
    array_parallelism: int = 16  # jobs at once
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # more of sbatch's: {constraint: a100}


ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node=SubmititSlurmConfig, provider="erulab")


class SubmititSlurmLauncher(SweepLauncher):
    """Submits one Slurm job per task of the sweep and waits for all. The nodes must share the folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    def job_gpus(self) -> "Optional[list[GPU]]":
        """Returns the GPUs of the node that a job will run on, not of this one."""
        from erulab.errors import EnvironmentFault
        from erulab.launching.machine import GPU

        if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
            raise EnvironmentFault(
                "hydra/launcher=submitit_slurm needs a plugin: pip install hydra-submitit-launcher; launch/slurm.sh "
                "does without"
            )
        return [GPU("of a Slurm node")] * self._options["gpus_per_node"]

    def slots(self) -> int:
        jobs: int = self._options["array_parallelism"]
        return jobs

    def run(self, sweep: "Sweep") -> None:
        from erulab.errors import ConfigError

        if any(task.job.config.engine.nodes > 1 for task in sweep.tasks):
            raise ConfigError("hydra/launcher=submitit_slurm gives each job one node; for more: sbatch launch/slurm.sh")
        sweep.start()
        tasks = []
        for task in sweep.tasks:
            sweep.announce(task)
            if not sweep.skip_if_finished(task):
                tasks.append(task)
        if tasks:
            try:
                self._submit(sweep, tasks)
            except KeyboardInterrupt:  # the outcomes of the jobs are unknown, so there is no table
                print(
                    "stopped waiting; Slurm jobs that were submitted go on (squeue --me lists them, scancel JOB ends "
                    f"one), their logs are in {sweep.folder / '.submitit'}; once they have ended, the same command "
                    "collects them",
                    flush=True,
                )
                return
        sweep.show()
        sweep.compare()

    def _submit(self, sweep: "Sweep", tasks: "list[Task]") -> None:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
        from submitit.core.utils import UncompletedJobError

        from erulab.launching.job import is_finished

        folder = sweep.folder.resolve()
        plugin = SlurmLauncher(
            submitit_folder=str(folder / ".submitit" / "%j"), name="erulab", nodes=1, tasks_per_node=1, **self._options
        )
        config = copy.deepcopy(self.config)
        assert config is not None
        with open_dict(config):
            # The plugin makes a folder per job, but a run has its own.
            config.hydra.sweep.dir, config.hydra.sweep.subdir = str(folder), "."
        plugin.setup(hydra_context=self.hydra_context, task_function=run_command, config=config)
        try:
            ended = plugin.launch([task.command[3:] for task in tasks], 0)
        except UncompletedJobError as error:  # the node was lost or the job cancelled; the others are unknown
            first = str(error).splitlines()[0]
            print(f"Slurm did not complete a job: {first}; logs: {folder / '.submitit'}", flush=True)
            for task in tasks:
                task.code = 0 if is_finished(task.job) else None
        else:
            for task, result in zip(tasks, ended, strict=True):
                task.code = result.return_value
        sweep.write()


def run_command(config: DictConfig) -> int:
    """Runs one job on its node, as the command that a user would type there; returns its exit code."""
    from erulab.command import STOP_SIGNALS
    from erulab.launching.processes import run_to_end

    overrides = HydraConfig.get().overrides
    command = [sys.executable, "-m", "erulab.run", *overrides.hydra, *overrides.task]
    # submitit sends SIGUSR2 before the time limit: the job stops with a checkpoint, and the same sweep continues it.
    return run_to_end(command, (*STOP_SIGNALS, signal.SIGUSR2))
