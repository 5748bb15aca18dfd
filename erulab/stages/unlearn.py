"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from erulab.adversaries.weights import WeightAdversary
from erulab.costs import account
from erulab.costs.account import Costs
from erulab.data.rows import Request, Row
from erulab.methods.base import Alternatives, FollowUp, Method, gradient_method
from erulab.options import NOT_IN_PRODUCT
from erulab.registry import adversaries, methods, rewards
from erulab.stages.alternatives import (
    find_alternatives,
    make_alternatives,
    read_alternatives,
    wanted_alternatives,
)
from erulab.stages.cache import Product, key_of
from erulab.stages.context import Context
from erulab.stages.lab import METRICS, Lab
from erulab.training.assembly import encode_unlearning_rows
from erulab.training.batches import total_steps
from erulab.training.encode_rows import content_hash
from erulab.training.loader import ModelRef
from erulab.training.unlearning_batches import UnlearningRows

VERSION = 1  # of this stage's results: a change makes every unlearned model anew
KIND = "unlearned"
UNLEARNED = "unlearned"  # the role of the last request's model


@dataclass(frozen=True)
class UnlearnedRequest:
    """One request that has been unlearned."""

    role: str  # of its model: "unlearned" for the last request, "unlearned@<request>" for those before
    product: Product
    costs: Costs  # of all requests that led from the target to its model
    forget: Sequence[Row]  # the rows that it names
    alternatives: Product | None  # the answers that were generated for these rows, if the method asks for some

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.product.key, str(self.product.folder / "model"))


def unlearn(context: Context, target: ModelRef) -> list[UnlearnedRequest]:
    """Unlearns every request in turn, each unless the cache has it; the metrics of its training are kept beside it."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    first_step = 0  # of the request, over all steps of this run
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        context.tracker.begin(request.name if len(requests) > 1 else "", first_step)
        alternatives = _find_alternatives(context, start, request, make=True)
        product = _unlearn_request(context, start, request, alternatives, title=_title(request, requests))
        if product.from_cache:
            context.tracker.replay(product.folder / METRICS)
        done.append(_finish_request(request, product, alternatives, requests, done))
        first_step += _steps(context, request)
    return done


def find_unlearned(context: Context, target: ModelRef) -> list[UnlearnedRequest]:
    """Finds the requests that an earlier run unlearned, up to the first one that the cache does not have."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        alternatives = _find_alternatives(context, start, request, make=False)
        if alternatives is None and _wanted(context) is not None:
            break
        rows = _encode_request(context, start, request, alternatives)
        product = context.cache.find(KIND, _unlearning_depends_on(context, start, rows))
        if product is None:
            break
        done.append(_finish_request(request, product, alternatives, requests, done))
    return done


def _steps(context: Context, request: Request) -> int:
    """Returns the steps that unlearning a request takes, as its metrics count them."""
    trainer, method = context.config.trainer, methods.build(context.config.method)
    steps = total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    if not isinstance(method, FollowUp):
        return steps
    return steps + (steps if method.retain_steps is None else method.retain_steps)


def _requests(context: Context) -> Sequence[Request]:
    """Returns the data set's requests; without any, all forget rows are one request without a name."""
    return context.benchmark.requests or (Request("", context.benchmark.forget),)


def _title(request: Request, requests: Sequence[Request]) -> str:
    return f"unlearning request {request.name}" if len(requests) > 1 else "unlearning"


def _wanted(context: Context) -> Alternatives | None:
    return wanted_alternatives(gradient_method(context.config.method))


def _with_method(context: Context, options: Any) -> Context:
    """Returns the context of a run with another method."""
    return replace(context, config=replace(context.config, method=options))


def _find_alternatives(context: Context, start: ModelRef, request: Request, *, make: bool) -> Product | None:
    """Returns the generated answers to a request's rows; None if the method asks for none.

    Args:
        make: whether they are generated if the cache does not have them; otherwise None is returned.
    """
    wanted = _wanted(context)
    if wanted is None:
        return None
    return (make_alternatives if make else find_alternatives)(context, start, request, wanted)


def _finish_request(
    request: Request,
    product: Product,
    alternatives: Product | None,
    requests: Sequence[Request],
    before: Sequence[UnlearnedRequest],
) -> UnlearnedRequest:
    """Names the role of a request's model, and adds the costs of the requests that it continues.

    Args:
        alternatives: the generated answers to its rows, if the method asks for some.
        requests: all requests of the data set.
        before: the requests that are done, in order.
    """
    needed = [before[-1].costs] if before and request.continues else []
    needed += [alternatives.costs] if alternatives is not None else []
    costs = account.sum_over_products([*needed, product.costs]) if needed else product.costs
    role = UNLEARNED if request is requests[-1] else f"{UNLEARNED}@{request.name}"
    return UnlearnedRequest(role, product, costs, request.forget, alternatives)


def _encode_request(
    context: Context, start: ModelRef, request: Request, alternatives: Product | None
) -> UnlearningRows:
    """Encodes the rows of a request with the tokenizer and template of the model that the request starts from."""
    method: Method = gradient_method(context.config.method) or methods.build(context.config.method)
    asked = replace(context.benchmark, forget=request.forget)
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    texts = None if alternatives is None else read_alternatives(alternatives)
    rows = encode_unlearning_rows(encoder, asked, method, context.config.seed, texts)
    return replace(rows, facts=[row.fact_id for row in request.forget]) if _relearns(context) else rows


def _relearns(context: Context) -> bool:
    """Tells whether the run's adversary relearns facts that a step leaves out."""
    adversary = adversaries.build(context.config.adversary)
    return isinstance(adversary, WeightAdversary) and adversary.relearns


def _unlearning_depends_on(context: Context, start: ModelRef, rows: UnlearningRows) -> dict[str, Any]:
    """Returns all that the unlearned weights depend on. `start`: the model that the request starts from."""
    config = context.config
    built = methods.build(config.method)
    plugins = [methods[config.method.name], rewards[config.reward.name], adversaries[config.adversary.name]]
    plugins += [methods[built.first.name]] if isinstance(built, FollowUp) else []
    code = [plugin.code for plugin in plugins if plugin.code]
    return {
        "stage": "unlearn",
        "version": VERSION,
        "target": start.key,
        "seed": config.seed,
        "method": asdict(config.method),
        "reward": asdict(config.reward),
        "adversary": asdict(config.adversary),
        "trainer": {k: v for k, v in asdict(config.trainer).items() if k not in NOT_IN_PRODUCT},
        "lora": asdict(config.model.lora) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget),
        "paired": content_hash(rows.paired),
        "retain": content_hash(rows.retain),
        **({"retain_paired": content_hash(rows.retain_paired)} if rows.retain_paired else {}),
        **({"facts": key_of({"facts": list(rows.facts)})} if rows.facts else {}),
        **({"code": code} if code else {}),
        # The figures of `trainer.eval_every` are kept with the model, so the key depends on their rows too.
        **({"looks": context.data.identity_of_selected} if config.trainer.eval_every is not None else {}),
    }


def _unlearn_request(
    context: Context, start: ModelRef, request: Request, alternatives: Product | None, title: str
) -> Product:
    rows = _encode_request(context, start, request, alternatives)
    method: Method = methods.build(context.config.method)

    def unlearn_by(options: Any) -> Product:
        return _unlearn_request(_with_method(context, options), start, request, alternatives, title)

    return context.cache.produce(
        KIND,
        _unlearning_depends_on(context, start, rows),
        lambda folder: method.unlearn(Lab(context, start, rows, folder, title, unlearn_by)),
        rerun=context.config.rerun,
    )
