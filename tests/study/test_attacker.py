"""The attack tuned on each reported model: equal budgets, a bound of utility, and facts that chose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from erulab.study.__main__ import main
from tests.study.test_study import STUDY

LR = {"low": 1e-5, "high": 1e-1, "log": True}
ATTACKED = (
    STUDY.replace("[method=simnpo, method=gd]", "[method=simnpo]")
    .replace('"seed=0,1"', '"seed=0"')
    .replace("{trials: 2,", "{trials: 1,")
    + """
attacker:
  attack: attack=relearn attack.relearn.repeats=2 attack.relearn.epochs=2
  space: {attack.relearn.lr: {low: 1.0e-5, high: 1.0e-1, log: true}}
  trials: 4
  kept: 0.8
"""
)


def test_the_attack_is_tuned_on_each_model_with_equal_budgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(ATTACKED)
    command = [str(file), f"output={tmp_path / 'o'}"]
    assert main(command) == 0
    said = capsys.readouterr().out
    print(said)
