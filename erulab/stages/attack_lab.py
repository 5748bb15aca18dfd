"""The lab that attackers work in: it scores and trains, in one process and on copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from erulab.attacks.base import Repeat
from erulab.attacks.judging.scoring import scores
from erulab.data.rows import Benchmark, Row, Suite
from erulab.evaluation.evaluate import RowScore
from erulab.models.loaded import LoadedModel
from erulab.models.lora import merged, with_lora
from erulab.models.policy import without_dropout
from erulab.options import EngineName, EngineOptions, Schedule
from erulab.ranks import Ranks
from erulab.stages.context import Context
from erulab.training.finetune import FinetuneOptions, finetuning
from erulab.training.loop import train


class AttackLab:
    """See `erulab.attacks.base.Lab`. One process: whole jobs are dealt over the ranks."""

    def __init__(self, context: Context, repeat: Repeat, target: Callable[[], LoadedModel]) -> None:
        """`target`: loads the model before unlearning."""
        self._context, self._repeat, self._target = context, repeat, target

    @property
    def benchmark(self) -> Benchmark:
        return self._context.data.measured

    @property
    def repeat(self) -> Repeat:
        return self._repeat

    @property
    def target(self) -> LoadedModel:
        return self._target()

    @property
    def batch_tokens(self) -> int:
        return self._context.config.evaluation.batch_tokens

    def score(self, subject: LoadedModel, suites: Sequence[Suite]) -> list[RowScore]:
        self._context.stop.check()
        return scores(subject, suites, self.benchmark, self._context.config.evaluation)

    def finetune(
        self,
        subject: LoadedModel,
        rows: Sequence[Row],
        *,
        lr: float,
        epochs: float,
        steps: int | None,
        batch: int,
        warmup: float,
        schedule: Schedule,
        lora_rank: int,
        lora_alpha: int,
        points: int = 1,
    ) -> Iterator[tuple[int, LoadedModel]]:
        if not rows or lr == 0:
            yield 0, subject
            return
        seed = self._repeat.seed_of("finetune")
        subject = with_lora(subject, rank=lora_rank, alpha=lora_alpha, seed=seed) if lora_rank else subject
        without_dropout(subject.model)
        options = FinetuneOptions(
            lr=lr,
            epochs=epochs,
            global_batch=min(batch, len(rows)),
            split=self._context.split(None),
            weight_decay=0.0,
            warmup=warmup,
            schedule=schedule,
            clip=1.0,
            seed=seed,
            precision=self._context.config.trainer.precision,
            steps=steps,
        )
        encoded = self._context.encoder_of(subject.chat).encode(rows)
        engine, objective, loop = finetuning(subject, encoded, options, EngineOptions(EngineName.local), Ranks())
        stops = {round(loop.steps * (i + 1) / points) for i in range(points - 1)} - {0, loop.steps}
        subject.model.train()
        for step, _ in train(engine, objective, loop, Ranks()):
            self._context.stop.check()
            if step + 1 in stops:
                subject.model.eval()
                yield step + 1, subject
                subject.model.train()
        subject.model.eval()
        yield loop.steps, merged(subject) if lora_rank else subject
