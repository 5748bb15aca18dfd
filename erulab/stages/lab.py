"""The tools with which a method makes the unlearned model of one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from erulab.methods.base import GradientMethod, ModelHandle, WeightFunction
from erulab.models.dropout import disable_dropout
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import merged, save_adapter, with_lora
from erulab.reporting.progress import progress
from erulab.stages.best_step import BestStep
from erulab.stages.cache import CHECKPOINTS, Product
from erulab.stages.context import Context
from erulab.stages.step_judge import StepJudge
from erulab.stages.trajectory import Trajectory
from erulab.training.assembly import assemble_unlearning
from erulab.training.batches import Split, total_steps
from erulab.training.checkpoints import Checkpoints
from erulab.training.distillation import assemble_distillation
from erulab.training.encode_rows import content_hash
from erulab.training.engine import Engine
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.loader import ModelRef
from erulab.training.loop import LoopOptions, train
from erulab.training.objective import Objective
from erulab.training.unlearning_batches import UnlearningRows

METRICS = "metrics.jsonl"
FINETUNED = "finetuned"  # kind of the models that `Lab.finetune_on_forget_rows` makes
FINETUNE_VERSION = 1  # a change makes them anew


@dataclass(frozen=True)
class Lab:
    """One request on its way to an unlearned model, which lies in `folder/model` afterwards."""

    context: Context
    target: ModelRef  # the model that the request starts from
    rows: UnlearningRows
    depends_on: dict[str, Any]  # all that the product depends on
    folder: Path  # of the product
    title: str  # of the progress bar
    unlearn_by: Callable[[Any], Product]  # options of another method -> its product of the same request
    judge: StepJudge | None = None  # chooses the step that is kept (`trainer.keep=best`); None: the last one

    def descend(self, method: GradientMethod) -> None:
        """Trains the target on the method's loss by the run's options; keeps the model and its metrics.

        Args:
            method: of the run; the objective has one of its own with the same options.
        """
        context = self.context
        config, ranks = context.config, context.ranks
        subject = context.loader.load_to_train(self.target)
        references = context.cache.folder("references")
        unlearning = assemble_unlearning(config, context.loader, self.target, subject, self.rows, ranks, references)
        engine, steps = unlearning.engine, unlearning.loop.steps
        best = None if self.judge is None else BestStep(self.folder, self.judge, steps, ranks)
        trajectory = Trajectory(context, unlearning.model, engine, steps, best)
        self._train(engine, unlearning.objective, unlearning.loop, self.depends_on, self.folder, self.title, trajectory)
        weights = engine.weights(trained_only=config.model.lora.rank > 0) if best is None else best.weights()
        self._save(unlearning.model, weights)
        if best is not None:
            best.finish()

    def finetune_on_forget_rows(self) -> ModelRef:
        context = self.context
        depends_on = {
            "stage": "finetune",
            "version": FINETUNE_VERSION,
            "base": self.target.key,
            "rows": content_hash(self.rows.forget),
            "training": {k: v for k, v in asdict(self._finetune_options()).items() if k != "split"},
        }
        product = context.cache.produce(
            FINETUNED, depends_on, lambda folder: self._finetune(depends_on, folder), rerun=context.config.rerun
        )
        self._show_metrics(product)
        return product.model

    def write(self, models: Sequence[ModelHandle], weight: WeightFunction) -> None:
        if self.context.ranks.first:
            loaded = [self.context.loader.load_on_cpu(ModelRef(model.key, model.path)) for model in models]
            save_folder(loaded[0], self.folder / "model", computed_weights(loaded, weight))
        self.context.ranks.barrier()

    def unlearned_by(self, options: Any) -> ModelRef:
        product = self.unlearn_by(options)
        self._show_metrics(product)
        return product.model

    @property
    def seed(self) -> int:
        return self.context.config.seed

    def distil(self, teacher: ModelHandle, *, lr: float | None, steps: int | None) -> None:
        loader = self.context.loader
        subject = loader.load_to_train(ModelRef("", str(self.folder / "model")))
        frozen = loader.load_frozen(ModelRef(teacher.key, teacher.path))
        options, first = self._finetune_options(), self._forget_steps
        options = replace(options, lr=lr or options.lr, steps=first if steps is None else steps)
        engine, objective, loop = assemble_distillation(
            subject, frozen, self.rows.retain, options, self.context.config.engine, self.context.ranks
        )
        # Its steps are counted on from those of the training before it.
        self._train_whole_model(subject, engine, objective, loop, self.depends_on, self.folder, "distilling", first)

    @property
    def _forget_steps(self) -> int:
        """Steps of a training on the forget rows by the run's options."""
        trainer = self.context.config.trainer
        return total_steps(len(self.rows.forget), trainer.epochs, trainer.global_batch, trainer.steps)

    def _finetune_options(self) -> FinetuneOptions:
        trainer = self.context.config.trainer
        return FinetuneOptions(
            lr=trainer.lr,
            epochs=trainer.epochs,
            steps=trainer.steps,
            global_batch=trainer.global_batch,
            split=Split(trainer.micro_batch, trainer.micro_tokens),
            weight_decay=trainer.weight_decay,
            warmup=trainer.warmup,
            schedule=trainer.schedule,
            clip=trainer.clip,
            seed=self.context.config.seed,
            precision=trainer.precision,
            optimizer=trainer.optimizer,
        )

    def _finetune(self, depends_on: dict[str, Any], folder: Path) -> None:
        """Fine-tunes the target on the forget rows; writes it into a folder."""
        context = self.context
        subject = context.loader.load_to_train(self.target)
        engine, objective, loop = assemble_finetuning(
            subject, self.rows.forget, self._finetune_options(), context.config.engine, context.ranks
        )
        doing = "fine-tuning on the forget rows"
        self._train_whole_model(subject, engine, objective, loop, depends_on, folder, doing)

    def _train_whole_model(
        self,
        subject: LoadedModel,
        engine: Engine,
        objective: Objective,
        loop: LoopOptions,
        depends_on: dict[str, Any],
        folder: Path,
        doing: str,
        first_step: int = 0,
    ) -> None:
        """Trains all weights of a model and writes it into a folder.

        Args:
            doing: what the training does, for the progress bar.
            first_step: number of its first step in the metrics.
        """
        trainer = self.context.config.trainer
        if trainer.checkpointing:
            subject.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        disable_dropout(subject.model)
        subject.model.train()
        loop = replace(loop, save_every=trainer.save_every)
        title = f"{self.title}: {doing}"
        self._train(engine, objective, loop, depends_on, folder, title, first_step=first_step)
        save_folder(subject, folder / "model", engine.weights(), write=self.context.ranks.first)

    def _train(
        self,
        engine: Engine,
        objective: Objective,
        loop: LoopOptions,
        depends_on: dict[str, Any],
        folder: Path,
        title: str,
        trajectory: Trajectory | None = None,
        first_step: int = 0,
    ) -> None:
        """Runs a training to its end; keeps its metrics and its checkpoints in a folder."""
        context = self.context
        ranks, tracker, trainer = context.ranks, context.tracker, context.config.trainer
        checkpoints = Checkpoints(folder / CHECKPOINTS, depends_on, ranks)
        kept = folder / METRICS
        tracker.resume(kept)
        try:
            with progress(title, loop.steps, enabled=ranks.first) as bar:
                for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
                    bar.update(step + 1, metrics)
                    seen = {} if trajectory is None else trajectory.after(step + 1)
                    if step % trainer.log_every == 0 or step == loop.steps - 1 or seen:
                        tracker.log(first_step + step, metrics | seen)
                    if trainer.save_every and (step + 1) % trainer.save_every == 0:
                        tracker.keep(kept)
        finally:
            tracker.keep(kept)

    def _show_metrics(self, needed: Product) -> None:
        """Takes the metrics of a product that this one needs for its own."""
        tracker = self.context.tracker
        if needed.from_cache:
            tracker.replay(needed.folder / METRICS)
        tracker.keep(self.folder / METRICS)

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


def computed_weights(models: Sequence[LoadedModel], weight: WeightFunction) -> Iterator[tuple[str, torch.Tensor]]:
    """Computes the weights of a new model, one at a time; a weight that two layers share comes once.

    Args:
        models: with the same layout, in float32 on the CPU.
        weight: computes each weight from those of the models.
    Returns:
        Names and weights; buffers that checkpoints hold are those of the first model.
    """
    first = models[0].model
    others = [dict(model.model.named_parameters()) for model in models[1:]]
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            yield name, weight(name, [parameter.detach(), *(other[name].detach() for other in others)])
    kept = first.state_dict().keys()
    yield from ((name, buffer) for name, buffer in first.named_buffers() if name in kept)
