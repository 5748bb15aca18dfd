"""Turns a Hydra composition into one typed RunConfig or one clear error, and writes and reads run.yaml.

DictConfig, Hydra's untyped form of a config, is used in this file only.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from erulab import registry
from erulab.config.foreign_names import check_names
from erulab.config.messages import composing_fault
from erulab.config.rules import check_config
from erulab.config.text_rules import check_overrides, check_texts
from erulab.errors import ConfigError, ErulabError
from erulab.methods.base import gradient_method
from erulab.methods.needs import Pairs
from erulab.models.folders import files_identity
from erulab.options import RunConfig, Stage
from erulab.rewards.elastic import ElasticOptions
from erulab.rundir import RunDir
from erulab.typed import did_you_mean, fill, to_plain

CONF = registry.CONF
LAUNCH = CONF.parent / "launch"

ConfigStore.instance().store(name="schema_run", node=RunConfig)


def _pick_value(key: Any, table: Mapping[str, Any]) -> Any:
    """Returns the table's value for `key`: `${pick:${dataset.split},{small:10,large:1000}}` in a recipe."""
    return table[key.name if isinstance(key, Enum) else key]


OmegaConf.register_new_resolver("pick", _pick_value, replace=True)


def plugin_modules(arguments: Iterable[str]) -> list[str]:
    """Returns the modules that `plugins=` names on a command line; they have to be imported before composition.

    Raises:
        ConfigError: the value is no list of names.
    """
    given = [a for a in arguments if a.startswith("plugins=")]
    if not given:
        return []
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException:
        value = None
    modules = [value] if isinstance(value, str) else value
    if not isinstance(modules, list) or not all(isinstance(m, str) and m for m in modules):
        raise ConfigError(f"{given[-1]}: plugins must be a list of importable modules; type plugins=[my_module]")
    return modules


def import_plugins(modules: Iterable[str]) -> None:
    """Registers erulab's plugins and those of the user's modules.

    Raises:
        ConfigError: a user's module cannot be imported.
    """
    registry.load_plugins()
    for module in modules:
        try:
            importlib.import_module(module)
        except ErulabError:
            raise
        except Exception as error:  # a user's file can fail in any way; the run cannot start in all of them
            raise ConfigError(
                f"plugins: module {module!r} cannot be imported ({type(error).__name__}: {error}); it must be a module "
                "on PYTHONPATH or a file in the folder the command is typed in"
            ) from error


def prepare_command_line(arguments: Sequence[str]) -> None:
    """Prepares the composition of a command line: launchers found, plugins imported, unreadable overrides refused.

    Raises:
        ConfigError: a plugin cannot be imported, or an override cannot be read.
    """
    # Hydra finds our launchers as the namespace package `hydra_plugins` in launch/. Last, because of two launchers with
    # one name it takes the later: our submitit_slurm checks all jobs first, the installed plugin's does not.
    if str(LAUNCH) not in sys.path:
        sys.path.append(str(LAUNCH))
    import_plugins(plugin_modules(arguments))
    check_names(arguments)
    check_overrides(arguments)


def use_own_conf(folder: str) -> None:
    """Puts the user's own conf folder in front of conf/, in this process and in those it starts.

    Raises:
        ConfigError: there is no such folder.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder; name one that holds method/, experiment/, ...")
    os.environ[registry.OWN_CONF] = str(path)


def compose_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the RunConfig of a command line without running it: for plans, studies and tests.

    Raises:
        ConfigError: as `resolve`; HydraException, OmegaConfBaseException, yaml.YAMLError: see `config.messages`.
    """
    return resolve_composed(_compose(overrides), overrides)


def compose_run(overrides: Sequence[str] = ()) -> tuple[RunConfig, str | None]:
    """Returns the RunConfig of one run, and the folder that `hydra.run.dir=` names, None if it names none.

    Raises:
        ConfigError: the overrides name a sweep; the others as `compose_config`.
    """
    composed = _compose(overrides)
    if composed.hydra.mode == RunMode.MULTIRUN:
        raise ConfigError("the overrides name several runs, not one; from Python: erulab.api.sweep([...])")
    folder = str(composed.hydra.run.dir)
    return resolve_composed(composed, overrides), None if folder == "." else folder


def _compose(overrides: Sequence[str]) -> DictConfig:
    prepare_command_line(overrides)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose("run", list(overrides), return_hydra_config=True)
    except Exception as error:
        line = composing_fault(error)
        if line is None:
            raise
        raise ConfigError(line) from None


def resolve_composed(composed: DictConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the RunConfig of a composition that still has Hydra's own node."""
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    assert isinstance(choices, dict)
    run = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return resolve(run, {str(k): v for k, v in choices.items()}, overrides)


def resolve(composed: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Returns a composition as a typed RunConfig that has passed all checks.

    Args:
        composed: the config without Hydra's own node.
        choices: config group -> the option chosen for it (Hydra's `runtime.choices`).
        overrides: what the user typed, so that a message can say where a wrong value comes from.
    Raises:
        ConfigError: one line with key, value, what is allowed and what to type.
    """
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True, enum_to_str=True)
    assert isinstance(plain, dict)
    for group, known in registry.GROUPS.items():
        chosen, part = choices.get(group), plain.get(group)
        name = part.get("name") if isinstance(part, dict) else None
        if group not in registry.LIST_GROUPS and chosen in known.names() and name != chosen:
            wish = str(name) if str(name) in known else f"NAME, one of: {', '.join(known.names())}"
            raise ConfigError(
                f"{group}.name={name} does not choose another {group} ({chosen} is chosen); type {group}={wish}"
            )
    config = _fill_run({str(key): value for key, value in plain.items()}, overrides)
    if config.plugins != plugin_modules(overrides):
        raise ConfigError(f"plugins={config.plugins} counts on the command line only; type plugins=[my_module] there")
    check_config(config)
    return config


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Returns the config as dicts, lists and scalars, as run.yaml holds it."""
    result: dict[str, Any] = to_plain(dataclasses.asdict(config))
    return result


def save_config(config: RunConfig, path: Path) -> None:
    """Writes run.yaml; comments at its end say what the folders of given models held, as a hash of their files."""
    model = config.model
    given = [("path", model.path), ("target", model.target), ("unlearned", model.unlearned)]
    given += [("oracle", oracle) for oracle in model.oracles]
    folders = [(key, Path(name)) for key, name in given if name is not None and (Path(name) / "config.json").is_file()]
    lines = [f"# model.{key}={str(folder)!r} has the content {files_identity(folder)}\n" for key, folder in folders]
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    RunDir(path.parent).write_text(path, text + "".join(lines))


def load_config(path: Path) -> RunConfig:
    """Returns the RunConfig of a run.yaml, and imports the plugins that it names.

    Raises:
        ConfigError: the file is no run.yaml, or holds a value that is not allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no run.yaml")
    import_plugins(content.get("plugins") or [])
    return _fill_run(content)


def _fill_run(values: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Returns a RunConfig made of a plain config, each of its parts as its own options class.

    Args:
        overrides: what the user typed, for messages.
    """
    check_texts(values)
    types = typing.get_type_hints(RunConfig)
    unknown = set(values) - set(types)
    if unknown:
        key = sorted(unknown)[0]
        raise ConfigError(f"unknown key {key}{did_you_mean(key, types)}; known: {', '.join(types)}")
    parts: dict[str, Any] = {}
    for group, known in registry.GROUPS.items():
        if group not in registry.LIST_GROUPS:
            parts[group] = _fill_plugin(known, values.get(group), group, overrides)
    for group in registry.LIST_GROUPS:
        chosen = values.get(group) or {}
        if not isinstance(chosen, dict):
            raise ConfigError(f"{group}={chosen}: type {group}=NAME, {group}=[NAME,NAME] or {group}=none")
        known = registry.GROUPS[group]
        parts[group] = {
            name: _fill_plugin(known, options, f"{group}.{name}", overrides) for name, options in chosen.items()
        }
        for name, options in chosen.items():
            # One attack in several variants beside one another: relearn, relearn_retain.
            variant = known is registry.attacks and name.startswith(f"{options['name']}_")
            if options["name"] != name and not variant:
                raise ConfigError(f"{group}.{name}.name must be {name}, got {options['name']}; type {group}=NAME")
    for key, kind in types.items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            parts[key] = fill(kind, values.get(key) or {}, key, overrides)
    rest = {key: value for key, value in values.items() if key not in parts}
    scalars = fill(RunConfig, {**rest, **dict.fromkeys(registry.GROUPS)}, "", overrides)
    config = dataclasses.replace(scalars, **parts)
    # Stages run in the order of the Enum, whatever order they are typed in.
    config.stages = [stage for stage in Stage if stage in config.stages]
    if isinstance(config.reward, ElasticOptions) and config.reward.decay is None:
        config.reward.decay = 0.9 if _has_pairs(config.method) else 0.5
    return config


def _has_pairs(options: Any) -> bool:
    """Tells whether the method takes a reward and compares each answer with a paired one."""
    method = gradient_method(options)
    return method is not None and method.needs.reward and method.needs.pairs is not Pairs.none


def _fill_plugin(known: registry.Registry, values: Any, path: str, overrides: Sequence[str]) -> Any:
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{path}.name={name}: no such {known.group}{did_you_mean(str(name), known.names())}; "
            f"known: {', '.join(known.names())}"
        )
    return fill(known[name].options, values, path, overrides)
