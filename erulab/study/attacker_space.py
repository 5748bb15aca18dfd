"""What an attacker of a study may try: the settings of one attack, as overrides of a reported run."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from erulab.errors import ConfigError
from erulab.launching.job import Job
from erulab.options import RunConfig, Stage
from erulab.registry import attacks
from erulab.study import work
from erulab.study.spec import Attacker
from erulab.tuning.samplers import draw_points
from erulab.tuning.space import Space, read_space
from erulab.typed import did_you_mean

NEEDED = (Stage.target, Stage.oracle, Stage.unlearn, Stage.evaluate)
REPLACED = ("attack=", "attack.", "stages=")  # overrides of a reported run that the attacker's take the place of


def plan_attacked(attacker: Attacker, overrides: Sequence[str], settings: Sequence[str] = ()) -> Job:
    """Plans a reported run with the attacker's attack in place of its own.

    Args:
        overrides: of the reported run.
        settings: of the attack, as drawn from its space.
    Raises:
        ConfigError: the attack does not compose.
    """
    own = [override for override in overrides if not override.startswith(REPLACED)]
    stages = f"stages=[{','.join(stage.value for stage in (*NEEDED, Stage.attack))}]"
    return work.plan_run([*own, stages, *attacker.attack.split(), *settings])


def check_attacker(attacker: Attacker, overrides: Sequence[str]) -> None:
    """Composes an attacked run, so that a mistake shows before the first run.

    Raises:
        ConfigError and others of USER_ERRORS: what is wrong, and what to type.
    """
    reported = work.plan_run(overrides).config
    if absent := [stage.value for stage in NEEDED if stage not in reported.stages]:
        raise ConfigError(
            f"attacker: a tuned attack compares target, oracle and unlearned model, and report.common lacks the stages "
            f"{', '.join(absent)}; type stages=[target,oracle,unlearn,evaluate] there"
        )
    config = plan_attacked(attacker, overrides).config
    space = attacker_space(attacker, config)
    plan_attacked(attacker, overrides, [as_typed(one, config) for one in draw_points(space, 0, 1)[0]])


def attacker_space(attacker: Attacker, config: RunConfig) -> Space:
    """Returns the space of an attacker.

    Args:
        config: of an attacked run.
    Raises:
        ConfigError: there are several attacks, one that is not tuned per model, or a key that the attack has not.
    """
    name = _only_attack(config)
    options = config.attack[name]
    if attacks[options.name].factory.one_attempt_for_all_models:
        raise ConfigError(
            f"attacker.attack: {name} is not tuned for each model, because a prompt or a rounding that only disturbs "
            "a model would be the best one on a model that knows nothing; try attack=relearn"
        )
    known = [f"attack.{name}.{one.name}" for one in fields(options) if one.name != "name"]
    for key in attacker.space:
        if key not in known:
            raise ConfigError(f"attacker.space: {key} is no option of attack={name}{did_you_mean(key, known)}")

    def own_value(key: str) -> Any:
        value = getattr(options, key.rpartition(".")[2])
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    return read_space(attacker.space, own_value, "attacker.space")


def as_typed(override: str, config: RunConfig) -> str:
    """Returns `KEY=VALUE` of an attack as it is typed: `KEY=[VALUE]` where the option is a list, as relearn's lr is."""
    key, _, value = override.partition("=")
    hints = typing.get_type_hints(type(config.attack[_only_attack(config)]))
    hint = hints[key.rpartition(".")[2]]
    lists = any(typing.get_origin(one) is list for one in (hint, *typing.get_args(hint)))
    return f"{key}=[{value}]" if lists and value != "null" and not value.startswith("[") else override


def _only_attack(config: RunConfig) -> str:
    if len(config.attack) != 1:
        raise ConfigError(
            f"attacker.attack must name one attack, got attack=[{','.join(config.attack)}]; try attack=relearn"
        )
    return next(iter(config.attack))
