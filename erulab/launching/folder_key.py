"""The key in a run folder's name: a hash of what the run's results depend on, by content and never by path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab import registry
from erulab.config.compose import config_to_dict
from erulab.data.base import Dataset
from erulab.evaluation.external.base import ExternalBenchmark
from erulab.models.folders import files_identity, folder_identity
from erulab.options import NOT_IN_VERDICTS, Facts, JudgeOptions, RunConfig, product_options, score_options
from erulab.tokens.templates import template_of

# Parts that change neither a model nor a score: two runs that differ only here share their folder.
NOT_IN_KEY = ("output", "cache", "tracker", "engine", "rerun", "stages", "attack", "report", "artifacts", "plugins")
# Parts of a run that have no effect where the user names every model.
UNUSED_FOR_GIVEN_MODELS = ("method", "reward", "adversary", "target", "trainer")
CHECKPOINTS = ("path", "target", "oracle", "unlearned")  # keys of `model` that name weights


def folder_key(config: RunConfig) -> str:
    """Returns 10 hex digits that identify what the run's results depend on.

    A path counts by what it holds, a hub id by its name.
    """
    values = {key: value for key, value in config_to_dict(config).items() if key not in NOT_IN_KEY}
    for part in ("trainer", "target"):
        values[part] = product_options(values[part])
    if values["target"]["oracle_seeds"] == 1:  # as before there could be several: finished runs keep their folders
        del values["target"]["oracle_seeds"]
    values["evaluation"] = score_options(values["evaluation"])
    if config.evaluation.facts is not Facts.all:
        values["facts"] = config.evaluation.facts.value
    if config.evaluation.judge.is_named:
        values["judge"] = _judge_values(config.evaluation.judge)
    for key in CHECKPOINTS:
        checkpoint = values["model"].get(key)
        if isinstance(checkpoint, list):
            values["model"][key] = [_identity_if_folder(one) for one in checkpoint]
        elif checkpoint is not None:
            values["model"][key] = _identity_if_folder(checkpoint)
    tokenizer = values["model"].get("tokenizer")
    if tokenizer is not None and Path(tokenizer).is_dir():
        values["model"]["tokenizer"] = files_identity(Path(tokenizer))
    if values["model"].get("template") is not None:
        values["model"]["template"] = template_of(values["model"]["template"])
    if config.only_given_models:
        values = {key: value for key, value in values.items() if key not in UNUSED_FOR_GIVEN_MODELS}
        read = ("attention", "template", "system", "tokenizer", *CHECKPOINTS[1:])
        values["model"] = {k: v for k, v in values["model"].items() if k in read and v is not None}
    values["dataset"] = _data_set_values(values["dataset"], registry.datasets.build(config.dataset), config)
    if values["benchmark"]:
        values["benchmark"] = {
            name: _data_set_values(values["benchmark"][name], registry.benchmarks.build(options), config)
            for name, options in config.benchmark.items()
        }
    else:
        del values["benchmark"]
    return short_hash(values)


def _identity_if_folder(checkpoint: str) -> str:
    return folder_identity(checkpoint) if Path(checkpoint).is_dir() else checkpoint


def _judge_values(judge: JudgeOptions) -> dict[str, Any]:
    values = {key: value for key, value in asdict(judge).items() if key not in NOT_IN_VERDICTS}
    return values if judge.model is None else {**values, "model": _identity_if_folder(judge.model)}


def _data_set_values(options: dict[str, Any], plugin: Dataset | ExternalBenchmark, config: RunConfig) -> dict[str, Any]:
    """Returns the values that a data set counts as: its options, with an identity of its content in place of paths.

    Args:
        options: the data set's options as plain values.
        plugin: the data set that was built from them.
        config: the run, whose cache holds the rows that have been read.
    """
    kept = {key: value for key, value in options.items() if not _names_files(value)}
    return {**kept, "identity": plugin.identity(Path(config.cache))}


def _names_files(value: Any) -> bool:
    """Tells whether an option is an existing path, or a list of existing paths."""
    paths = value if isinstance(value, list) else [value]
    return bool(paths) and all(isinstance(path, str) and Path(path).exists() for path in paths)


def short_hash(values: Any) -> str:
    """Returns 10 hex digits that identify plain values, for the names of folders."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:10]
