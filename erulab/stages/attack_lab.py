"""The lab that attacks work in: it scores and fine-tunes copies of a model in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from erulab.attacks.base import FinetuneSettings, Repeat
from erulab.attacks.judging.scoring import score_attacked
from erulab.data.rows import Benchmark, Row, Suite
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.scoring import Watch
from erulab.models.dropout import disable_dropout
from erulab.models.loaded import LoadedModel
from erulab.models.lora import merged, with_lora
from erulab.options import EngineName, EngineOptions
from erulab.ranks import Ranks
from erulab.stages.context import Context
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.loop import train


class AttackLab:
    """Implements `erulab.attacks.base.Lab` in one process: whole jobs are distributed over the ranks."""

    def __init__(
        self, context: Context, repeat: Repeat, target: Callable[[], LoadedModel], watch: Watch | None = None
    ) -> None:
        """
        Args:
            target: loads the model before unlearning.
            watch: is told how far a scoring or fine-tuning is.
        """
        self._context, self._repeat, self._target, self._watch = context, repeat, target, watch

    @property
    def benchmark(self) -> Benchmark:
        return self._context.data.selected

    @property
    def repeat(self) -> Repeat:
        return self._repeat

    @property
    def target(self) -> LoadedModel:
        return self._target()

    @property
    def batch_tokens(self) -> int:
        return self._context.config.evaluation.fixed_tokens

    def score(self, subject: LoadedModel, suites: Sequence[Suite]) -> list[RowScore]:
        self._context.stop.check()
        return score_attacked(subject, suites, self.benchmark, self._context.config.evaluation, self._watch)

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], settings: FinetuneSettings
    ) -> Iterator[tuple[int, LoadedModel]]:
        if not rows or settings.lr == 0:
            yield 0, subject
            return
        seed = self._repeat.seed_of("finetune")
        rank, points = settings.lora_rank, settings.points
        subject = with_lora(subject, rank=rank, alpha=settings.lora_alpha, seed=seed) if rank else subject
        disable_dropout(subject.model)
        options = FinetuneOptions(
            lr=settings.lr,
            epochs=settings.epochs,
            global_batch=min(settings.batch, len(rows)),
            split=self._context.split(None),
            weight_decay=settings.weight_decay,
            warmup=settings.warmup,
            schedule=settings.schedule,
            clip=1.0,
            seed=seed,
            precision=self._context.config.trainer.precision,
            steps=settings.steps,
        )
        encoded = self._context.encoder_of(subject.chat).encode(rows)
        engine, objective, loop = assemble_finetuning(
            subject, encoded, options, EngineOptions(EngineName.local), Ranks()
        )
        stops = {round(loop.steps * (i + 1) / points) for i in range(points - 1)} - {0, loop.steps}
        subject.model.train()
        for step, _ in train(engine, objective, loop, Ranks()):
            self._context.stop.check()
            if self._watch is not None:
                self._watch("steps of fine-tuning", step + 1, loop.steps)
            if step + 1 in stops:
                subject.model.eval()
                yield step + 1, subject
                subject.model.train()
        subject.model.eval()
        yield loop.steps, merged(subject) if rank else subject
