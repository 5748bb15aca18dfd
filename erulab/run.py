"""The command `python -m erulab.run`: composes a run from conf/ and the command line, starts it, says where it is.

Imports no torch: help, completion and configuration errors answer at once.
"""

from __future__ import annotations

import os
import sys
import tempfile

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from erulab.config.compose import CONF, LAUNCH, prepare_command_line, resolve
from erulab.config.messages import USER_ERRORS, exit_with_line
from erulab.errors import Interrupted
from erulab.launching.exit_code import record, recorded
from erulab.launching.job import plan_job, run_job


@hydra.main(config_path=str(CONF), config_name="run", version_base="1.3")
def main(composed: DictConfig) -> None:
    """One run. Hydra calls this outside sweeps only; those go to launch/hydra_plugins."""
    hydra_config = HydraConfig.get()
    named = None if hydra_config.run.dir == "." else hydra_config.run.dir
    try:
        config = resolve(composed, hydra_config.runtime.choices, sys.argv[1:])
        record(run_job(plan_job(config, named)).code)
    except USER_ERRORS as error:  # Hydra would add lines of its own
        record(exit_with_line(error))


def cli() -> int:
    """Runs the command line; returns the exit code. Configuration errors take one line on stderr.

    Hydra itself would print many lines and exit 1, and a sys.exit under `main` would end a sweep silently.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra's parser takes no override behind a flag that stands among them.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    # Other launchers (submitit) start processes that need ours too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LAUNCH), os.environ.get("PYTHONPATH")]))
    try:
        prepare_command_line(sys.argv[1:])
        with tempfile.TemporaryDirectory(prefix="erulab-") as scratch:
            os.environ["ERULAB_SCRATCH"] = scratch
            main()
    except USER_ERRORS as error:
        return exit_with_line(error)
    except KeyboardInterrupt:  # before a worker runs; afterwards dispatch sees to signals
        print("stopped; nothing was running", file=sys.stderr)
        return Interrupted.code
    return recorded()


if __name__ == "__main__":
    sys.exit(cli())
