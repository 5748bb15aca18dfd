"""Finds keys and choices of other programs on the command line, before Hydra parses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from erulab.config.other_names import letters_of, override_for, same_experiment, same_model, same_trainer
from erulab.errors import ConfigError
from erulab.options import RunConfig, TrainerOptions
from erulab.registry import GROUPS, conf_folders

OTHER_KEYS = ("experiment", "sweep", "tune", "hydra")
# Parts of open-unlearning's config below keys that exist here too.
FOREIGN_PARTS = (
    "trainer.args.",
    "trainer.method_args.",
    "model.model_args.",
    "model.tokenizer_args.",
    "model.template_args.",
)


def check_names(overrides: Iterable[str]) -> None:
    """Refuses options and choices as other programs spell them.

    Args:
        overrides: the command line; flags are left to Hydra.
    Raises:
        ConfigError: the override, and what to type here with the same value.
    """
    own = {field.name for field in dataclasses.fields(RunConfig)} | set(OTHER_KEYS)
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        if not equals or key.startswith(("-", "~")) or "@" in key:
            continue
        group, _, rest = key.partition(".")
        if group in own and not rest:
            _check_choice(group, value)
        elif group not in own or key.startswith(FOREIGN_PARTS) or _is_trainer_argument(group, rest):
            here = override_for(key, value or "VALUE")
            if here is not None:
                raise ConfigError(f"unknown key {key}; type {here}")


def _is_trainer_argument(group: str, name: str) -> bool:
    return group == "trainer" and name not in {field.name for field in dataclasses.fields(TrainerOptions)}


def _check_choice(group: str, value: str) -> None:
    """Raises ConfigError where a choice is known here by another name; unknown ones are left to the composition."""
    names = value.strip("[]").split(",")
    known = _choices(group)
    if not known or all(name in known or not name for name in names):
        return
    here = [f"{group}={name}" if name in known else _same_choice(group, name, known) for name in names]
    found = [one for one in here if one is not None]
    if len(found) < len(names):
        return
    if group == "trainer":
        said = f"trainer={value}: trainers of open-unlearning are methods here"
    else:
        said = f"{group}={value} is unknown"
    first = found[0].partition("=")[0]
    together = all(one.startswith(f"{first}=") and " " not in one for one in found)
    several = f"{first}={','.join(one.partition('=')[2] for one in found)}" if together else found[0]
    raise ConfigError(f"{said}; type {several.replace('=', '=[', 1) + ']' if value.startswith('[') else several}")


def _same_choice(group: str, name: str, known: list[str]) -> str | None:
    if group in ("trainer", "method"):
        same = same_trainer(name)
        if same is not None:
            return same
    if group == "model":
        return same_model(name, known)
    if group == "experiment":
        return same_experiment(name)
    letters = {letters_of(one): one for one in known}
    return f"{group}={letters[letters_of(name)]}" if letters_of(name) in letters else None


def _choices(group: str) -> list[str]:
    """Returns the names of a group's choices; empty if it is no group."""
    files = [
        str(file.relative_to(folder / group).with_suffix(""))
        for folder in conf_folders()
        for file in (folder / group).rglob("*.yaml")
    ]
    registered = GROUPS[group].names() if group in GROUPS else []
    return [*files, *registered, *(["none", "null"] if files else [])]
