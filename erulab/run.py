"""The command `python -m erulab.run`: composes a run from conf/ and the command line, starts it, says where it is.

Imports no torch: help, completion and configuration errors answer at once.
"""

from __future__ import annotations

import os
import sys
import tempfile

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from erulab import config as configuration
from erulab import jobs
from erulab.config_errors import one_line
from erulab.errors import ConfigError, ErulabError
from erulab.outcome import record, recorded
from erulab.redaction import redacted_text

LAUNCH = configuration.CONF.parent / "launch"


@hydra.main(config_path="../conf", config_name="run", version_base="1.3")
def main(composed: DictConfig) -> None:
    """One run. Hydra calls this outside sweeps only; those go to launch/hydra_plugins."""
    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    config = configuration.resolve(composed, hydra_config.runtime.choices, overrides)
    named = None if hydra_config.run.dir == "." else hydra_config.run.dir
    record(jobs.run(jobs.plan(config, named)).code)


def cli() -> int:
    """Runs the command line; returns the exit code. Configuration errors take one line on stderr.

    Hydra itself would print many lines and exit 1, and a sys.exit under `main` would end a sweep silently.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Hydra finds our launcher as the namespace package `hydra_plugins` in launch/; so do processes it starts.
    sys.path.insert(0, str(LAUNCH))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LAUNCH), os.environ.get("PYTHONPATH")]))
    try:
        configuration.prepare(sys.argv[1:])
        with tempfile.TemporaryDirectory(prefix="erulab-") as scratch:
            os.environ["ERULAB_SCRATCH"] = scratch
            main()
    except ErulabError as error:
        print(redacted_text(str(error)), file=sys.stderr)
        return error.code
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        print(redacted_text(one_line(error)), file=sys.stderr)
        return ConfigError.code
    return recorded()


if __name__ == "__main__":
    sys.exit(cli())
