"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.data.rows import Request, Row
from erulab.methods.base import FollowUp, Method, forgetting_options
from erulab.options import product_options
from erulab.registry import adversaries, methods, rewards
from erulab.stages.best_step import read_kept
from erulab.stages.cache import Product, key_of
from erulab.stages.context import Context
from erulab.stages.lab import METRICS, Lab
from erulab.stages.request_rows import Preparation, encode_request, find_preparations, prepare_request
from erulab.stages.step_judge import build_step_judge, choice_depends_on
from erulab.training.batches import total_steps
from erulab.training.encode_rows import content_hash
from erulab.training.loader import ModelRef
from erulab.training.unlearning_batches import UnlearningRows

VERSION = 1  # of this stage's results: a change makes every unlearned model anew
KIND = "unlearned"
UNLEARNED = "unlearned"  # the role of the last request's model
# Options of a method that say which tokens of the rows count: the hash of the rows holds what they do.
SEEN_IN_ROWS = ("forget_tokens", "surprise")


@dataclass(frozen=True)
class UnlearnedRequest:
    """One request that has been unlearned."""

    role: str  # of its model: "unlearned" for the last request, "unlearned@<request>" for those before
    products: tuple[Product, ...]  # what was made for it; the last one holds its model
    costs: Costs  # of all requests that led from the target to its model
    forget: Sequence[Row]  # the rows that it names
    alternatives: Product | None  # the answers that were generated for these rows, if the method asks for some

    @property
    def ref(self) -> ModelRef:
        return self.products[-1].model

    @property
    def kept(self) -> Mapping[str, Any]:
        """Which step the model is of, as figures of scores.json; empty for the model after the last step."""
        return read_kept(self.products[-1].folder)


def unlearn(context: Context, target: ModelRef, oracle: ModelRef | None) -> list[UnlearnedRequest]:
    """Unlearns every request in turn, each unless the cache has it; the metrics of its training are kept beside it.

    Args:
        oracle: what `trainer.keep=best` compares with; it also tells which tokens are surprising, where the method
            forgets those. None where the run has none.
    """
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    first_step = 0  # of the request, over all steps of this run
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        context.tracker.begin(request.name if len(requests) > 1 else "", first_step)
        prepared = prepare_request(_forgetting(context), start, request, oracle)
        product = _unlearn_request(context, start, request, oracle, prepared, title=_title(request, requests))
        if product.from_cache:
            context.tracker.replay(product.folder / METRICS)
        done.append(_finish_request(request, product, prepared, requests, done))
        first_step += _steps(context, request)
    return done


def find_unlearned(context: Context, target: ModelRef, oracle: ModelRef | None) -> list[UnlearnedRequest]:
    """Finds the requests that an earlier run unlearned, up to the first one that the cache does not have."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        found = _find_request(context, start, request, oracle)
        if found is None:
            break
        done.append(_finish_request(request, *found, requests, done))
    return done


def steps_by_request(context: Context) -> list[tuple[str, int, int]]:
    """Returns name, forget rows and steps of each request, in order; a single request has no name."""
    requests = _requests(context)
    return [(request.name, len(request.forget), _steps(context, request)) for request in requests]


def _requests(context: Context) -> Sequence[Request]:
    """Returns the data set's requests; without any, all forget rows are one request without a name."""
    return context.benchmark.requests or (Request("", context.benchmark.forget),)


def _title(request: Request, requests: Sequence[Request]) -> str:
    return f"unlearning request {request.name}" if len(requests) > 1 else "unlearning"


def _steps(context: Context, request: Request) -> int:
    """Returns the steps that unlearning a request takes, as its metrics count them."""
    trainer, method = context.config.trainer, methods.build(context.config.method)
    steps = total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    if not isinstance(method, FollowUp):
        return steps
    return steps + (steps if method.retain_steps is None else method.retain_steps)


def _with_method(context: Context, options: Any) -> Context:
    """Returns the context of a run with another method."""
    return replace(context, config=replace(context.config, method=options))


def _forgetting(context: Context) -> Context:
    """Returns the context of the run with the method that trains on the forget rows."""
    return _with_method(context, forgetting_options(context.config.method))


def _finish_request(
    request: Request,
    product: Product,
    prepared: Preparation,
    requests: Sequence[Request],
    before: Sequence[UnlearnedRequest],
) -> UnlearnedRequest:
    """Names the role of a request's model, and adds the costs of the requests that it continues.

    Args:
        product: holds its model.
        requests: all requests of the data set.
        before: the requests that are done, in order.
    """
    products = (*prepared.products, product)
    earlier = [before[-1].costs] if before and request.continues else []
    costs = account.sum_over_products([*earlier, *(one.costs for one in products)])
    role = UNLEARNED if request is requests[-1] else f"{UNLEARNED}@{request.name}"
    return UnlearnedRequest(role, products, costs, request.forget, prepared.alternatives)


def _find_request(
    context: Context, start: ModelRef, request: Request, oracle: ModelRef | None
) -> tuple[Product, Preparation] | None:
    """Finds what earlier runs made for a request; None if its model is not there."""
    forgetting = _forgetting(context)
    for prepared in find_preparations(forgetting, start, request, oracle):
        rows = encode_request(forgetting, start, request, prepared)
        product = context.cache.find(KIND, _unlearning_depends_on(context, start, oracle, rows))
        if product is not None:
            return product, prepared
    return None


def _unlearning_depends_on(
    context: Context, start: ModelRef, oracle: ModelRef | None, rows: UnlearningRows
) -> dict[str, Any]:
    """Returns all that the unlearned weights depend on. `start`: the model that the request starts from."""
    config = context.config
    used = {config.method.name, forgetting_options(config.method).name}
    plugins = [*(methods[name] for name in sorted(used)), rewards[config.reward.name]]
    code = [plugin.code for plugin in (*plugins, adversaries[config.adversary.name]) if plugin.code]
    return {
        "stage": "unlearn",
        "version": VERSION,
        "target": start.key,
        "seed": config.seed,
        "method": {k: v for k, v in asdict(config.method).items() if k not in SEEN_IN_ROWS},
        "reward": asdict(config.reward),
        "adversary": asdict(config.adversary),
        "trainer": product_options(asdict(config.trainer)),
        "lora": asdict(config.model.lora) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget),
        "paired": content_hash(rows.paired),
        "retain": content_hash(rows.retain),
        **({"retain_paired": content_hash(rows.retain_paired)} if rows.retain_paired else {}),
        **({"facts": key_of({"facts": list(rows.facts)})} if rows.facts else {}),
        **({"code": code} if code else {}),
        # The figures of `trainer.eval_every` are kept with the model, so the key depends on their rows too.
        **({"looks": context.data.identity_of_selected} if config.trainer.eval_every is not None else {}),
        **choice_depends_on(context, oracle),
    }


def _unlearn_request(
    context: Context,
    start: ModelRef,
    request: Request,
    oracle: ModelRef | None,
    prepared: Preparation,
    title: str,
) -> Product:
    rows = encode_request(_forgetting(context), start, request, prepared)
    method: Method = methods.build(context.config.method)
    depends_on, rerun = _unlearning_depends_on(context, start, oracle, rows), context.config.rerun
    judge = None
    # Before `produce`, which counts what making the product costs.
    if context.keeps_best and oracle is not None and (rerun or context.cache.find(KIND, depends_on) is None):
        judge = build_step_judge(context, start, oracle)

    def unlearn_by(options: Any) -> Product:
        return _unlearn_request(_with_method(context, options), start, request, oracle, prepared, title)

    return context.cache.produce(
        KIND,
        depends_on,
        lambda folder: method.unlearn(Lab(context, start, rows, depends_on, folder, title, unlearn_by, judge)),
        rerun=rerun,
    )
