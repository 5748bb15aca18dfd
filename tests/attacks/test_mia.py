"""Membership inference against the evaluation's own AUC, and its identities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from erulab.attacks.base import Inapplicable
from erulab.attacks.mia import SCORES, Mia, MiaOptions, _suite_pairs
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.measures import Separation, Texts
from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation.aggregate import aggregate, membership_aucs
from erulab.evaluation.evaluate import evaluate
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.attacks.conftest import PlainLab, attacked, learned

ATTACK = Mia(MiaOptions())


def with_holdout(world: Benchmark, holdout: Suite) -> Benchmark:
    """Adds suites as TOFU has them: the forget rows as texts, and a suite of other texts to compare them with."""
    members = Suite("mia_forget", Role.FORGET, world.suite("forget").rows, Texts())
    return replace(
        world, suites=(*world.suites, members, holdout), summaries=(Separation("mia", "mia_forget", holdout.name),)
    )


def test_each_mean_is_one_minus_the_auc_of_the_evaluation(
    world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    tofu = with_holdout(world, Suite("holdout", Role.UNSEEN, world.suite("unseen").rows, Texts()))
    scored = ATTACK.scored({}, tofu, lab.repeat)
    assert [suite.name for suite in scored] == ["mia_forget"]
    (attempt,) = ATTACK.attempts(models["oracle"], {}, replace(lab, benchmark=tofu))
    rows = attempt.score(scored)
    plain = evaluate(models["oracle"], tofu.suites, EvaluationOptions(generate=False), Ranks())
    theirs = aggregate(plain, tofu)
    for figure, score in (
        ("mia_loss", "nll"),
        ("mia_zlib", "zlib"),
        ("mia_min_k", "min_k"),
        ("mia_min_k_plus_plus", "min_k_plus_plus"),
    ):
        own = [row.figures[figure] for row in rows]
        assert len(own) == len(world.suite("forget").rows) and 0.05 < np.mean(own) < 0.99
        assert float(np.mean(own)) == pytest.approx(1 - theirs[f"mia/auc_{score}"], abs=1e-9)


def test_rows_held_against_themselves_are_told_apart_by_chance(
    world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    twins = tuple(replace(row, id=f"{row.id}/twin") for row in world.suite("forget").rows)
    twin = replace(lab, benchmark=with_holdout(world, Suite("holdout", Role.UNSEEN, twins, Texts())))
    (attempt,) = ATTACK.attempts(models["target"], {}, twin)
    rows = attempt.score(ATTACK.scored({}, twin.benchmark, lab.repeat))
    for figure in SCORES:
        assert np.mean([row.figures[figure] for row in rows]) == pytest.approx(0.5, abs=1e-9)


def test_a_world_without_such_texts_is_held_against_its_unseen_rows(
    lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    rows = {row["metric"]: row for row in attacked(ATTACK, models, lab)}
    own = [f"{suite}/{figure}" for suite in ("forget", "forget_heldout") for figure in SCORES]
    assert set(rows) == {*own, "retain/choice"} and rows["forget/mia_loss"]["headline"]
    for metric in own:
        # Who learned the rows finds them likelier than all others; who never saw them does not.
        assert rows[metric]["attacked_target"] > 0.95 > 0.8 > rows[metric]["attacked_oracle"]
        assert rows[metric]["target"] is None and rows[metric]["valid"] is True


def test_an_oracle_cannot_tell_the_forgotten_from_strangers() -> None:
    """Its AUC is 0.5 for each score, and a model that learned the forgotten rows finds them likelier.

    The sampling error of one world is about 0.03 here; other authors in the same world miss 0.5 by 0.1 and more,
    because their names' words are learned more often or less.
    """
    found: dict[str, list[float]] = {}
    for number in range(3):
        options = FictitiousOptions(
            world=number, forget_authors=16, retain_authors=12, unrehearsed_authors=1, unseen_authors=8, general_facts=2
        )
        world = FictitiousWorld(options).load(0)
        suites = [replace(world.suite(name), measure=Texts()) for name in ("forget", "strangers")]
        for learner, rows, epochs in (("oracle", world.oracle_rows, 8), ("target", world.target_rows, 12)):
            if learner == "target" and number:
                continue
            model = learned(PlainLab(world), rows, epochs)
            scored = evaluate(model, suites, EvaluationOptions(generate=False), Ranks())
            for name, value in membership_aucs(Separation(learner, "forget", "strangers"), scored).items():
                found.setdefault(name, []).append(value)
    for score in SCORES.values():
        assert np.mean(found[f"oracle/auc_{score}"]) == pytest.approx(0.5, abs=0.05), (score, found)
        assert found[f"target/auc_{score}"][0] < 0.35, (score, found)


def test_each_forget_suite_is_held_against_the_strangers_in_its_own_words(world: Benchmark) -> None:
    named = [(members.name, strangers.name) for members, strangers in _suite_pairs(world)]
    assert named == [("forget", "strangers"), ("forget_heldout", "strangers_heldout")]
    # Without such suites the first one of rows that no model learned serves for all.
    plain = replace(world, suites=tuple(suite for suite in world.suites if not suite.like))
    assert {strangers.name for _, strangers in _suite_pairs(plain)} == {"unseen"}


def test_without_rows_that_nobody_learned_it_says_so(world: Benchmark) -> None:
    seen = replace(world, suites=tuple(suite for suite in world.suites if suite.role is not Role.UNSEEN))
    with pytest.raises(Inapplicable, match="no model learned"):
        ATTACK.settings(seen, 0)
