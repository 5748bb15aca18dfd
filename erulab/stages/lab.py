"""The tools with which a method makes the unlearned model of one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from erulab.methods.base import GradientMethod
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import merged, save_adapter, with_lora
from erulab.reporting.console import progress
from erulab.stages.best_step import BestStep
from erulab.stages.context import Context
from erulab.stages.step_judge import StepJudge
from erulab.stages.trajectory import Trajectory
from erulab.training.assembly import assemble_unlearning
from erulab.training.checkpoints import FORMAT, Checkpoints
from erulab.training.loader import ModelRef
from erulab.training.loop import train
from erulab.training.unlearning_batches import UnlearningRows

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Lab:
    """One request on its way to an unlearned model, which lies in `folder/model` afterwards."""

    context: Context
    target: ModelRef  # the model that the request starts from
    rows: UnlearningRows
    folder: Path  # of the product
    title: str  # of the progress bar
    judge: StepJudge | None = None  # chooses the step that is kept (`trainer.keep=best`); None: the last one

    def descend(self, method: GradientMethod) -> None:
        """Trains the target on the method's loss by the run's options; keeps the model and its metrics.

        Args:
            method: of the run; the objective has one of its own with the same options.
        """
        context = self.context
        config, ranks, tracker = context.config, context.ranks, context.tracker
        trainer = config.trainer
        subject = context.loader.load_to_train(self.target)
        references = context.cache.folder("references")
        unlearning = assemble_unlearning(config, context.loader, self.target, subject, self.rows, ranks, references)
        engine, loop = unlearning.engine, unlearning.loop
        checkpoints = Checkpoints(self.folder / "checkpoints", FORMAT, ranks)
        kept = self.folder / METRICS
        tracker.resume(kept)
        best = None if self.judge is None else BestStep(self.folder, self.judge, loop.steps, ranks)
        trajectory = Trajectory(context, unlearning.model, engine, loop.steps, best)
        try:
            with progress(self.title, loop.steps, enabled=ranks.first) as bar:
                for step, metrics in train(engine, unlearning.objective, loop, ranks, checkpoints, context.stop):
                    bar.update(step + 1, metrics)
                    seen = trajectory.after(step + 1)
                    if step % trainer.log_every == 0 or step == loop.steps - 1 or seen:
                        tracker.log(step, metrics | seen)
                    if trainer.save_every and (step + 1) % trainer.save_every == 0:
                        tracker.keep(kept)
        finally:
            tracker.keep(kept)
        weights = engine.weights(trained_only=config.model.lora.rank > 0) if best is None else best.weights()
        self._save(unlearning.model, weights)
        checkpoints.clear()
        if best is not None:
            best.finish()

    def _save(self, trained: LoadedModel, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Writes the model; with LoRA the adapter beside it, and the model with the adapter merged into it.

        Args:
            weights: all weights of the model; with LoRA those of the adapters.
        """
        context, folder = self.context, self.folder
        lora, first = context.config.model.lora, context.ranks.first
        if not lora.rank:
            save_folder(trained, folder / "model", weights, write=first)
            return
        adapters = dict(weights)
        if first:
            # Put on the target anew, in host memory: under zero3 no rank holds all of the model that was trained.
            whole = with_lora(
                context.loader.load_on_cpu(self.target),
                rank=lora.rank,
                alpha=lora.alpha,
                targets=lora.targets,
                seed=context.config.seed,
            )
            _, unexpected = whole.model.load_state_dict(adapters, strict=False)
            assert not unexpected, unexpected
            save_adapter(whole, folder / "adapter")
            save_folder(merged(whole), folder / "model")
        context.ranks.barrier()
