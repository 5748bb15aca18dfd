"""From Hydra's composition to one typed RunConfig, or one clear error; and run.yaml. DictConfig stays in this file."""

from __future__ import annotations

import dataclasses
import importlib
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
from omegaconf import DictConfig, OmegaConf

from erulab import registry
from erulab.attacks.relearn import RelearnOptions
from erulab.attacks.relearn_rows import check_file
from erulab.attacks.sequence import every_options
from erulab.config import rules
from erulab.errors import ConfigError, ErulabError
from erulab.methods.base import Pairs
from erulab.options import RunConfig, Stage
from erulab.rewards.elastic import ElasticOptions
from erulab.rundir import RunDir
from erulab.typed import did_you_mean, fill, to_plain

CONF = registry.CONF
LAUNCH = CONF.parent / "launch"

ConfigStore.instance().store(name="schema_run", node=RunConfig)


def _pick(key: Any, table: Mapping[str, Any]) -> Any:
    """`${pick:${dataset.split},{small:10,large:1000}}` in a recipe: the table's value for what another key holds."""
    return table[key.name if isinstance(key, Enum) else key]


OmegaConf.register_new_resolver("pick", _pick, replace=True)


def plugins_of(arguments: Iterable[str]) -> list[str]:
    """The modules that a command line's `plugins=` names; they have to be imported before composition.

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


def load_plugins(modules: Iterable[str]) -> None:
    """Registers erulab's plugins and the user's.

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
    """What a command line needs before it is composed: its plugins imported, and what Hydra cannot read refused.

    Raises:
        ConfigError
    """
    # Hydra finds our launchers as the namespace package `hydra_plugins` in launch/. Last, since of two launchers of one
    # name it takes the later: our submitit_slurm checks all jobs first, the installed plugin's does not.
    if str(LAUNCH) not in sys.path:
        sys.path.append(str(LAUNCH))
    load_plugins(plugins_of(arguments))
    rules.check_overrides(arguments)


def compose_config(overrides: Sequence[str] = (), config_dir: Path = CONF) -> RunConfig:
    """The RunConfig of a command line, for tests and notebooks.

    Raises:
        ConfigError: as `resolve`; HydraException, OmegaConfBaseException, yaml.YAMLError: see `config.messages`.
    """
    prepare_command_line(overrides)
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        composed = hydra_compose("run", list(overrides), return_hydra_config=True)
    return resolve_composed(composed, overrides)


def resolve_composed(composed: DictConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """`resolve` for a composition that still holds Hydra's own node."""
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    assert isinstance(choices, dict)
    run = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return resolve(run, {str(k): v for k, v in choices.items()}, overrides)


def resolve(composed: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """One typed, checked RunConfig.

    Args:
        choices: config group -> the option chosen for it (Hydra's `runtime.choices`).
        overrides: what the user typed, to say where a wrong value comes from and which plugins are loaded.
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
    config = _filled_run({str(key): value for key, value in plain.items()}, overrides)
    if config.plugins != plugins_of(overrides):
        raise ConfigError(f"plugins={config.plugins} counts on the command line only; type plugins=[my_module] there")
    rules.check(config)
    return config


def check_named_files(config: RunConfig) -> None:
    """Looks at the files that model, dataset and attacks name, without loading anything.

    Raises:
        ErulabError: one line, of the code that fits.
    """
    parts = [(registry.models, config.model), (registry.datasets, config.dataset)]
    parts += [(registry.benchmarks, options) for options in config.benchmark.values()]
    for plugins, options in parts:
        plugins.build(options).validate()
    for options in every_options(config.attack):
        if isinstance(options, RelearnOptions):
            check_file(options.texts)


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as dicts, lists and scalars: what run.yaml holds."""
    result: dict[str, Any] = to_plain(dataclasses.asdict(config))
    return result


def save_config(config: RunConfig, path: Path) -> None:
    """Writes run.yaml."""
    RunDir(path.parent).write_text(path, yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True))


def load_config(path: Path) -> RunConfig:
    """The RunConfig of a run.yaml, typed again; imports the plugins it names.

    Raises:
        ConfigError: the file is no run.yaml, or holds a value that is not allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no run.yaml")
    load_plugins(content.get("plugins") or [])
    return _filled_run(content)


def _filled_run(values: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Every part of a plain config as its options class."""
    rules.check_texts(values)
    types = typing.get_type_hints(RunConfig)
    unknown = set(values) - set(types)
    if unknown:
        key = sorted(unknown)[0]
        raise ConfigError(f"unknown key {key}{did_you_mean(key, types)}; known: {', '.join(types)}")
    parts: dict[str, Any] = {}
    for group, known in registry.GROUPS.items():
        if group not in registry.LIST_GROUPS:
            parts[group] = _filled_plugin(known, values.get(group), group, overrides)
    for group in registry.LIST_GROUPS:
        chosen = values.get(group) or {}
        if not isinstance(chosen, dict):
            raise ConfigError(f"{group}={chosen}: type {group}=NAME, {group}=[NAME,NAME] or {group}=none")
        known = registry.GROUPS[group]
        parts[group] = {
            name: _filled_plugin(known, options, f"{group}.{name}", overrides) for name, options in chosen.items()
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
    # Stages run in their own order, whatever order they are named in.
    config.stages = [stage for stage in Stage if stage in config.stages]
    if isinstance(config.reward, ElasticOptions) and config.reward.decay is None:
        config.reward.decay = 0.9 if _has_pairs(config.method) else 0.5
    return config


def _has_pairs(method: Any) -> bool:
    """Whether the method that takes a reward compares each answer with a paired one."""
    takes_reward: bool = registry.methods[method.name].factory.takes_reward
    return takes_reward and registry.methods.build(method).pairs is not Pairs.none


def _filled_plugin(known: registry.Registry, values: Any, path: str, overrides: Sequence[str]) -> Any:
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{path}.name={name}: no such {known.group}{did_you_mean(str(name), known.names())}; "
            f"known: {', '.join(known.names())}"
        )
    return fill(known[name].options, values, path, overrides)
