"""Three models of a small world that know, half know and never knew its forget facts, and a lab to attack them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from erulab.attacks.base import FinetuneSettings, Repeat
from erulab.attacks.halves import validation_facts
from erulab.attacks.judging.attacked_setting import AttackedSetting, UnattackedScores
from erulab.attacks.judging.rows import attack_json_rows
from erulab.attacks.judging.scoring import merge_suites, score_attacked, utility_suite
from erulab.attacks.judging.trace import run_attack
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Row, Suite
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.options import EvaluationOptions, Schedule
from erulab.registry import load_plugins
from erulab.tokens.batch import collate

load_plugins()


@dataclass
class PlainLab:
    """A lab with a training loop of ten lines: AdamW on the mean NLL of batches in row order."""

    benchmark: Benchmark
    repeat: Repeat = Repeat(0)
    models: dict[str, LoadedModel] = field(default_factory=dict)
    evaluation: EvaluationOptions = field(default_factory=lambda: EvaluationOptions(generate=False))

    @property
    def target(self) -> LoadedModel:
        return self.models["target"]

    @property
    def batch_tokens(self) -> int:
        return self.evaluation.fixed_tokens

    def score(self, subject: LoadedModel, suites: Sequence[Suite]) -> list[RowScore]:
        return score_attacked(subject, suites, self.benchmark, self.evaluation)

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], settings: FinetuneSettings
    ) -> Iterator[tuple[int, LoadedModel]]:
        if not rows or settings.lr == 0:
            yield 0, subject
            return
        optimizer = torch.optim.AdamW(subject.model.parameters(), lr=settings.lr, weight_decay=0.0)
        encoded = [subject.chat.encode(row) for row in rows]
        batch = settings.batch
        batches = [encoded[first : first + batch] for first in range(0, len(encoded), batch)] * int(settings.epochs)
        total = len(batches) if settings.steps is None else settings.steps
        stops = {round(total * (i + 1) / settings.points) for i in range(settings.points)} - {0}
        for step in range(total):
            nll = subject.policy.token_nll(collate(batches[step % len(batches)], subject.pad_id))
            nll.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step + 1 in stops:
                yield step + 1, subject


def finetune_settings(*, lr: float, epochs: float, batch: int, points: int = 1) -> FinetuneSettings:
    """Returns settings for `PlainLab`, with defaults for those that it does not read."""
    return FinetuneSettings(lr, epochs, None, batch, 0.0, Schedule.constant, 0, 16, points)


def attacked(attack: Any, models: dict[str, LoadedModel], lab: PlainLab, name: str = "it") -> list[dict[str, Any]]:
    """Returns the rows of attacks.json of one attack, as a run computes them."""
    benchmark, seed = lab.benchmark, lab.repeat.seed
    utility, forget = utility_suite(benchmark, lab.evaluation), forget_suites(benchmark)
    plain = {
        role: UnattackedScores(lab.score(model, forget), lab.score(model, (utility,))) for role, model in models.items()
    }
    validation = validation_facts((row.fact for suite in forget for row in suite.rows), seed)
    rows = []
    for setting in attack.settings(benchmark, seed):
        repeats = [Repeat(seed, number) for number in range(attack.repeats)]
        suites = merge_suites([attack.scored(setting, benchmark, repeat) for repeat in repeats])
        traces = {
            role: [
                run_attack(attack, model, setting, replace(lab, repeat=repeat, models=models), utility, model.ledger)
                for repeat in repeats
            ]
            for role, model in models.items()
        }
        shared = attack.one_attempt_for_all_models
        rows += attack_json_rows(
            AttackedSetting(name, name, setting, suites, utility, traces, 0.1, shared), plain, validation
        )
    return rows


def headline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the headline row of the first setting."""
    return next(row for row in rows if row["headline"])


def learned(lab: PlainLab, rows: Sequence[Row], epochs: int, seed: int = 3) -> LoadedModel:
    loaded = TinyModel(TinyOptions(layers=2, width=48, heads=2)).load(lab.benchmark, seed=seed)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    *_, (_, trained) = lab.finetune(
        loaded, [rows[i] for i in order], finetune_settings(lr=5e-3, epochs=epochs, batch=24)
    )
    return trained


@pytest.fixture(scope="session")
def world() -> Benchmark:
    options = FictitiousOptions(
        world=7, forget_authors=3, retain_authors=2, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return FictitiousWorld(options).load(0)


@pytest.fixture(scope="session")
def lab(world: Benchmark) -> PlainLab:
    return PlainLab(world)


@pytest.fixture(scope="session")
def models(world: Benchmark, lab: PlainLab) -> dict[str, LoadedModel]:
    """The unlearned model stands between the others: it saw the forget rows too rarely to know them well."""
    return {
        "target": learned(lab, world.target_rows, 24),
        "unlearned": learned(lab, world.target_rows, 8),
        "oracle": learned(lab, world.oracle_rows, 24),
    }
