"""The models of a finished run of a study, found in the cache, and what is needed to measure or attack them again."""

from __future__ import annotations

from dataclasses import replace

import torch

from erulab import worker
from erulab.errors import DataError
from erulab.launching.job import Job
from erulab.methods.base import StandIn
from erulab.options import TrackerName, TrackerOptions
from erulab.ranks import Ranks
from erulab.registry import methods
from erulab.roles import ORACLE
from erulab.stages import learn, unlearn
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.training.loader import ModelRef
from erulab.training.stopping import StopRequest

TARGET, UNLEARNED = "target", unlearn.UNLEARNED


def open_run(job: Job) -> Context:
    """Returns the data and tools of a run in this process, on its first device and without a tracker."""
    config = replace(job.config, tracker=TrackerOptions(TrackerName.none))
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    return worker.build_context(job.rundir, config, Ranks(), device, StopRequest())


def find_models(job: Job, context: Context) -> dict[str, ModelRef]:
    """Finds the target, the unlearned model after the last request and the first oracle of a finished run.

    Args:
        context: of `open_run`.
    Raises:
        DataError: the cache no longer holds one of them.
    """
    given = context.config.model
    target = _found(job, context, TARGET, given.target, learn.find_learned(context, TARGET))
    oracle = _found(job, context, ORACLE, next(iter(given.oracles), None), learn.find_learned(context, ORACLE))
    method = methods.build(context.config.method)
    if given.unlearned is None and isinstance(method, StandIn):
        return {TARGET: target, ORACLE: oracle, UNLEARNED: {TARGET: target, ORACLE: oracle}[method.stands_for]}
    done = [] if given.unlearned is not None else unlearn.find_unlearned(context, target, oracle)
    last = done[-1].products[-1] if done and done[-1].role == UNLEARNED else None
    return {TARGET: target, ORACLE: oracle, UNLEARNED: _found(job, context, UNLEARNED, given.unlearned, last)}


def _found(job: Job, context: Context, role: str, given: str | None, product: Product | None) -> ModelRef:
    if given is not None:
        return context.loader.given(given)
    if product is None:
        raise DataError(
            f"{job.rundir.path}: its {role} model is no longer in {context.config.cache}, so it cannot be measured; "
            "delete the run folder and type the same command"
        )
    return product.model
