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
    """Its AUC is 0.5 within its sampling error over worlds, for each score, in the phrasings that both share.

    The same rows in other phrasings are told apart, so the comparison can fail: an author's name and value do not
    matter to a model that learned neither, but sentences do.
    """
    found: dict[str, list[float]] = {}
    for number in range(3):
        options = FictitiousOptions(
            world=number, forget_authors=24, retain_authors=8, unrehearsed_authors=1, unseen_authors=24, general_facts=2
        )
        world = FictitiousWorld(options).load(0)
        oracle = learned(PlainLab(world), world.oracle_rows, 8)
        suites = {name: world.suite(name) for name in ("forget", "unseen", "unseen_heldout")}
        texts = replace(world, suites=tuple(replace(suite, measure=Texts()) for suite in suites.values()))
        rows = evaluate(oracle, texts.suites, EvaluationOptions(generate=False), Ranks())
        for holdout in ("unseen", "unseen_heldout"):
            for name, value in membership_aucs(Separation(holdout, "forget", holdout), rows).items():
                found.setdefault(name, []).append(value)
    for score in SCORES.values():
        alike, otherwise = np.array(found[f"unseen/auc_{score}"]), np.array(found[f"unseen_heldout/auc_{score}"])
        assert abs(alike.mean() - 0.5) < max(3.2 * alike.std(ddof=1) / 3**0.5, 0.08), (score, alike)
        assert abs(alike.mean() - 0.5) < abs(otherwise.mean() - 0.5), (score, otherwise)


def test_each_forget_suite_is_held_against_the_strangers_in_its_own_words(world: Benchmark) -> None:
    named = [(members.name, strangers.name) for members, strangers in _suite_pairs(world)]
    assert named == [("forget", "unseen"), ("forget_heldout", "unseen_heldout")]
    # A data set whose strangers are like no suite in particular: the first suite of them serves for all.
    plain = replace(world, suites=tuple(replace(suite, like="") for suite in world.suites))
    assert {strangers.name for _, strangers in _suite_pairs(plain)} == {"unseen"}


def test_without_rows_that_nobody_learned_it_says_so(world: Benchmark) -> None:
    seen = replace(world, suites=tuple(suite for suite in world.suites if suite.role is not Role.UNSEEN))
    with pytest.raises(Inapplicable, match="no model learned"):
        ATTACK.settings(seen, 0)
