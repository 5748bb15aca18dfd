"""How far an unlearned model is from its target: in its predictions on retained rows, or in its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from erulab import logprobs
from erulab.attacks.halves import validation_facts
from erulab.data.rows import Role, Row
from erulab.errors import ConfigError, DataError
from erulab.evaluation.suites import evaluated_rows
from erulab.launching.job import Job
from erulab.methods.retain import kl_to_reference
from erulab.models.loaded import LoadedModel
from erulab.options import Facts
from erulab.stages.context import TUNING_SEED, Context
from erulab.study.choose import Match
from erulab.study.run_models import TARGET, UNLEARNED, find_models, open_run
from erulab.tokens.batch import Encoded, collate
from erulab.training.encode_rows import content_hash

VERSION = 1  # of both measures: a change measures every model anew
KIND = "distances"
DISTANCE = "distance.json"


def measure_run(job: Job, match: Match) -> float:
    """Measures how far the unlearned model of a finished run is from its target, once: the cache keeps the number.

    Returns:
        KL(target || unlearned) in nats per token, or the relative distance of the weights.
    Raises:
        DataError: the models are no longer in the cache, or have not the same weights.
        ConfigError: the run measures no retained rows.
    """
    context = open_run(job)
    models = find_models(job, context)
    rows = [context.chat.encode(row) for row in neutral_rows(context)] if match is Match.kl else []
    depends_on = {
        "stage": KIND,
        "version": VERSION,
        "measure": match.value,
        "target": models[TARGET].key,
        "unlearned": models[UNLEARNED].key,
        "rows": content_hash(rows),
    }

    def make(folder: Path) -> None:
        load = context.loader.load if match is Match.kl else context.loader.load_on_cpu
        target, unlearned = load(models[TARGET]), load(models[UNLEARNED])
        if match is Match.kl:
            distance = mean_kl(target, unlearned, rows, context.config.evaluation.fixed_tokens)
        else:
            distance = relative_distance(_named_weights(target), _named_weights(unlearned))
        (folder / DISTANCE).write_text(json.dumps(distance))

    found: float = json.loads((context.cache.produce(KIND, depends_on, make).folder / DISTANCE).read_text())
    return found


def neutral_rows(context: Context) -> list[Row]:
    """Returns the measured rows of retain suites, of the half of their facts that `evaluation.facts` names.

    Raises:
        ConfigError: none are measured.
    """
    part = context.config.evaluation.facts
    suites = [suite for suite in context.data.selected.suites if suite.role is Role.RETAIN]
    rows = [row for suite in suites for row in evaluated_rows(suite, context.config.evaluation)]
    facts = {row.fact_id for row in rows}
    if part is not Facts.all and len(facts) > 1:
        half = validation_facts(facts, TUNING_SEED)
        rows = [row for row in rows if (row.fact_id in half) == (part is Facts.validation)]
    if not rows:
        raise ConfigError(
            "tuning.match=kl compares models on the retain suites, and the trials measure none; add one to "
            "evaluation.suites in `common`, such as evaluation.suites=[forget*,retain*]"
        )
    return rows


@torch.no_grad()
def mean_kl(target: LoadedModel, unlearned: LoadedModel, rows: Sequence[Encoded], batch_tokens: int) -> float:
    """Computes the mean of KL(target || unlearned) over all supervised tokens, exactly: over the whole vocabulary.

    Args:
        rows: whose responses are read, each token after the true ones before it.
        batch_tokens: padded tokens of one forward; the result depends on it by rounding only.
    Returns:
        Nats per token, 0 if both models predict the same.
    """
    sums, tokens = [], 0
    ordered = sorted(rows, key=lambda row: len(row.ids))
    policies = target.policy, unlearned.policy
    for part in _in_batches(ordered, batch_tokens):
        batch = collate(part, target.pad_id).to(policies[1].device)
        labels = batch.input_ids[batch.supervised]
        of_target, of_unlearned = (policy.hidden(batch, scoring=True) for policy in policies)
        (values,) = logprobs.token_values(
            of_unlearned, policies[1].head, labels, [kl_to_reference], reference=(of_target, policies[0].head)
        )
        sums.append(values.double().sum().item())
        tokens += len(labels)
    return math.fsum(sums) / tokens


@torch.no_grad()
def relative_distance(target: Mapping[str, torch.Tensor], unlearned: Mapping[str, torch.Tensor]) -> float:
    """Computes ||w - w_target|| / ||w_target||, the Euclidean norms being over all weights together.

    Args:
        target, unlearned: name -> weight, the same names and shapes; a weight that two layers share once.
    Returns:
        A number without unit, 0 for the target itself.
    Raises:
        DataError: the models have not the same weights.
    """
    if {name: one.shape for name, one in target.items()} != {name: one.shape for name, one in unlearned.items()}:
        raise DataError(
            "tuning.match=weights compares models weight by weight, and target and unlearned model have not the same; "
            "type tuning.match: kl"
        )
    moved = math.fsum((unlearned[name].double() - one.double()).square().sum().item() for name, one in target.items())
    return math.sqrt(moved / math.fsum(one.double().square().sum().item() for one in target.values()))


def _named_weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return dict(loaded.model.named_parameters())


def _in_batches(rows: Iterable[Encoded], batch_tokens: int) -> Iterable[list[Encoded]]:
    """Cuts rows in order of length into batches within the budget of padded tokens."""
    batch: list[Encoded] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row.ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
