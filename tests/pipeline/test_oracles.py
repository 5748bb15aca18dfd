"""A run with several oracles: they are learned with other seeds, or given, and widen the interval of knowledge left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.conftest import Finished, Runner

ROLES = ["oracle", "oracle@2", "oracle@3"]
THREE = ("target.oracle_seeds=3", "attack=quantize", "attack.quantize.bits=[8]")


@pytest.fixture(scope="module")
def three(run: Runner) -> Finished:
    """A run with three learned oracles, in the output folder and cache of the first run."""
    found = run(*THREE)
    assert found.code == 0
    return found


def learned_folders(finished: Finished) -> list[Path]:
    """Returns the folders of the three learned oracles."""
    keys = finished.read("stages.json")["oracle"]["key"].split("+")
    return [finished.rundir.path.parents[1] / ".cache" / "learned" / key / "model" for key in keys]


def test_the_first_oracle_is_that_of_a_run_with_one(first: Finished, three: Finished) -> None:
    assert three.rundir.path != first.rundir.path
    assert three.from_cache["target"] and three.from_cache["unlearn"]
    scores, plain = three.read("scores.json"), first.read("scores.json")
    assert list(scores) == ["target", "unlearned", *ROLES]
    own = {name: value for name, value in scores["oracle"].items() if name != "knowledge_left"}
    assert own == plain["oracle"] and scores["target"] == plain["target"]
    stages, before = three.read("stages.json"), first.read("stages.json")
    assert stages["oracle"]["key"].split("+")[0] == before["oracle"]["key"]
    assert stages["attack"]["models"] == before["attack"]["models"]


def test_every_oracle_has_scores_and_costs(three: Finished) -> None:
    scores = three.read("scores.json")
    assert len({scores[role]["knowledge"] for role in ROLES}) == 3
    costs = [scores[role]["cost/flops"] for role in ROLES]
    assert three.read("stages.json")["oracle"]["flops"] == pytest.approx(sum(costs))
    assert all(sample.keys() & {"oracle@2", "oracle@3"} == set() for sample in three.read("samples.json"))


def test_knowledge_left_compares_with_the_mean_oracle(first: Finished, three: Finished) -> None:
    scores, plain = three.read("scores.json"), first.read("scores.json")
    unlearned, target = scores["unlearned"], scores["target"]["knowledge"]
    known = [scores[role]["knowledge"] for role in ROLES]
    zero = sum(known) / 3
    assert unlearned["knowledge_left"] == pytest.approx((unlearned["knowledge"] - zero) / (target - zero))
    left = []
    for role, own in zip(ROLES, known, strict=True):
        others = (sum(known) - own) / 2
        left.append((own - others) / (target - others))
        assert scores[role]["knowledge_left"] == pytest.approx(left[-1])
    assert unlearned["oracle_spread"] == pytest.approx((sum(value**2 for value in left) / 3) ** 0.5)
    assert "oracle_spread" not in plain["unlearned"] and "knowledge_left" not in plain["oracle"]
    report = three.rundir.report_md.read_text()
    assert f"scores between {min(left):.2f} and {max(left):.2f}" in report


def test_given_oracles_are_scored_like_learned_ones(run: Runner, three: Finished) -> None:
    folders = learned_folders(three)
    given = run(f"model.oracle=[{','.join(map(str, folders))}]", "attack=none")
    assert given.code == 0
    assert "oracle" not in given.read("stages.json")
    found, wanted = given.read("scores.json"), three.read("scores.json")
    names = ("knowledge_left", "knowledge_left_low", "knowledge_left_high90", "oracle_spread")
    assert {name: found["unlearned"][name] for name in names} == {name: wanted["unlearned"][name] for name in names}
    assert list(found) == list(wanted)


def test_the_same_model_is_no_second_oracle(run: Runner, three: Finished, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(learned_folders(three)[0])
    twice = run(f"model.oracle=[{learned_folders(three)[0]},{tmp_path / 'copy'}]", "attack=none")
    assert twice.code == 2
    assert f"{tmp_path / 'copy'} are the same model" in twice.read("exit.json")["message"]


def test_oracles_are_all_there_or_the_run_says_which_are_not(run: Runner, three: Finished) -> None:
    found = run(*THREE, "stages=[evaluate,report]")
    assert list(found.read("scores.json")) == ["target", "unlearned", *ROLES]
    four = run("target.oracle_seeds=4", "stages=[evaluate]", "attack=none")
    assert (four.code, four.read("exit.json")["message"]) == (
        3,
        "3 of target.oracle_seeds=4 oracles have been learned with these settings; add oracle to stages, or type "
        "target.oracle_seeds=1",
    )
