"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.data.rows import Request
from erulab.methods.base import Method
from erulab.options import product_options
from erulab.registry import adversaries, methods, rewards
from erulab.stages.best_step import read_kept
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.lab import METRICS, Lab
from erulab.stages.step_judge import build_step_judge, choice_depends_on
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

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.product.key, str(self.product.folder / "model"))

    @property
    def kept(self) -> Mapping[str, Any]:
        """Which step the model is of, as figures of scores.json; empty for the model after the last step."""
        return read_kept(self.product.folder)


def unlearn(context: Context, target: ModelRef, oracle: ModelRef | None) -> list[UnlearnedRequest]:
    """Unlearns every request in turn, each unless the cache has it; the metrics of its training are kept beside it.

    Args:
        oracle: what `trainer.keep=best` compares with.
    """
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    first_step = 0  # of the request, over all steps of this run
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        context.tracker.begin(request.name if len(requests) > 1 else "", first_step)
        product = _unlearn_request(context, start, oracle, request, title=_title(request, requests))
        if product.from_cache:
            context.tracker.replay(product.folder / METRICS)
        done.append(_finish_request(request, product, requests, done))
        trainer = context.config.trainer
        first_step += total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    return done


def find_unlearned(context: Context, target: ModelRef, oracle: ModelRef | None) -> list[UnlearnedRequest]:
    """Finds the requests that an earlier run unlearned, up to the first one that the cache does not have."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        product = context.cache.find(
            KIND, _unlearning_depends_on(context, start, oracle, _encode_request(context, start, request))
        )
        if product is None:
            break
        done.append(_finish_request(request, product, requests, done))
    return done


def _requests(context: Context) -> Sequence[Request]:
    """Returns the data set's requests; without any, all forget rows are one request without a name."""
    return context.benchmark.requests or (Request("", context.benchmark.forget),)


def _title(request: Request, requests: Sequence[Request]) -> str:
    return f"unlearning request {request.name}" if len(requests) > 1 else "unlearning"


def _finish_request(
    request: Request, product: Product, requests: Sequence[Request], before: Sequence[UnlearnedRequest]
) -> UnlearnedRequest:
    """Names the role of a request's model, and adds the costs of the requests that it continues.

    Args:
        requests: all requests of the data set.
        before: the requests that are done, in order.
    """
    costs = (
        account.sum_over_products([before[-1].costs, product.costs]) if before and request.continues else product.costs
    )
    role = UNLEARNED if request is requests[-1] else f"{UNLEARNED}@{request.name}"
    return UnlearnedRequest(role, product, costs)


def _encode_request(context: Context, start: ModelRef, request: Request) -> UnlearningRows:
    """Encodes the rows of a request with the tokenizer and template of the model that the request starts from."""
    method: Method = methods.build(context.config.method)
    asked = replace(context.benchmark, forget=request.forget)
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    return encode_unlearning_rows(encoder, asked, method, context.config.seed)


def _unlearning_depends_on(
    context: Context, start: ModelRef, oracle: ModelRef | None, rows: UnlearningRows
) -> dict[str, Any]:
    """Returns all that the unlearned weights depend on. `start`: the model that the request starts from."""
    config = context.config
    plugins = (methods[config.method.name], rewards[config.reward.name], adversaries[config.adversary.name])
    code = [plugin.code for plugin in plugins if plugin.code]
    return {
        "stage": "unlearn",
        "version": VERSION,
        "target": start.key,
        "seed": config.seed,
        "method": asdict(config.method),
        "reward": asdict(config.reward),
        "adversary": asdict(config.adversary),
        "trainer": product_options(asdict(config.trainer)),
        "lora": asdict(config.model.lora) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget),
        "paired": content_hash(rows.paired),
        "retain": content_hash(rows.retain),
        **({"retain_paired": content_hash(rows.retain_paired)} if rows.retain_paired else {}),
        **({"code": code} if code else {}),
        # The figures of `trainer.eval_every` are kept with the model, so the key depends on their rows too.
        **({"looks": context.data.identity_of_selected} if config.trainer.eval_every is not None else {}),
        **choice_depends_on(context, oracle),
    }


def _unlearn_request(
    context: Context, start: ModelRef, oracle: ModelRef | None, request: Request, title: str
) -> Product:
    rows, rerun = _encode_request(context, start, request), context.config.rerun
    method: Method = methods.build(context.config.method)
    depends_on = _unlearning_depends_on(context, start, oracle, rows)
    judge = None
    # Before `produce`, which counts what making the product costs.
    if context.keeps_best and oracle is not None and (rerun or context.cache.find(KIND, depends_on) is None):
        judge = build_step_judge(context, start, oracle)
    return context.cache.produce(
        KIND, depends_on, lambda folder: method.unlearn(Lab(context, start, rows, folder, title, judge)), rerun=rerun
    )
