"""Which rows are relearned and which are scored, and that the attack trains on exactly those rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from erulab.attacks.base import Attempt, FinetuneSettings, Inapplicable, Repeat
from erulab.attacks.halves import validation_facts
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.attacks.relearn_rows import RelearnSource, RelearnSplit, SplitUnit
from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.errors import ConfigError, DataError
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.options import Schedule
from erulab.tokens.batch import collate
from tests.attacks.conftest import PlainLab


class Notes:
    """A lab that records the rows an attack asks it to train on."""

    def __init__(self, benchmark: Benchmark, repeat: Repeat) -> None:
        self.benchmark, self.repeat = benchmark, repeat
        self.rows: list[Row] = []

    def finetune(self, subject: LoadedModel, rows: list[Row], settings: FinetuneSettings) -> list[object]:
        self.rows = rows
        return []


class Copied:
    def copy(self) -> None:
        return None


def trained(attack: Relearn, world: Benchmark, setting: dict[str, object], number: int = 0) -> list[Row]:
    notes = Notes(world, Repeat(0, number))
    list(attack.attempts(Copied(), setting, notes))  # type: ignore[arg-type]
    return notes.rows


@pytest.mark.parametrize("by", list(SplitUnit))
def test_one_half_is_relearned_and_the_other_scored_in_every_phrasing(world: Benchmark, by: SplitUnit) -> None:
    attack = Relearn(RelearnOptions(by=by))
    (setting,) = attack.settings(world, 0)
    relearned = trained(attack, world, setting)
    forget, heldout = attack.scored(setting, world, Repeat(0))
    assert (forget.role, heldout.role) == (Role.FORGET, Role.HELDOUT)

    def units(rows: tuple[Row, ...] | list[Row]) -> set[str]:
        return {row.author if by is SplitUnit.author else row.fact for row in rows}

    every = units(world.forget)
    assert units(relearned) | units(forget.rows) == every and not units(relearned) & units(forget.rows)
    assert units(heldout.rows) == units(forget.rows)
    assert len(units(relearned)) == len(every) // 2
    # All named rows of the relearned half, none of its held-out ones; all rows of the other half.
    assert setting["samples"] == len(relearned) == sum(row.fact in {r.fact for r in relearned} for row in world.forget)
    assert {row.id for row in relearned} <= {row.id for row in world.forget}
    phrasings = Counter(row.fact for row in (*forget.rows, *heldout.rows))
    assert set(phrasings.values()) == {4}


def test_more_samples_only_add_rows_and_the_seed_draws_them(world: Benchmark) -> None:
    attack = Relearn(RelearnOptions(samples=[0, 3, 9]))
    settings = attack.settings(world, 0)
    assert [setting["samples"] for setting in settings] == [0, 3, 9]
    none, some, more = ([row.id for row in trained(attack, world, setting)] for setting in settings)
    assert none == [] and some == more[:3] and len(set(more)) == 9
    assert some != [row.id for row in trained(attack, world, settings[1], 2)]
    scored = [[row.id for row in attack.scored(settings[1], world, Repeat(seed))[0].rows] for seed in (0, 0, 1)]
    assert scored[0] == scored[1] != scored[2]


def test_two_repeats_relearn_each_others_half_and_a_third_draws_anew(world: Benchmark) -> None:
    attack = Relearn(RelearnOptions())
    (setting,) = attack.settings(world, 0)
    first, second, third = (
        {row.fact for row in attack.scored(setting, world, Repeat(0, number))[0].rows} for number in range(3)
    )
    assert first | second == {row.fact for row in world.forget} and not first & second
    assert third not in (first, second)


@pytest.mark.parametrize(
    "options", [RelearnOptions(split=RelearnSplit.all), RelearnOptions(source=RelearnSource.retain)]
)
def test_all_facts_are_scored_where_no_half_is_promised(world: Benchmark, options: RelearnOptions) -> None:
    attack = Relearn(options)
    (setting,) = attack.settings(world, 0)
    rows = world.retain if options.source is RelearnSource.retain else world.forget
    assert {row.id for row in trained(attack, world, setting)} == {row.id for row in rows}
    assert attack.scored(setting, world, Repeat(0)) == (world.suite("forget"), world.suite("forget_heldout"))


def test_too_many_samples_name_the_number_there_are(world: Benchmark) -> None:
    # 3 authors of 5 facts: 7 facts in 2 named phrasings are relearned.
    with pytest.raises(DataError, match=r"attack\.relearn\.samples=15, but 14 forget rows .*type .*samples=\[14\]"):
        Relearn(RelearnOptions(samples=[10, 15])).settings(world, 0)
    # Of two repeats the second relearns the larger half: the smaller one counts.
    one = replace(world, forget=world.forget[:2])  # two phrasings of one fact
    with pytest.raises(Inapplicable, match="needs two facts"):
        Relearn(RelearnOptions()).settings(one, 0)


def test_a_row_whose_fact_is_unknown_is_never_scored_as_held_out(world: Benchmark) -> None:
    """A held-out row without a named fact may phrase a relearned one, so it is not scored."""
    stray = replace(world.forget[0], id="stray", fact="", author="")
    suites = tuple(Suite(s.name, s.role, (*s.rows, stray)) if s.role is Role.HELDOUT else s for s in world.suites)
    attack = Relearn(RelearnOptions())
    scored = attack.scored({}, replace(world, suites=suites), Repeat(0))
    assert "stray" not in {row.id for suite in scored for row in suite.rows}


def test_the_attacked_model_knows_what_it_relearned(
    world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    def mean_nll(loaded: LoadedModel, rows: list[Row]) -> float:
        encoded = [loaded.chat.encode(row) for row in rows]
        with torch.no_grad():
            return float(loaded.policy.row_nll(collate(encoded, loaded.pad_id)).mean())

    attack = Relearn(RelearnOptions(lr=[2e-3], epochs=5))
    (setting,) = attack.settings(world, 0)
    rows = trained(attack, world, setting)
    (attempt,) = attack.attempts(models["oracle"], setting, lab)
    assert attempt.changed is not None
    assert mean_nll(attempt.changed, rows) < 0.5 * mean_nll(models["oracle"], rows)


def test_options_out_of_range() -> None:
    for name, value in (
        ("samples", []),
        ("samples", [-1]),
        ("batch", 0),
        ("lr", [-1.0]),
        ("lr", []),
        ("warmup", 1.0),
        ("lr", [1e-3, 1e-3]),
        ("points", 0),
        ("texts", "a.txt"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            RelearnOptions(**{name: value})
    with pytest.raises(ValueError, match="mixed must be false where source is retain"):
        RelearnOptions(source=RelearnSource.retain, mixed=True)


def cut(world: Benchmark, facts: int) -> Benchmark:
    """Returns the world with only its first facts to forget."""
    kept = list(dict.fromkeys(row.fact for row in world.forget))[:facts]
    suites = tuple(
        replace(suite, rows=tuple(row for row in suite.rows if row.fact in kept))
        if suite.role in (Role.FORGET, Role.HELDOUT)
        else suite
        for suite in world.suites
    )
    return replace(world, forget=tuple(row for row in world.forget if row.fact in kept), suites=suites)


@pytest.mark.parametrize("facts", [4, 5, 15])
def test_facts_of_both_halves_are_left_to_choose_by_and_to_report(world: Benchmark, facts: int) -> None:
    """For every seed, as many validation facts as other facts are relearned, and two repeats score all facts."""
    few = cut(world, facts)
    for seed in range(20):
        validation = validation_facts((row.fact for suite in forget_suites(few) for row in suite.rows), seed)
        attack = Relearn(RelearnOptions(lr=[1e-3, 1e-4]))
        assert attack.settings(few, seed)
        scored = [
            {row.fact for suite in attack.scored({}, few, Repeat(seed, number)) for row in suite.rows}
            for number in range(2)
        ]
        assert scored[0].isdisjoint(scored[1]) and len(scored[0] | scored[1]) == facts
        for own in scored:
            assert own & validation and own - validation
            assert abs(2 * len(own & validation) - len(validation)) <= 1


def test_a_choice_among_too_few_facts_is_refused(world: Benchmark) -> None:
    few = cut(world, 3)
    assert Relearn(RelearnOptions()).settings(few, 0)
    for options in (RelearnOptions(lr=[1e-3, 1e-4]), RelearnOptions(lr=[1e-3], points=2)):
        message = r"too few of 3 facts .*type attack\.relearn\.lr=\[0\.001\] attack\.relearn\.points=1"
        with pytest.raises(DataError, match=message):
            Relearn(options).settings(few, 0)


def test_unrelated_rows_are_of_no_fact_that_anybody_learned(world: Benchmark) -> None:
    attack = Relearn(RelearnOptions(source=RelearnSource.unrelated))
    (setting,) = attack.settings(world, 0)
    rows = trained(attack, world, setting)
    assert setting["source"] == "unrelated" and "split" not in setting
    assert setting["samples"] == len(rows) == len(world.suite("unseen").rows) > 0
    assert {row.fact for row in rows}.isdisjoint(row.fact for row in (*world.forget, *world.retain))
    assert attack.scored(setting, world, Repeat(0)) == forget_suites(world)
    # A row of a fact that was learned after all is none of them.
    unseen = replace(world.suite("unseen"), rows=(*world.suite("unseen").rows, replace(world.forget[0], id="again")))
    known = replace(world, suites=tuple(unseen if suite.name == "unseen" else suite for suite in world.suites))
    assert attack.settings(known, 0) == [setting]


def test_texts_of_ones_own_are_running_text_and_count_by_content(world: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One text.\n\nAnother one.\n")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(one) for one in ("One text.", {"text": "Another one."})))
    hashes = set()
    for name in ("a.txt", "b.jsonl"):
        attack = Relearn(RelearnOptions(source=RelearnSource.unrelated, texts=str(tmp_path / name)))
        (setting,) = attack.settings(world, 0)
        rows = trained(attack, world, setting)
        assert {(row.prompt, row.response, row.plain) for row in rows} == {
            ("", "One text.", True),
            ("", "Another one.", True),
        }
        assert "texts" in attack.options_told_by_setting and str(tmp_path) not in setting["texts"]
        hashes.add(setting["texts"])
    assert len(hashes) == 2
    with pytest.raises(ConfigError, match="attack.relearn.texts must be a file"):
        Relearn(RelearnOptions(source=RelearnSource.unrelated, texts=str(tmp_path))).settings(world, 0)


def test_a_data_set_without_such_rows_has_no_such_attack(world: Benchmark) -> None:
    bare = replace(world, retain=(), suites=tuple(s for s in world.suites if s.role is not Role.UNSEEN))
    for options, message in (
        (RelearnOptions(source=RelearnSource.unrelated), r"attack\.relearn\.texts=FILE"),
        (RelearnOptions(source=RelearnSource.retain), "the data set has none"),
        (RelearnOptions(mixed=True), r"mixed=true trains on retain rows"),
    ):
        with pytest.raises(Inapplicable, match=message):
            Relearn(options).settings(bare, 0)


def test_mixed_rows_come_in_pairs(world: Benchmark) -> None:
    plain, attack = Relearn(RelearnOptions(samples=[6])), Relearn(RelearnOptions(samples=[6], mixed=True))
    (setting,) = attack.settings(world, 0)
    rows = trained(attack, world, setting)
    assert setting["mixed"] is True and setting["samples"] == 6 and len({row.id for row in rows}) == 12
    assert [row.id for row in rows[::2]] == [row.id for row in trained(plain, world, setting)]
    assert {row.id for row in rows[1::2]} <= {row.id for row in world.retain}
    assert attack.scored(setting, world, Repeat(0)) == plain.scored(setting, world, Repeat(0))
    few = replace(world, retain=world.retain[:4])
    assert Relearn(RelearnOptions(mixed=True)).settings(few, 0)[0]["samples"] == 4
    with pytest.raises(DataError, match=r"samples=6, but 4 forget rows"):
        attack.settings(few, 0)


def weights(attempt: Attempt) -> dict[str, torch.Tensor]:
    assert attempt.changed is not None
    return {name: weight.clone() for name, weight in attempt.changed.model.state_dict().items()}


def test_the_last_point_of_a_curve_is_the_attack_without_one(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    options = {"samples": [14], "epochs": 3, "batch": 4}  # 12 steps
    one = Relearn(RelearnOptions(lr=[1e-3], **options))  # type: ignore[arg-type]
    (setting,) = one.settings(lab.benchmark, 0)
    ((alone, expected),) = [(attempt, weights(attempt)) for attempt in one.attempts(models["oracle"], setting, lab)]
    assert alone.chosen == {} and alone.steps == 12 and setting["lr"] == 1e-3
    curve = Relearn(RelearnOptions(lr=[1e-4, 1e-3], points=3, **options))  # type: ignore[arg-type]
    (setting,) = curve.settings(lab.benchmark, 0)
    assert (setting["lr"], setting["points"]) == ([1e-4, 1e-3], 3)
    found = [(attempt, weights(attempt)) for attempt in curve.attempts(models["oracle"], setting, lab)]
    assert [attempt.chosen for attempt, _ in found] == [
        {"lr": lr, "steps": step} for lr in (1e-4, 1e-3) for step in (4, 8, 12)
    ]
    assert [attempt.steps for attempt, _ in found] == [4, 8, 12, 16, 20, 24]  # the attacker's, over all rates
    *_, (_, before), (_, last) = found
    assert all(torch.equal(last[name], weight) for name, weight in expected.items())
    assert any(not torch.equal(before[name], weight) for name, weight in expected.items())


def test_luckis_recipe_reaches_the_training(world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    """The values of the published script: finetune.py of ethz-spylab/unlearning-vs-safety."""
    options = compose_config(["attack=relearn_lucki", "attack.relearn_lucki.samples=[5]"]).attack["relearn_lucki"]
    asked: list[FinetuneSettings] = []

    class Recorder(PlainLab):
        def finetune(
            self, subject: LoadedModel, rows: Sequence[Row], settings: FinetuneSettings
        ) -> Iterator[tuple[int, LoadedModel]]:
            asked.append(settings)
            yield 0, subject

    attack = Relearn(options)
    (setting,) = attack.settings(world, 0)
    assert list(attack.attempts(models["oracle"], setting, Recorder(world)))
    assert asked == [
        FinetuneSettings(
            lr=2e-4,
            epochs=3,
            steps=None,
            batch=1,
            warmup=0.05,
            schedule=Schedule.linear,
            lora_rank=128,
            lora_alpha=16,
            points=1,
            weight_decay=0.01,
        )
    ]


@pytest.mark.parametrize("attack", ["none", "quantize"])
def test_the_learning_rate_of_an_experiment_does_not_stay_without_its_attack(attack: str) -> None:
    named = ["experiment=smollm2_tofu_forget01", "dataset.path=x"]
    assert compose_config(named).attack["relearn"].lr == [2e-4]
    assert "relearn" not in compose_config([*named, f"attack={attack}"]).attack
