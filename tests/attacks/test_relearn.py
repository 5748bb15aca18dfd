"""Who is relearned and who is scored, and that the attack trains on just those rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from erulab.attacks.base import Repeat
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.attacks.relearn_rows import Source, Split, Unit
from erulab.data.encoding import collate
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.errors import DataError
from erulab.models.loaded import LoadedModel
from tests.attacks.conftest import PlainLab


class Notes:
    """A lab that writes down what an attack asks it to train on."""

    def __init__(self, benchmark: Benchmark, repeat: Repeat) -> None:
        self.benchmark, self.repeat = benchmark, repeat
        self.rows: list[Row] = []

    def finetune(self, subject: LoadedModel, rows: list[Row], **_: object) -> list[object]:
        self.rows = rows
        return []


class Copied:
    def copy(self) -> None:
        return None


def trained(attack: Relearn, world: Benchmark, setting: dict[str, object], number: int = 0) -> list[Row]:
    notes = Notes(world, Repeat(0, number))
    list(attack.attempts(Copied(), setting, notes))  # type: ignore[arg-type]
    return notes.rows


@pytest.mark.parametrize("by", list(Unit))
def test_one_half_is_relearned_and_the_other_scored_in_every_phrasing(world: Benchmark, by: Unit) -> None:
    attack = Relearn(RelearnOptions(by=by))
    (setting,) = attack.settings(world, 0)
    relearned = trained(attack, world, setting)
    forget, heldout = attack.scored(setting, world, Repeat(0))
    assert (forget.role, heldout.role) == (Role.FORGET, Role.HELDOUT)

    def units(rows: tuple[Row, ...] | list[Row]) -> set[str]:
        return {row.author if by is Unit.author else row.fact for row in rows}

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


@pytest.mark.parametrize("options", [RelearnOptions(split=Split.all), RelearnOptions(source=Source.retain)])
def test_all_facts_are_scored_where_no_half_is_promised(world: Benchmark, options: RelearnOptions) -> None:
    attack = Relearn(options)
    (setting,) = attack.settings(world, 0)
    rows = world.retain if options.source is Source.retain else world.forget
    assert {row.id for row in trained(attack, world, setting)} == {row.id for row in rows}
    assert attack.scored(setting, world, Repeat(0)) == (world.suite("forget"), world.suite("forget_heldout"))


def test_too_many_samples_name_the_number_there_are(world: Benchmark) -> None:
    # 3 authors of 5 facts: 7 facts in 2 named phrasings are relearned.
    with pytest.raises(DataError, match=r"attack\.relearn\.samples=15, but 14 forget rows .*type .*samples=\[14\]"):
        Relearn(RelearnOptions(samples=[10, 15])).settings(world, 0)
    # Of two repeats the second relearns the larger half: the smaller one counts.
    one = replace(world, forget=world.forget[:2])  # two phrasings of one fact
    with pytest.raises(DataError, match="needs two facts"):
        Relearn(RelearnOptions()).settings(one, 0)


def test_a_row_whose_fact_is_unknown_is_never_scored_as_held_out(world: Benchmark) -> None:
    """It may phrase a relearned fact: a user's own held-out rows need not name theirs."""
    stray = replace(world.forget[0], id="stray", fact="", author="")
    suites = tuple(
        Suite(s.name, s.role, (*s.rows, stray)) if s.role is Role.HELDOUT else s for s in world.suites
    )  # fmt: skip
    attack = Relearn(RelearnOptions())
    scored = attack.scored({}, replace(world, suites=suites), Repeat(0))
    assert "stray" not in {row.id for suite in scored for row in suite.rows}


def test_the_attacked_model_knows_what_it_relearned(
    world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    def mean_nll(loaded: LoadedModel, rows: list[Row]) -> float:
        encoded = [loaded.chat.encode(row.id, row.prompt, row.response) for row in rows]
        with torch.no_grad():
            return float(loaded.policy.row_nll(collate(encoded, loaded.pad_id)).mean())

    attack = Relearn(RelearnOptions(lr=[2e-3], epochs=5))
    (setting,) = attack.settings(world, 0)
    rows = trained(attack, world, setting)
    (attempt,) = attack.attempts(models["oracle"], setting, lab)
    assert attempt.changed is not None
    assert mean_nll(attempt.changed, rows) < 0.5 * mean_nll(models["oracle"], rows)


def test_options_out_of_range() -> None:
    for name, value in (("samples", []), ("samples", [-1]), ("batch", 0), ("lr", [-1.0]), ("lr", []), ("warmup", 1.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            RelearnOptions(**{name: value})
