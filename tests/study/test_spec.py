"""Arms and trials of a study: every arm has the same trials, and errors are one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.errors import ConfigError
from erulab.study import spec
from erulab.study.attacker_space import check_attacker
from erulab.study.figures_spec import FigureStudy
from erulab.study.spec import Study

SHIPPED = sorted((Path(__file__).parents[2] / "launch" / "studies").glob("*.yaml"))
STUDY = """
arms: ["method=npo,simnpo", "method=eru reward.z=ema,raw adversary=none"]
tuning:
  space: {trainer.lr: [1.0e-5, 1.0e-3], method.retain_weight: [0.5, 2.0]}
  rounds: [{trials: 8, runs: dataset.world=1}, {trials: 2, runs: "dataset.world=2,3"}]
  utility: retain/choice
report: {runs: "dataset.world=4,5"}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def read(file: Path) -> Study:
    study = spec.read_study(file)
    assert isinstance(study, Study)
    return study


def test_lines_expand_like_sweeps(tmp_path: Path) -> None:
    study = read(written(tmp_path, STUDY))
    assert spec.list_arms(study) == [
        ["method=npo"],
        ["method=simnpo"],
        ["method=eru", "reward.z=ema", "adversary=none"],
        ["method=eru", "reward.z=raw", "adversary=none"],
    ]
    assert spec.expand_sweep("a=1,2 b=[x,y] c=3,4") == [
        ["a=1", "b=[x,y]", "c=3"],
        ["a=1", "b=[x,y]", "c=4"],
        ["a=2", "b=[x,y]", "c=3"],
        ["a=2", "b=[x,y]", "c=4"],
    ]
    assert spec.expand_sweep("") == [[]]


def test_trials_fill_the_space_evenly_on_a_log_scale(tmp_path: Path) -> None:
    tuning = read(written(tmp_path, STUDY)).tuning
    points = [dict(override.split("=") for override in point) for point in spec.draw_trials(tuning, ["method=gd"])]
    assert len(points) == 8 and spec.draw_trials(tuning, []) == spec.draw_trials(tuning, [])
    # A Sobol sequence of 8 points has one point in each eighth of every axis.
    eighths = sorted(int(math.log(float(point["trainer.lr"]) / 1e-5, 100) * 8) for point in points)
    assert eighths == list(range(8))
    assert all(0.5 <= float(point["method.retain_weight"]) <= 2.0 for point in points)


def test_a_method_may_have_a_space_of_its_own(tmp_path: Path) -> None:
    """As many trials, at the same points of the unit square, so that budgets stay equal."""
    own = "space_of_method: {rmu: {trainer.lr: [1.0e-6, 1.0e-4], method.c: [1.0, 100.0]}}\n  space:"
    tuning = read(written(tmp_path, STUDY.replace("space:", own, 1))).tuning
    common, rmu = (spec.draw_trials(tuning, [f"method={name}", "adversary=none"]) for name in ("gd", "rmu"))
    assert [override.split("=")[0] for override in rmu[0]] == ["trainer.lr", "method.c"] and len(rmu) == len(common)
    for one, other in zip(common, rmu, strict=True):
        assert float(other[0].split("=")[1]) == pytest.approx(float(one[0].split("=")[1]) / 10, rel=1e-2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[1.0e-5, 1.0e-3]", "[1.0e-3, 1.0e-5]", "trainer.lr must be"),
        ("trials: 2", "trials: 9", "falling"),
        ("arms: [", "army: [", "army"),
        ("utility:", "kept: 2.0\n  utility:", "kept must be"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"study.yaml: .*{said}"):
        spec.read_study(written(tmp_path, STUDY.replace(old, new)))
    with pytest.raises(ConfigError, match="does not exist"):
        spec.read_study(tmp_path / "absent.yaml")


def test_files_that_hold_no_study_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a list"):
        spec.read_study(written(tmp_path, "- method=gd"))
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="utf-8"):
        spec.read_study(tmp_path / "study.yaml")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_run_of_a_shipped_study_composes(file: Path) -> None:
    study = spec.read_study(file)
    if isinstance(study, FigureStudy):
        pytest.skip("test_figures_study.py composes it")
    arms, tuning, report = spec.list_arms(study), study.tuning, study.report
    commands = [(arm, [*report.common.split(), *spec.expand_sweep(report.runs)[0]]) for arm in arms]
    commands.append((arms[0], [*tuning.common.split(), *spec.expand_sweep(tuning.rounds[0].runs)[0]]))
    for arm, command in commands:
        point = spec.draw_trials(tuning, arm)[0]
        composed = compose_config([*study.common.split(), *point, *arm, *command])
        assert f"method={composed.method.name}" in arm
    if study.attacker is not None:
        arm, command = commands[0]
        check_attacker(study.attacker, [*study.common.split(), *spec.draw_trials(tuning, arm)[0], *arm, *command])
