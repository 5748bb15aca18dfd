"""What the doctor finds about one run: each check of the command, and each file and hub repository that it names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from erulab import registry
from erulab.attacks.relearn import RelearnOptions
from erulab.attacks.relearn_rows import check_texts_file
from erulab.attacks.sequence import every_options
from erulab.commands.arguments import OUTPUTS
from erulab.commands.findings import Finding, missing, note, ok
from erulab.commands.machine_findings import folder_finding
from erulab.config.compose import compose_config, config_to_dict
from erulab.config.judge_rules import check_judge_of_job
from erulab.config.messages import USER_ERRORS, error_line
from erulab.config.rules import JOB_CHECKS, check_named_files
from erulab.errors import ConfigError, EnvironmentFault, ErulabError
from erulab.hub import is_hub_id
from erulab.launching import engine_choice, generator_choice, machine
from erulab.options import RunConfig
from erulab.reporting.numbers import size
from erulab.reporting.settings import flat_settings
from erulab.tracking.checks import check_tracker

# Keys whose values name files or hub repositories.
WEIGHTS = ("path", "target", "oracle", "unlearned", "tokenizer")


def run_findings(overrides: Sequence[str], *, hub_answers: bool) -> list[Finding]:
    """Looks at everything that one run needs, instead of ending at the first thing that is missing.

    Args:
        overrides: the command line.
        hub_answers: whether a repository that was never fetched can be.
    Raises:
        ConfigError: the overrides do not compose, or name a sweep.
    """
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ConfigError(f"{override!r} is not KEY=VALUE; see python -m erulab doctor --help")
    try:
        config = compose_config(overrides)
    except USER_ERRORS as error:
        raise error if isinstance(error, ErulabError) else ConfigError(error_line(error)) from None
    folders = {key: getattr(config, key) for key in ("output", "cache")}
    # The usual folder is among the findings about the machine.
    named = {key: Path(folder) for key, folder in folders.items() if folder != OUTPUTS}
    found = [folder_finding(f"disk for {key}", folder, key) for key, folder in named.items()]
    return [*found, *_checks(config), *_files(config, hub_answers)]


def _checks(config: RunConfig) -> Iterator[Finding]:
    """Yields the outcome of each check that `erulab run` makes before a worker starts."""
    try:
        gpus = machine.gpus()
    except EnvironmentFault:  # what is wrong with them stands among the findings about the machine
        gpus = []
    settled = dataclasses.replace(config, engine=engine_choice.choose_engine(config.engine, len(gpus)))
    engine = settled.engine
    yield _outcome("settings", lambda: _check_settings(settled), "they go together")
    yield _outcome(
        f"engine={engine.name.value}",
        lambda: engine_choice.check_machine(settled, gpus),
        f"{engine.processes} process{'es' * ((engine.processes or 1) > 1)}",
    )
    yield _outcome("generator", lambda: generator_choice.check_generator(settled, gpus), "the run can generate")
    yield _outcome(f"model={config.model.name}", registry.models.build(config.model).validate, "local files are there")
    named = [(f"dataset={config.dataset.name}", registry.datasets.build(config.dataset))]
    named += [(f"benchmark={name}", registry.benchmarks.build(one)) for name, one in config.benchmark.items()]
    for what, plugin in named:
        yield _outcome(what, plugin.validate, "local files are there")
    for options in every_options(config.attack):
        if isinstance(options, RelearnOptions) and options.texts is not None:
            yield _outcome("attack=relearn", functools.partial(check_texts_file, options.texts), "its texts are there")
    yield _outcome(f"tracker={config.tracker.name.value}", lambda: check_tracker(config), "it can be used")
    if config.evaluation.judge.is_named:
        yield _outcome("judge", lambda: check_judge_of_job(settled), "it can be asked")


def _check_settings(config: RunConfig) -> None:
    """Runs the checks on a config with a definite engine that have no finding of their own."""
    for check in JOB_CHECKS:
        if check not in (check_named_files, check_judge_of_job):
            check(config)


def _outcome(what: str, check: Callable[[], Any], fine: str) -> Finding:
    """Returns what a check says: erulab's own lines name the fix behind a semicolon."""
    try:
        check()
    except ErulabError as error:
        wrong, _, fix = str(error).partition("; ")
        return missing(what, wrong, fix)
    return ok(what, fine)


def _files(config: RunConfig, hub_answers: bool) -> Iterator[Finding]:
    """Yields each local file or folder that the config names, and each repository of the hub."""
    for key, value in flat_settings(config_to_dict(config)).items():
        if key in ("output", "cache"):
            continue
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not name:
                continue
            if ("/" in name or key.rpartition(".")[2] in WEIGHTS) and Path(name).exists():
                yield ok(key, f"{name} ({size(_bytes_below(Path(name)))})")
            elif key.rpartition(".")[2] in WEIGHTS and "/" in name and is_hub_id(name):
                yield _repository(key, name, hub_answers)


def _repository(key: str, name: str, hub_answers: bool) -> Finding:
    from huggingface_hub import constants  # slow to load, and rarely needed

    kind = "dataset" if key.startswith(("dataset.", "benchmark.")) else "model"
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
    if folder.is_dir():
        return ok(key, f"hub {kind} {name} was fetched")
    fix = f"hf download {name} --repo-type {kind}"
    if not hub_answers:
        return missing(key, f"hub {kind} {name} was not fetched", f"where the hub answers: {fix}")
    return note(key, f"hub {kind} {name} is fetched when the run starts", fix)


def _bytes_below(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
