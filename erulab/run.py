"""The command `python -m erulab.run`: composes a run from conf/ and the command line, starts it, says where it is.

Imports no torch: help, completion and configuration errors answer at once.
"""

from __future__ import annotations

import sys

from erulab.command import STOPPED_LINE, prepare_command

if __name__ == "__main__":
    prepare_command()  # before the imports that take a second, in which a signal may come

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from erulab.config.command_line import check_flags, flags_with_value
from erulab.config.compose import CONF, LAUNCH, prepare_command_line, resolve, use_own_conf
from erulab.config.help import asks_for_help, help_text
from erulab.config.messages import USER_ERRORS, composing_fault, exit_with_line
from erulab.config.shown_settings import settings_lines
from erulab.errors import ConfigError, Interrupted
from erulab.faults import machine_faults_named
from erulab.launching.dry_run import ask_for_dry_run, is_dry_run, show_dry_run
from erulab.launching.exit_code import record_code, recorded_code
from erulab.launching.job import Job, is_finished, plan_job, run_job, show_finished

OWN_CONF_FLAGS = ("--config-dir", "-cd")


@hydra.main(config_path=str(CONF), config_name="run", version_base="1.3")
def main(composed: DictConfig) -> None:
    """Runs one job. Hydra calls this outside of sweeps only; those go to launch/hydra_plugins."""
    hydra_config = HydraConfig.get()
    named = None if hydra_config.run.dir == "." else hydra_config.run.dir
    try:
        config = resolve(composed, hydra_config.runtime.choices, sys.argv[1:])
        with machine_faults_named():
            job = plan_job(config, named)
            record_code(show_dry_run([job], [""]) if is_dry_run() else run_or_show(job))
    except USER_ERRORS as error:  # Hydra would add lines of its own
        record_code(exit_with_line(error))


def run_or_show(job: Job) -> int:
    """Runs a job, or shows what it has left if it was finished before; returns the exit code."""
    if not is_finished(job):
        print(*settings_lines([job.config], job.rundir.path), sep="\n", flush=True)
        return run_job(job).code
    show_finished(job)
    return 0


def cli() -> int:
    """Runs the command line and returns the exit code. Configuration errors take one line on stderr.

    Hydra itself would print many lines and exit 1, and a sys.exit under `main` would end a sweep silently.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Other launchers (submitit) start processes that need ours too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LAUNCH), os.environ.get("PYTHONPATH")]))
    try:
        sys.argv[1:] = flags_first(ask_for_dry_run(sys.argv[1:]))
        for flag, value in zip(sys.argv[1:], sys.argv[2:], strict=False):
            if flag in OWN_CONF_FLAGS:
                use_own_conf(value)
        check_flags(sys.argv[1:])
        prepare_command_line(sys.argv[1:])
        if asks_for_help(sys.argv[1:]):
            print(help_text())
            return 0
        with scratch_named(), machine_faults_named():
            main()
    except USER_ERRORS as error:
        return exit_with_line(error)
    except Exception as error:
        line = composing_fault(error)
        if line is None:
            raise
        return exit_with_line(ConfigError(line))
    except KeyboardInterrupt:  # before a worker runs; afterwards launching.workers handles signals
        print(STOPPED_LINE, file=sys.stderr)
        return Interrupted.code
    return recorded_code()


@contextlib.contextmanager
def scratch_named() -> Iterator[None]:
    """Names a folder that Hydra may make for a sweep's own files, which nobody reads, and removes it.

    Only a sweep makes it, and the launcher removes it at once: a command that is killed leaves nothing.
    """
    scratch = os.path.join(tempfile.gettempdir(), f"erulab-{secrets.token_hex(8)}")
    os.environ["ERULAB_SCRATCH"] = scratch
    try:
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with flags, and the values of flags, in front of the overrides.

    Hydra's parser accepts no override behind a flag that stands among overrides.
    """
    flags: list[str] = []
    overrides: list[str] = []
    takes_value, with_value = False, flags_with_value()
    for argument in arguments:
        (flags if takes_value or argument.startswith("-") else overrides).append(argument)
        takes_value = not takes_value and argument in with_value
    return [*flags, *overrides]


if __name__ == "__main__":
    sys.exit(cli())
