"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.data.rows import Request
from erulab.methods.base import GradientMethod
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import merged, save_adapter, with_lora
from erulab.options import product_settings
from erulab.registry import adversaries, methods, rewards
from erulab.reporting.console import progress
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.trajectory import Trajectory
from erulab.training.assembly import assemble_unlearning, encode_unlearning_rows
from erulab.training.batches import total_steps
from erulab.training.checkpoints import FORMAT, Checkpoints
from erulab.training.encode_rows import content_hash
from erulab.training.engine import Engine
from erulab.training.loader import ModelRef
from erulab.training.loop import train
from erulab.training.unlearning import UnlearningRows

VERSION = 1  # of this stage's results: a change makes every unlearned model anew
KIND = "unlearned"
UNLEARNED = "unlearned"  # the role of the last request's model
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class UnlearnedRequest:
    """One request that has been unlearned."""

    role: str  # of its model: "unlearned" for the last request, "unlearned@<request>" for those before
    product: Product
    costs: Costs  # of all requests that led from the target to its model

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
        product = _unlearn_request(context, start, request, title=_title(request, requests))
        if product.from_cache:
            context.tracker.replay(product.folder / METRICS)
        done.append(_finish_request(request, product, requests, done))
        trainer = context.config.trainer
        first_step += total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    return done


def find_unlearned(context: Context, target: ModelRef) -> list[UnlearnedRequest]:
    """Finds the requests that an earlier run unlearned, up to the first one that the cache does not have."""
    requests = _requests(context)
    done: list[UnlearnedRequest] = []
    for request in requests:
        start = done[-1].ref if done and request.continues else target
        product = context.cache.find(
            KIND, _unlearning_depends_on(context, start, _encode_request(context, start, request))
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
    method: GradientMethod = methods.build(context.config.method)
    asked = replace(context.benchmark, forget=request.forget)
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    return encode_unlearning_rows(encoder, asked, method, context.config.seed)


def _unlearning_depends_on(context: Context, start: ModelRef, rows: UnlearningRows) -> dict[str, Any]:
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
        "trainer": product_settings(asdict(config.trainer)),
        "lora": product_settings(asdict(config.model.lora)) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget),
        "paired": content_hash(rows.paired),
        "retain": content_hash(rows.retain),
        **({"code": code} if code else {}),
        # The figures of `trainer.eval_every` are kept with the model, so the key depends on their rows too.
        **({"looks": context.data.identity_of_selected} if config.trainer.eval_every is not None else {}),
    }


def _unlearn_request(context: Context, start: ModelRef, request: Request, title: str) -> Product:
    rows = _encode_request(context, start, request)
    return context.cache.produce(
        KIND,
        _unlearning_depends_on(context, start, rows),
        lambda folder: _train_request(context, start, rows, folder, title),
        rerun=context.config.rerun,
    )


def _train_request(context: Context, start: ModelRef, rows: UnlearningRows, folder: Path, title: str) -> None:
    """Unlearns one request's rows, and leaves the model and its metrics in `folder`."""
    config, ranks, tracker = context.config, context.ranks, context.tracker
    trainer = config.trainer
    subject = context.loader.load_to_train(start)
    references = context.cache.folder("references")
    unlearning = assemble_unlearning(config, context.loader, start, subject, rows, ranks, references)
    engine, loop = unlearning.engine, unlearning.loop
    checkpoints = Checkpoints(folder / "checkpoints", FORMAT, ranks)
    kept = folder / METRICS
    tracker.resume(kept)
    trajectory = Trajectory(context, unlearning.model, engine)
    try:
        with progress(title, loop.steps, enabled=ranks.first) as bar:
            for step, metrics in train(engine, unlearning.objective, loop, ranks, checkpoints, context.stop):
                bar.update(step + 1, metrics)
                seen = trajectory.after(step + 1)
                if step % trainer.log_every == 0 or step == loop.steps - 1 or seen:
                    tracker.log(step, metrics | seen)
                if trainer.save_every and (step + 1) % trainer.save_every == 0:
                    tracker.keep(kept)
    finally:
        tracker.keep(kept)
    _save(context, start, unlearning.model, engine, folder)
    checkpoints.clear()


def _save(context: Context, start: ModelRef, trained: LoadedModel, engine: Engine, folder: Path) -> None:
    """Writes the unlearned model; with LoRA the adapter beside it, and the model with the adapter merged into it."""
    lora, first = context.config.model.lora, context.ranks.first
    if not lora.rank:
        save_folder(trained, folder / "model", engine.weights(), write=first)
        return
    adapters = dict(engine.weights(trained_only=True))
    if first:
        # Put on the start model anew, in host memory: under zero3 no rank holds all of the model that was trained.
        whole = with_lora(
            context.loader.load_on_cpu(start),
            rank=lora.rank,
            alpha=lora.alpha,
            targets=lora.targets,
            seed=context.config.seed,
        )
        missing, unexpected = whole.model.load_state_dict(adapters, strict=False)
        assert not unexpected and not any("lora_" in name for name in missing), (missing, unexpected)
        save_adapter(whole, folder / "adapter")
        save_folder(merged(whole), folder / "model")
    context.ranks.barrier()
