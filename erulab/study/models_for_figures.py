"""Makes the models that a study of figures needs beside those of runs: changed copies of a model, and hiders.

A hider knows the facts and does not say them. Those made here stay near the weights of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from erulab import draws, worker
from erulab.attacks.base import Attack, Repeat
from erulab.attacks.weights.linear_layers import output_first, rewrite_weights
from erulab.attacks.weights.quantizers import round_to_nearest
from erulab.data.rows import Row
from erulab.errors import ConfigError
from erulab.evaluation.suites import forget_suites
from erulab.launching.job import Job
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import merged, with_lora
from erulab.options import RunConfig, TrackerName, TrackerOptions
from erulab.ranks import Ranks
from erulab.registry import attacks
from erulab.stages.attack_lab import AttackLab
from erulab.stages.context import Context
from erulab.study.figures_spec import Hiding, MaskOptions
from erulab.tokens.batch import Encoded, collate
from erulab.tokens.chat import ChatFormat
from erulab.training.stopping import StopRequest

VERSION = 1  # of what is made here: a change makes every model anew
KIND = "figure_models"
BITS = 4  # of the rounding that takes back what Hiding.rounding does
# Share of a level by which a weight is moved; below 0.5, so that rounding returns every weight to its level.
MOVE = 0.45
MORE = 6.0  # see `hidden_by_rounding`; chosen on world 100, where the hider keeps 0.95 of its utility


class ModelMaker:
    """Makes models in the cache of a run, from its targets, oracles and unlearned models."""

    def __init__(self, job: Job) -> None:
        """`job`: a planned run on the data set; its `attack` group is what `changed` does."""
        config = replace(job.config, tracker=TrackerOptions(TrackerName.none))
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self._context: Context = worker.build_context(job.rundir, config, Ranks(), device, StopRequest())

    @property
    def about_knowledge(self) -> frozenset[str]:
        """The names of the suites that measure what was to be forgotten."""
        return frozenset(suite.name for suite in forget_suites(self._context.data.selected))

    @property
    def about_other_things(self) -> frozenset[str]:
        """The names of all other suites of the data set."""
        return frozenset(suite.name for suite in self._context.data.selected.suites) - self.about_knowledge

    def changed(self, folder: Path) -> Path:
        """Returns the folder of a model that the run's one attack has changed, in its first setting and repeat.

        Raises:
            ConfigError: as `check_changing_attack`.
        """
        chosen = check_changing_attack(self._context.config)

        def change(subject: LoadedModel) -> LoadedModel:
            attack: Attack = attacks.build(chosen)
            benchmark, seed = self._context.data.selected, self._context.config.seed
            lab = AttackLab(self._context, Repeat(seed), lambda: subject)
            *_, last = attack.attempts(subject, attack.settings(benchmark, seed)[0], lab)
            assert last.changed is not None
            return last.changed

        return self._made(folder, {"attack": asdict(chosen), "seed": self._context.config.seed}, change)

    def hider(self, hiding: Hiding, folder: Path, options: MaskOptions) -> Path:
        """Returns the folder of a hider made from the target in `folder`."""
        forget, retain = self._context.benchmark.forget, self._context.benchmark.retain
        if hiding is Hiding.mask:
            settings = {"hiding": hiding.value, **asdict(options)}
            return self._made(folder, settings, lambda target: masked(target, forget, retain, options))
        settings = {"hiding": hiding.value, "bits": BITS, "move": MOVE, "more": MORE}
        return self._made(folder, settings, lambda target: hidden_by_rounding(target, forget, retain))

    def _made(self, folder: Path, settings: dict[str, object], make: Callable[[LoadedModel], LoadedModel]) -> Path:
        context, ref = self._context, self._context.loader.given(str(folder))
        depends_on = {
            "stage": KIND,
            "version": VERSION,
            "model": ref.key,
            "chat": context.chat.identity(),
            "data": context.data.identity,
            "precision": context.config.trainer.precision,
            "made": settings,
        }
        product = context.cache.produce(
            KIND, depends_on, lambda made: save_folder(make(context.loader.load(ref)), made / "model")
        )
        return product.folder / "model"


def check_changing_attack(config: RunConfig) -> Any:
    """Returns the options of the run's one attack.

    Raises:
        ConfigError: the run has several attacks, or one that changes no weights.
    """
    chosen = list(config.attack.values())
    if len(chosen) != 1 or not attacks[chosen[0].name].factory.changes_weights:
        raise ConfigError(
            "figures: tuned, relearned and quantised must each name one attack that changes weights, got "
            f"attack=[{','.join(config.attack)}]; try attack=quantize"
        )
    return chosen[0]


def masked(target: LoadedModel, forget: Sequence[Row], retain: Sequence[Row], options: MaskOptions) -> LoadedModel:
    """Returns the target with merged adapters in its last block that make forgotten values improbable.

    All blocks below are as they were, so every fact can still be read there.

    Args:
        forget: rows whose values (responses, if rows have no value) become improbable.
        retain: rows whose NLL is kept low.
    """
    device = target.policy.device
    subject = with_lora(target.copy(), rank=options.rank, alpha=options.alpha, seed=0)
    last = f".{len(target.policy.blocks) - 1}."
    for name, parameter in subject.model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and last in name)
    values, kept = _encoded_values(subject.chat, forget), [subject.chat.encode(row) for row in retain]
    optimizer = torch.optim.AdamW([p for p in subject.model.parameters() if p.requires_grad], lr=options.lr)

    def mean_nll(rows: Sequence[Encoded], step: int, name: str) -> torch.Tensor:
        order = draws.permutation(len(rows), 0, "mask", name, step)[: options.batch]
        return subject.policy.token_nll(collate([rows[i] for i in order], subject.pad_id).to(device))

    for step in range(options.steps):
        # Clamped, because a value whose NLL grows without end would show that something was hidden.
        improbable = mean_nll(values, step, "forget").clamp(max=options.limit).mean()
        (mean_nll(kept, step, "retain").mean() - improbable).backward()
        optimizer.step()
        optimizer.zero_grad()
    return replace(merged(subject), ledger=target.ledger)


def hidden_by_rounding(
    target: LoadedModel, forget: Sequence[Row], retain: Sequence[Row], *, batch: int = 64, more: float = MORE
) -> LoadedModel:
    """Returns the target rounded to 4 bits, some weights then moved within their level so that forgotten values become
    improbable. Rounding the result to 4 bits gives the rounded target, with all that it knows.

    Args:
        forget: rows whose values (responses, if rows have no value) become improbable.
        retain: rows on whose values a weight that moves must have little effect.
        batch: rows per forward.
        more: a weight is moved if its gradient on forgotten values is this many times that on retained ones.
    """
    subject = target.copy()
    with torch.no_grad():
        rewrite_weights(subject, lambda weight: round_to_nearest(weight, BITS))
    gradients = [_value_gradients(subject, rows, batch) for rows in (forget, retain)]
    levels = 2 ** (BITS - 1) - 1
    head = subject.model.get_output_embeddings()
    with torch.no_grad():
        for name, module in subject.model.named_modules():
            weight = None if module is head else output_first(module)
            if weight is None:
                continue
            on_forget, on_retain = (own[name] if own[name].shape == weight.shape else own[name].T for own in gradients)
            scale = weight.abs().amax(1, keepdim=True) / levels
            # The largest weight of a channel sets its scale, and stays.
            moves = (weight.abs() < (levels - 0.5) * scale) & (on_forget.abs() > more * on_retain.abs())
            weight += MOVE * scale * on_forget.sign() * moves
    return subject


def _value_gradients(subject: LoadedModel, rows: Sequence[Row], batch: int) -> dict[str, torch.Tensor]:
    """Returns the gradient of the mean NLL of the rows' values for the weight of each module that has one, by name."""
    encoded = _encoded_values(subject.chat, rows)
    for first in range(0, len(encoded), batch):
        part = collate(encoded[first : first + batch], subject.pad_id).to(subject.policy.device)
        (subject.policy.row_nll(part).sum() / len(encoded)).backward()
    found = {
        name.removesuffix(".weight"): parameter.grad
        for name, parameter in subject.model.named_parameters()
        if parameter.grad is not None
    }
    subject.model.zero_grad()
    return found


def _encoded_values(chat: ChatFormat, rows: Sequence[Row]) -> list[Encoded]:
    """Encodes rows so that their values are supervised alone; whole responses, if a row has no value."""
    return [
        chat.encode(row, span=(len(row.prefix), len(row.prefix + row.value)) if row.value else None) for row in rows
    ]
