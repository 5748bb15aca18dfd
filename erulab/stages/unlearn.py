"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.data.rows import Request
from erulab.methods.base import ForgetTokens, Method, forget_tokens_of
from erulab.options import product_options
from erulab.registry import adversaries, methods, rewards
from erulab.stages.best_step import read_kept
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.lab import METRICS, Lab
from erulab.stages.step_judge import build_step_judge, choice_depends_on
from erulab.stages.surprise import (
    SurprisingTokens,
    find_surprising_tokens,
    surprising_tokens,
    uninformed_model,
)
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import encode_unlearning_rows
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

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.products[-1].key, str(self.products[-1].folder / "model"))

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
        products = _unlearn_request(context, start, request, oracle, title=_title(request, requests))
        if products[-1].from_cache:
            context.tracker.replay(products[-1].folder / METRICS)
        done.append(_finish_request(request, products, requests, done))
        trainer = context.config.trainer
        first_step += total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    return done


def find_unlearned(context: Context, target: ModelRef, oracle: ModelRef | None) -> list[UnlearnedRequest]:
    """Finds the requests that an earlier run unlearned, up to the first one that the cache does not have."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        products = _find_request(context, start, request, oracle)
        if not products:
            break
        done.append(_finish_request(request, products, requests, done))
    return done


def _requests(context: Context) -> Sequence[Request]:
    """Returns the data set's requests; without any, all forget rows are one request without a name."""
    return context.benchmark.requests or (Request("", context.benchmark.forget),)


def _title(request: Request, requests: Sequence[Request]) -> str:
    return f"unlearning request {request.name}" if len(requests) > 1 else "unlearning"


def _finish_request(
    request: Request, products: tuple[Product, ...], requests: Sequence[Request], before: Sequence[UnlearnedRequest]
) -> UnlearnedRequest:
    """Names the role of a request's model, and adds the costs of the requests that it continues.

    Args:
        requests: all requests of the data set.
        before: the requests that are done, in order.
    """
    earlier = [before[-1].costs] if before and request.continues else []
    costs = account.sum_over_products([*earlier, *(product.costs for product in products)])
    role = UNLEARNED if request is requests[-1] else f"{UNLEARNED}@{request.name}"
    return UnlearnedRequest(role, products, costs)


def _encode_request(
    context: Context, encoder: Encoder, request: Request, surprising: SurprisingTokens | None
) -> UnlearningRows:
    """Encodes the rows of a request.

    Args:
        encoder: has the tokenizer and template of the model that the request starts from.
        surprising: the tokens that count, where the method forgets surprising ones.
    """
    method: Method = methods.build(context.config.method)
    asked = replace(context.benchmark, forget=request.forget)
    positions = None if surprising is None else surprising.positions
    forget_tokens = forget_tokens_of(context.config.method)
    return encode_unlearning_rows(encoder, asked, method, context.config.seed, forget_tokens, positions)


def _find_request(context: Context, start: ModelRef, request: Request, oracle: ModelRef | None) -> tuple[Product, ...]:
    """Finds what earlier runs made for a request; empty if its model is not there."""
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    surprising: Sequence[SurprisingTokens | None] = [None]
    if forget_tokens_of(context.config.method) is ForgetTokens.surprising:
        # The earlier run may have had an oracle or not.
        models = [None] if oracle is None else [oracle, None]
        found = [find_surprising_tokens(context, encoder, request.forget, model) for model in models]
        surprising = [tokens for tokens in found if tokens is not None]
    for tokens in surprising:
        rows = _encode_request(context, encoder, request, tokens)
        product = context.cache.find(KIND, _unlearning_depends_on(context, start, oracle, rows))
        if product is not None:
            return (product,) if tokens is None else (tokens.product, product)
    return ()


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
        "method": {k: v for k, v in asdict(config.method).items() if k not in SEEN_IN_ROWS},
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
    context: Context, start: ModelRef, request: Request, oracle: ModelRef | None, title: str
) -> tuple[Product, ...]:
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    tokens = None
    if forget_tokens_of(context.config.method) is ForgetTokens.surprising:
        uninformed = uninformed_model(context, oracle)
        tokens = surprising_tokens(context, encoder, request.forget, uninformed)
    rows = _encode_request(context, encoder, request, tokens)
    method: Method = methods.build(context.config.method)
    depends_on, rerun = _unlearning_depends_on(context, start, oracle, rows), context.config.rerun
    judge = None
    # Before `produce`, which counts what making the product costs.
    if context.keeps_best and oracle is not None and (rerun or context.cache.find(KIND, depends_on) is None):
        judge = build_step_judge(context, start, oracle)
    product = context.cache.produce(
        KIND, depends_on, lambda folder: method.unlearn(Lab(context, start, rows, folder, title, judge)), rerun=rerun
    )
    return (product,) if tokens is None else (tokens.product, product)
