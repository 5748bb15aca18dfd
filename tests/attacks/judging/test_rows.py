"""From attacks on three real models to the rows of attacks.json: identities end to end, and which attempt is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from erulab.attacks.base import Attack, Attempt, Repeat, Setting
from erulab.attacks.halves import validation_facts
from erulab.attacks.judging.columns import row_without_figures
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.attacks.relearn_rows import RelearnSplit
from erulab.data.rows import Benchmark, Role, Suite
from erulab.errors import DataError
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.knowledge import knowledge_left, knowledge_values
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.attacks.conftest import PlainLab, attacked, headline

FORCED = EvaluationOptions(generate=False)
FIELDS = {
    "attack",
    "setting",
    "metric",
    "headline",
    "target",
    "unlearned",
    "oracle",
    "attacked_target",
    "attacked_unlearned",
    "attacked_oracle",
    "knowledge_left",
    "knowledge_left_attacked",
    "recovered",
    "maintained_gap",
    "maintained_error",
    "valid",
    "standing",
    "reason",
    "low",
    "high",
    "low90",
    "high90",
    "gap_kept",
    "facts",
    "note",
    "n",
    "steps",
    "flops",
    "seconds",
    "utility",
    "utility_attacked",
    "chosen",
    "attempts",
    "repeats",
    "savings",
    "open_unlearning_r",
    "open_unlearning_q",
}
Models = dict[str, LoadedModel]


@dataclass
class Stub(Attack):
    """An attack that tries given changes on every model, one after another, and is scored on all forget rows."""

    change: Any = lambda subject: subject
    more: dict[str, Callable[[LoadedModel], LoadedModel]] = field(default_factory=dict)
    one_attempt_for_all_models: bool = True

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{"strength": 1}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return forget_suites(benchmark)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Any) -> Iterator[Attempt]:
        for name, change in (self.more or {"": self.change}).items():
            changed = change(subject.copy())
            yield Attempt({"by": name} if name else {}, partial(lab.score, changed), changed)


def run(attack: Any, models: Models, lab: PlainLab, **changes: Any) -> list[dict[str, Any]]:
    return attacked(attack, models, replace(lab, evaluation=replace(FORCED, **changes)))


def same_weights(one: LoadedModel, other: LoadedModel) -> bool:
    weights = other.model.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())


def test_no_attack_gives_k_of_the_evaluation(models: Models, lab: PlainLab) -> None:
    rows = run(Stub(), models, lab)
    scores = {role: evaluate(model, lab.benchmark.suites, FORCED, Ranks()) for role, model in models.items()}
    values, facts = knowledge_values(scores["unlearned"])
    k = knowledge_left(values, knowledge_values(scores["target"])[0], knowledge_values(scores["oracle"])[0], facts)
    row = headline(rows)
    assert k.value is not None and 0.05 < k.value < 0.95  # the models do stand apart
    assert row["knowledge_left"] == row["knowledge_left_attacked"] == pytest.approx(k.value, abs=1e-5)
    assert (row["low"], row["high"]) == pytest.approx((k.low, k.high), abs=1e-5)
    assert row["recovered"] == 0.0 and row["valid"] is True and row["n"] == len(values)
    flat = {role: aggregate(scored, lab.benchmark) for role, scored in scores.items()}
    for role, figures in flat.items():
        assert row[role] == row[f"attacked_{role}"] == pytest.approx(figures["knowledge"], abs=1e-5)
    by_metric = {row["metric"]: row for row in rows}
    assert set(by_metric) == {"log_odds", "forget/choice", "forget_heldout/choice", "retain/choice"}
    for metric in ("forget/choice", "forget_heldout/choice"):
        assert by_metric[metric]["target"] == pytest.approx(flat["target"][metric])
    assert all(set(row) == FIELDS and json.dumps(row, allow_nan=False) for row in rows)


def test_an_attack_that_restores_the_target(models: Models, lab: PlainLab) -> None:
    def restore(subject: LoadedModel) -> LoadedModel:
        return models["target"] if same_weights(subject, models["unlearned"]) else subject

    row = headline(run(Stub(restore), models, lab))
    assert (row["knowledge_left_attacked"], row["recovered"]) == pytest.approx((1.0, 1.0)) and row["valid"]


@pytest.mark.parametrize("options", [RelearnOptions(samples=[0], repeats=1), RelearnOptions(lr=[0.0], repeats=1)])
def test_relearning_nothing_recovers_nothing(models: Models, lab: PlainLab, options: RelearnOptions) -> None:
    attack = Relearn(options)
    row = headline(run(attack, models, lab))
    assert row["recovered"] == 0.0 and row["knowledge_left_attacked"] == row["knowledge_left"]
    # All values are of the scored half.
    scored = attack.scored({}, lab.benchmark, lab.repeat)
    values, _ = knowledge_values(evaluate(models["target"], scored, FORCED, Ranks()))
    assert row["n"] == len(values) and row["target"] == pytest.approx(float(np.mean(values)), abs=1e-5)


@pytest.mark.parametrize("options", [{"samples": [0], "lr": [1e-3, 1e-4], "points": 3}, {"lr": [0.0], "points": 3}])
def test_relearning_nothing_in_several_ways_recovers_nothing(
    models: Models, lab: PlainLab, options: dict[str, Any]
) -> None:
    row = headline(run(Relearn(RelearnOptions(repeats=1, **options)), models, lab))
    assert row["recovered"] == 0.0 and row["knowledge_left_attacked"] == row["knowledge_left"] is not None
    assert row["steps"] == 0 and row["open_unlearning_r"] is None
    if "samples" in options:  # of two rates that do nothing the first stands
        assert row["chosen"]["unlearned"] == [{"lr": 1e-3, "steps": 0}]


def test_a_learning_curve_tells_what_is_saved(models: Models, lab: PlainLab) -> None:
    attack = Relearn(RelearnOptions(split=RelearnSplit.all, lr=[3e-3], epochs=6, points=4, repeats=1))
    row = headline(run(attack, models, lab))
    gap = row["target"] - row["oracle"]
    assert row["unlearned"] > row["oracle"] + 0.5 * gap > row["oracle"]
    there = next(one["steps"] for one in row["attempts"] if one["attacked_oracle"] >= row["oracle"] + 0.5 * gap)
    assert there == row["attempts"][0]["chosen"]["steps"] > 0
    # This unlearned model knows more than half from the start; one that is the oracle saves nothing.
    assert row["savings"] == {"tau": 0.5, "steps_unlearned": 0, "steps_oracle": there, "savings": 1.0}
    row = headline(run(attack, {**models, "unlearned": models["oracle"]}, lab))
    assert row["savings"] == {"tau": 0.5, "steps_unlearned": there, "steps_oracle": there, "savings": 0.0}


def test_an_attack_that_destroys_the_model_does_not_count(models: Models, lab: PlainLab) -> None:
    def destroy(subject: LoadedModel) -> LoadedModel:
        with torch.no_grad():
            subject.model.get_output_embeddings().weight.zero_()
        return subject

    rows = run(Stub(destroy), models, lab)
    assert all(row["valid"] is False for row in rows)
    assert headline(rows)["knowledge_left_attacked"] is None and "utility" in headline(rows)["reason"]
    retain = next(row for row in rows if row["metric"] == "retain/choice")
    assert retain["attacked_target"] == 0.0 < 0.8 < retain["target"]


def test_scores_that_are_not_finite_are_none(models: Models, lab: PlainLab) -> None:
    def break_it(subject: LoadedModel) -> LoadedModel:
        with torch.no_grad():
            subject.model.get_output_embeddings().weight.fill_(float("nan"))
        return subject

    rows = run(Stub(break_it), models, lab)
    assert headline(rows)["attacked_unlearned"] is None and "finite" in headline(rows)["note"]
    assert all(row["valid"] is False and json.dumps(row, allow_nan=False) for row in rows)


def test_rows_without_values_are_judged_by_probability_and_few_of_them_by_rouge(models: Models, lab: PlainLab) -> None:
    """Rows as in TOFU, and a user's own rows without wrong answers."""

    def strip(suite: Suite, **gone: Any) -> Suite:
        return replace(suite, rows=tuple(replace(row, value="", candidates=(), **gone) for row in suite.rows))

    world = lab.benchmark
    tofu = replace(lab, benchmark=replace(world, suites=tuple(strip(suite) for suite in world.suites)))
    rows = run(Stub(), models, tofu, generate=True, max_new_tokens=20)
    names = ("probability", "rouge", "choice")
    expected = ["log_odds", *[f"forget/{name}" for name in names]]
    expected += [f"forget_heldout/{name}" for name in ("probability", "choice")]
    assert [row["metric"] for row in rows] == [*expected, "retain/choice"]
    forget = tofu.benchmark.suite("forget")
    assert forget.role is Role.FORGET and len(forget.rows) == 30
    whole = evaluate(models["target"], [forget], EvaluationOptions(max_new_tokens=20), Ranks())
    rouge = next(row for row in rows if row["metric"] == "forget/rouge")
    assert rouge["target"] == pytest.approx(np.mean([row.figures["rouge"] for row in whole]))

    bare = tuple(strip(suite, perturbed=(), paraphrase=None) for suite in world.suites)
    rows = run(Stub(), models, replace(lab, benchmark=replace(world, suites=bare)))
    assert [row["metric"] for row in rows] == ["forget/probability", "forget_heldout/probability", "retain/probability"]
    assert (
        rows[0]["knowledge_left"] == rows[0]["knowledge_left_attacked"] is not None
        and rows[0]["maintained_error"] == 1.0
    )


def test_relearning_all_rows_shows_nothing_that_the_oracle_does_not(models: Models, lab: PlainLab) -> None:
    rows = run(Relearn(RelearnOptions(split=RelearnSplit.all, lr=[3e-3], epochs=6, repeats=1)), models, lab)
    choice = next(row for row in rows if row["metric"] == "forget/choice")
    assert (
        choice["attacked_unlearned"] > choice["unlearned"] + 0.2 and choice["attacked_oracle"] > choice["oracle"] + 0.2
    )
    # The oracle learned the same: that is no sign of anything hidden, and the attack does not count.
    assert headline(rows)["valid"] is False and headline(rows)["gap_kept"] < 0.8


@pytest.mark.parametrize("shared", [True, False])
def test_the_validation_half_chooses_and_the_other_half_is_reported(
    models: Models, lab: PlainLab, shared: bool
) -> None:
    def restore(subject: LoadedModel) -> LoadedModel:
        return models["target"] if same_weights(subject, models["unlearned"]) else subject

    alone = headline(run(Stub(restore), models, lab))
    tried = {"nothing": lambda subject: subject, "restore": restore}
    row = headline(run(Stub(more=tried, one_attempt_for_all_models=shared), models, lab))
    # Restoring attacks the unlearned model best. To the others both do nothing: of equals the first stands, where each
    # model has its own.
    others = "restore" if shared else "nothing"
    best = {"target": others, "unlearned": "restore", "oracle": others}
    assert row["chosen"] == {role: [{"by": name}] for role, name in best.items()}
    assert row["knowledge_left_attacked"] == pytest.approx(1.0)
    forget = [one for suite in forget_suites(lab.benchmark) for one in suite.rows]
    validation = validation_facts((one.fact for one in forget), 0)
    assert len(validation) == len({one.fact for one in forget}) // 2
    assert row["n"] == sum(one.fact not in validation for one in forget) < alone["n"] == len(forget)
    first, second = row["attempts"]
    assert first["chosen"] == {"by": "nothing"} and second["knowledge_left_attacked"] == pytest.approx(1.0)
    values, facts = knowledge_values(
        [one for one in lab.score(models["unlearned"], forget_suites(lab.benchmark)) if one.fact not in validation]
    )
    assert first["attacked_unlearned"] == pytest.approx(float(values.mean()), abs=1e-6) and len(set(facts)) == 8


def test_what_makes_all_less_sure_is_not_the_strongest(models: Models, lab: PlainLab) -> None:
    """Halved logits lift the log-odds of who knows nothing: each model's own best would be that for the oracle and the
    unlearned model, and would call it knowledge."""

    def flatten(subject: LoadedModel) -> LoadedModel:
        with torch.no_grad():
            subject.model.get_output_embeddings().weight *= 0.5
        return subject

    tried = {"nothing": lambda subject: subject, "flatten": flatten}
    row = headline(run(Stub(more=tried), models, lab))
    assert row["chosen"]["unlearned"] == [{"by": "nothing"}] and row["valid"]
    own = headline(run(Stub(more=tried, one_attempt_for_all_models=False), models, lab))
    assert own["chosen"]["oracle"] == [{"by": "flatten"}]


def test_repeats_are_averaged_row_by_row(models: Models, lab: PlainLab) -> None:
    """Two repeats relearn complementary halves: together they score every fact once, and each has its own figure."""
    attack = Relearn(RelearnOptions(lr=[0.0], repeats=2))
    row = headline(run(attack, models, lab))
    assert row["n"] == sum(len(suite.rows) for suite in forget_suites(lab.benchmark)) and len(row["repeats"]) == 2
    ks = []
    for number in range(2):
        scored = attack.scored({}, lab.benchmark, Repeat(0, number))
        values = [knowledge_values(lab.score(models[role], scored)) for role in ("unlearned", "target", "oracle")]
        ks.append(knowledge_left(*(one for one, _ in values), values[0][1]).value)
    assert row["repeats"] == pytest.approx(ks, abs=1e-6)


def test_a_choice_needs_facts_on_both_sides(models: Models, lab: PlainLab) -> None:
    few = replace(
        lab,
        benchmark=replace(
            lab.benchmark,
            suites=tuple(
                replace(suite, rows=suite.rows[:1]) if suite.role is Role.FORGET else suite
                for suite in lab.benchmark.suites
                if suite.role is not Role.HELDOUT
            ),
        ),
    )
    with pytest.raises(DataError, match="too few facts"):
        attacked(Stub(more={"a": lambda subject: subject, "b": lambda subject: subject}), models, few)


def test_an_attack_that_has_no_figures_has_a_row_of_the_same_fields() -> None:
    row = row_without_figures("gcg", {}, "not run: no answers")
    assert set(row) == FIELDS and row["valid"] is False and row["note"] == ""
    assert (row["standing"], row["reason"]) == ("not_run", "not run: no answers")
