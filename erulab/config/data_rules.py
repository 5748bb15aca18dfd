"""Which methods a data set's rows are for, and what cannot be done without retain rows."""

from __future__ import annotations

from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.data.rwku import RwkuOptions, Train
from erulab.data.wmdp import WmdpOptions
from erulab.errors import ConfigError
from erulab.methods.base import GradientMethod, Pairs, Retain, Trains
from erulab.options import RunConfig, Stage
from erulab.registry import methods


def check(config: RunConfig) -> None:
    """What is known of a data set by its options alone.

    Raises:
        ConfigError: why, and what to type instead.
    """
    unlearns = Stage.unlearn in config.stages and config.model.unlearned is None
    if not unlearns or not methods[config.method.name].factory.trains.has_forget_loss:
        return
    method: GradientMethod = methods.build(config.method)
    if isinstance(config.dataset, RwkuOptions):
        _check_rwku(config, config.dataset, method)
    if isinstance(config.dataset, WmdpOptions):
        _check_wmdp(config, config.dataset)


def check_without_retain(config: RunConfig, lacking: str = "") -> None:
    """What a method that unlearns cannot do on a data set without retain rows.

    Args:
        lacking: what the data set's folder lacks, where that is why.
    Raises:
        ConfigError
    """
    name, file = config.dataset.name, ", or dataset.retain=FILE" * isinstance(config.dataset, RwkuOptions)
    if config.method.retain is not Retain.none:
        raise ConfigError(
            f"method.retain={config.method.retain.value} needs retain rows, and dataset={name} has none{lacking}; "
            f"type method.retain=none{file}"
        )
    adversary = config.adversary
    if isinstance(adversary, RFAOptions) and adversary.direction is Direction.forget_minus_retain:
        raise ConfigError(
            f"adversary.direction={adversary.direction.value} needs retain rows, and dataset={name} has none{lacking}; "
            f"type adversary.direction=policy_minus_target, or another adversary{file}"
        )


def _check_rwku(config: RunConfig, options: RwkuOptions, method: GradientMethod) -> None:
    """RWKU's training rows are of four kinds, each for methods of its own; and it has nothing to rehearse."""
    train, refusals = f"dataset.train={options.train.value}", options.train is Train.refusal
    named = f"method={config.method.name}"
    if method.trains is Trains.refusal and not refusals:
        raise ConfigError(f"{named} trains on refusals, and {train} has none; type dataset.train=refusal")
    if method.trains is Trains.forget and refusals:
        raise ConfigError(
            f"{train} has questions and refusals, and no answer for {named} to forget; type method=idk, or "
            "dataset.train=positive"
        )
    if refusals and config.adversary.name != "none":
        adversary = f"adversary={config.adversary.name}"
        raise ConfigError(f"{adversary} brings answers back, and {train} has none; type adversary=none")
    if method.pairs is not Pairs.none and not (method.pairs is Pairs.fabricated and options.train is Train.pair):
        raise ConfigError(
            f"method.pairs={method.pairs.value} with {train}: the only paired answers of RWKU are fabricated ones; "
            "type method.pairs=fabricated dataset.train=pair"
        )
    if options.retain is None:
        check_without_retain(config)


def _check_wmdp(config: RunConfig, data: WmdpOptions) -> None:
    """Its questions measure; what is forgotten and rehearsed are texts that the user names."""
    instead = "or type stages=[evaluate,report] to measure only"
    if data.forget is None:
        raise ConfigError(
            "dataset=wmdp has questions, but no texts to forget; type 'dataset.forget=[FILE]' or "
            f"'dataset.forget=[cais/wmdp-corpora/cyber-forget-corpus]', {instead}"
        )
    if data.retain is None and config.method.retain is not Retain.none:
        raise ConfigError(
            f"method.retain={config.method.retain.name} rehearses texts, and dataset=wmdp has none; type "
            f"'dataset.retain=[FILE]' or method.retain=none, {instead}"
        )
