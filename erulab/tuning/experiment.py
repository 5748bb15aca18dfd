"""Writes the settings of a run as a file of `conf/experiment`, to be typed as `experiment=NAME`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from erulab.config.compose import config_to_dict
from erulab.options import Facts, RunConfig

# Parts that say how a run is run or shown, not what it computes: whoever types the experiment chooses them.
NOT_WRITTEN = ("attack", "stages", "report", "artifacts", "tracker", "engine", "output", "cache", "rerun", "plugins")
LEFT_OUT_OF_TRIALS = ("generate", "uds")  # options of evaluation that conf/tune/base.yaml turns off to save time
CHOSEN = ("model", "dataset", "method", "reward", "adversary")


def experiment_yaml(config: RunConfig, compose: Callable[[list[str]], RunConfig]) -> str:
    """Returns the file of a run's settings: its choices, and every value that differs from what these bring.

    The file needs no other preset, whatever the run was typed with. Its figures are of the facts that tuning did not
    use, and responses are generated again, which trials leave out.

    Args:
        compose: returns the config of a command line.
    """
    choices = {group: getattr(config, group).name for group in CHOSEN}
    defaults: list[dict[str, Any]] = [{f"override /{group}": name} for group, name in choices.items()]
    typed = [f"{group}={name}" for group, name in choices.items()]
    if config.benchmark:
        defaults.append({"override /benchmark": list(config.benchmark)})
        typed.append(f"benchmark=[{','.join(config.benchmark)}]")
    if config.plugins:
        typed.append(f"plugins=[{','.join(config.plugins)}]")
    wanted, brought = config_to_dict(config), config_to_dict(compose(typed))
    wanted["evaluation"] |= {key: brought["evaluation"][key] for key in LEFT_OUT_OF_TRIALS}
    wanted["evaluation"]["facts"] = Facts.reported.value
    values = {
        part: _differences(wanted[part], brought[part])
        for part in wanted
        if part not in NOT_WRITTEN and wanted[part] != brought[part]
    }
    text: str = yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False, allow_unicode=True)
    return f"# @package _global_\n# The best settings of a search, found on validation facts.\n{text}"


def _differences(wanted: Any, brought: Any) -> Any:
    """Returns the values of `wanted` that `brought` has not."""
    if not (isinstance(wanted, dict) and isinstance(brought, dict)):
        return wanted
    return {
        key: _differences(value, brought[key]) if key in brought else value
        for key, value in wanted.items()
        if key not in brought or value != brought[key]
    }
