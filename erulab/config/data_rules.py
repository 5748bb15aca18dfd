"""Checks of data sets by their options alone: which methods their rows are for, and what needs retain rows."""

from __future__ import annotations

import dataclasses
from typing import Any

from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.data.muse import MuseOptions
from erulab.data.rwku import RwkuOptions, Train
from erulab.data.wmdp import WmdpOptions
from erulab.errors import ConfigError
from erulab.methods.base import FollowUp, GradientMethod, gradient_method
from erulab.methods.needs import Answer, ForgetTokens, Pairs
from erulab.methods.preference import PreferenceOptions
from erulab.methods.retain import Retain
from erulab.options import RunConfig, Stage
from erulab.registry import methods


def check_data_set(config: RunConfig) -> None:
    """Refuses a method or an adversary that has no use for the rows of the data set.

    Raises:
        ConfigError: why, and what to type instead.
    """
    unlearns = Stage.unlearn in config.stages and config.model.unlearned is None
    method = gradient_method(config.method)
    if not unlearns or method is None:
        return
    if isinstance(config.dataset, RwkuOptions):
        _check_rwku(config, config.dataset, method)
    if isinstance(config.dataset, WmdpOptions):
        _check_wmdp(config, config.dataset, method)
    if isinstance(config.dataset, WmdpOptions | MuseOptions) and _needs_refusals(method):
        raise ConfigError(
            f"method={config.method.name} needs refusals, which answer a prompt, and dataset={config.dataset.name} "
            "forgets running text; type a method without refusals, such as method=npo"
        )


def check_without_retain(config: RunConfig, lacking: str = "") -> None:
    """Refuses methods and adversaries that need retain rows, for a data set that has none.

    Args:
        config: a run that unlearns.
        lacking: words for the message: what the data set's folder lacks, if that is the reason.
    Raises:
        ConfigError: the option that needs retain rows, and what to type instead.
    """
    name, file = config.dataset.name, ", or dataset.retain=FILE" * isinstance(config.dataset, RwkuOptions)
    built, method = methods.build(config.method), gradient_method(config.method)
    if isinstance(built, FollowUp) and built.retain_steps != 0:
        raise ConfigError(
            f"method={config.method.name} distils on retain rows, and dataset={name} has none{lacking}; take another "
            f"method, such as method={built.first.name}{file}"
        )
    if method is not None and method.retain_terms:
        needs = f"method.retain={method.options.retain.value}"
        instead = "method.retain=none"
        if not _goes_without_retain(method.options):
            needs, instead = f"method={config.method.name}", "another method, such as method=ga"
        raise ConfigError(f"{needs} needs retain rows, and dataset={name} has none{lacking}; type {instead}{file}")
    adversary = config.adversary
    if isinstance(adversary, RFAOptions) and adversary.direction is Direction.forget_minus_retain:
        raise ConfigError(
            f"adversary.direction={adversary.direction.value} needs retain rows, and dataset={name} has none{lacking}; "
            f"type adversary.direction=policy_minus_target, or another adversary{file}"
        )


def _needs_refusals(method: GradientMethod) -> bool:
    needs = method.needs
    return needs.answer is Answer.refusal or needs.pairs is Pairs.refusal or any(t.paired for t in method.retain_terms)


def _goes_without_retain(options: Any) -> bool:
    """Tells whether `method.retain=none` is allowed and leaves the method without a retain term."""
    try:
        method = gradient_method(dataclasses.replace(options, retain=Retain.none))
    except ValueError:
        return False
    return method is not None and not method.retain_terms


def _check_rwku(config: RunConfig, options: RwkuOptions, method: GradientMethod) -> None:
    """Requires a method for the kind of training rows that `dataset.train` chooses; RWKU has no retain rows."""
    train, refusals = f"dataset.train={options.train.value}", options.train is Train.refusal
    named = f"method={config.method.name}"
    if method.needs.answer is Answer.refusal and not refusals:
        raise ConfigError(f"{named} trains on refusals, and {train} has none; type dataset.train=refusal")
    if method.needs.answer is Answer.forget and refusals:
        raise ConfigError(
            f"{train} has questions and refusals, and no answer for {named} to forget; type method=idk, or "
            "dataset.train=positive"
        )
    if refusals and config.adversary.name != "none":
        adversary = f"adversary={config.adversary.name}"
        raise ConfigError(f"{adversary} brings answers back, and {train} has none; type adversary=none")
    if refusals and options.spans:
        raise ConfigError(f"dataset.spans=true marks answers, and {train} has none; type dataset.spans=false")
    pairs = method.needs.pairs
    if pairs is Pairs.refusal and not isinstance(method.options, PreferenceOptions):
        raise ConfigError(
            f"{named} compares each answer with a refusal, and RWKU has none beside its answers; type method=dpo "
            "method.pairs=fabricated dataset.train=pair"
        )
    same_sentence = pairs is Pairs.same_sentence
    if same_sentence or method.options.forget_tokens is ForgetTokens.span:
        chosen = "method.pairs=same_sentence" if same_sentence else "method.forget_tokens=span"
        if not options.spans:
            raise ConfigError(f"{chosen} needs the words that carry the facts; type dataset.spans=true")
    given = pairs not in (Pairs.none, Pairs.same_sentence) and method.needs.generated is None
    if given and not (pairs is Pairs.fabricated and options.train is Train.pair):
        raise ConfigError(
            f"method.pairs={pairs.value} with {train}: the only paired answers of RWKU are fabricated ones; "
            "type method.pairs=fabricated dataset.train=pair"
        )
    if options.retain is None:
        check_without_retain(config)


def _check_wmdp(config: RunConfig, data: WmdpOptions, method: GradientMethod) -> None:
    """Requires texts that the user names: WMDP's own questions only measure."""
    instead = "or type stages=[evaluate,report] to measure only"
    if data.forget is None:
        raise ConfigError(
            "dataset=wmdp has questions, but no texts to forget; type 'dataset.forget=[FILE]' or "
            f"'dataset.forget=[cais/wmdp-corpora/cyber-forget-corpus]', {instead}"
        )
    retain = method.options.retain
    if data.retain is None and retain is not Retain.none:
        raise ConfigError(
            f"method.retain={retain.name} rehearses texts, and dataset=wmdp has none; type "
            f"'dataset.retain=[FILE]' or method.retain=none, {instead}"
        )
