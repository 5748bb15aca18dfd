"""launch/wandb_sweep.yaml, typed as wandb's own agent types it."""

from __future__ import annotations

import itertools

import yaml

from erulab.config.compose import CONF, compose_config


def test_every_trial_of_the_sweep_file_composes() -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((CONF.parent / "launch" / "wandb_sweep.yaml").read_text())
    lists = [[(key, value) for value in one["values"]] for key, one in sweep["parameters"].items()]
    trials = [dict(trial) for trial in itertools.product(*lists)]
    assert len(trials) == 18
    for trial in trials[:: len(trials) // 6]:
        typed = create_sweep_command_args({"args": {key: {"value": value} for key, value in trial.items()}})
        config = compose_config(typed["args_no_hyphens"])
        found = {"method": config.method.name, "trainer.lr": config.trainer.lr, "seed": config.seed}
        assert found == trial
    assert sweep["command"][:3] == ["python", "-m", sweep["program"]]
    assert sweep["command"][3:] == ["${args_no_hyphens}"]
