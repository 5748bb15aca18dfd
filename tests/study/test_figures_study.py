"""A whole study of figures on a small world: what it writes, that nothing is repeated, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erulab.config.compose import compose_config
from erulab.reporting import trusted
from erulab.study import spec
from erulab.study.__main__ import main
from erulab.study.figures_spec import FigureStudy
from tests.pipeline.conftest import SMALL
from tests.study.test_spec import written

SHIPPED = Path(__file__).parents[2] / "launch" / "studies" / "figures.yaml"
SETTINGS = " ".join(o for o in SMALL if not o.startswith(("attack.", "target.epochs", "trainer.lr", "trainer.steps")))
STUDY = f"""
figures:
  draws: 50
  settings:
    tiny:
      common: "{SETTINGS} target.epochs=15 evaluation.generate=false evaluation.suites=[forget,retain]"
      calibration: dataset.world=1
      studied: dataset.world=2
      unlearned: [method=simnpo trainer.steps=2 trainer.lr=1.0e-3]
      hiding: [rounding]
      tuned: attack=relearn attack.relearn.source=retain attack.relearn.epochs=1
      relearned: attack=relearn attack.relearn.split=all attack.relearn.epochs=1
      quantised: attack=quantize attack.quantize.bits=[4]
      probe: attack=relearn attack.relearn.repeats=1 attack.relearn.epochs=1
      utility: retain/choice
      kept: 0.0
"""


@pytest.fixture
def written_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the marks, in place of the one that is shipped; it holds another setting."""
    file = tmp_path / "trusted_figures.json"
    other = {"models": dict.fromkeys(("runs", "know", "hide", "lack", "relearned"), 0), "figures": {}}
    file.write_text(json.dumps({"faithfulness": 0.1, "robustness": 0.1, "settings": {"other": other}}))
    monkeypatch.setattr(trusted, "FILE", file)
    trusted.trusted_figures.cache_clear()
    yield file
    trusted.trusted_figures.cache_clear()


def test_a_study_judges_figures_and_continues(tmp_path: Path, written_data: Path) -> None:
    command = [str(written(tmp_path, STUDY)), f"output={tmp_path / 'o'}", "--write"]
    assert main(command) == 0
    (folder,) = (tmp_path / "o" / "studies").iterdir()
    content = json.loads((folder / "figures.json").read_text())
    setting = content["settings"]["tiny"]
    models = {(one["run"], one["name"]): one for one in setting["models"]}
    names = ("target", "oracle", "tuned target", "tuned oracle", "rounding", "method=simnpo trainer.steps=2")
    assert len(models) == len(names) and {name.partition(" trainer.lr")[0] for _, name in models} == set(names)
    assert setting["counts"]["know"] == setting["counts"]["lack"] == 2 and setting["counts"]["runs"] == 1
    found: dict[str, Any] = setting["figures"]
    assert "forget/choice" in found and "knowledge" in found
    # Other suites, costs and comparisons with the oracle say nothing about what is known.
    assert not [
        name for name in found if name.startswith(("retain/", "cost/", "knowledge_left")) or name.endswith("/n")
    ]
    target, oracle = (models["dataset.world=2", name]["figures"]["forget/log_odds"] for name in ("target", "oracle"))
    assert target > oracle and found["forget/log_odds"]["direction"] == 1 and found["forget/nll"]["direction"] == -1
    assert found["forget/log_odds"]["faithfulness"]["value"] == 1.0
    marks = json.loads(written_data.read_text())
    assert set(marks["settings"]) == {"other", "tiny"} and marks["faithfulness"] == 0.8
    assert marks["settings"]["tiny"]["figures"] == found and str(tmp_path) not in marks["settings"]["tiny"]["commit"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("e*.json")}
    assert main([*command, "--reverse"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("e*.json")} == before
    assert json.loads((folder / "figures.json").read_text())["settings"]["tiny"]["figures"] == found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("attack=quantize attack.quantize.bits=[4]", "attack=logit_lens", "changes weights"),
        ("method=simnpo", "method=simnpoo", "simnpoo"),
        ("hiding: [rounding]", "hiding: [rouding]", "rouding"),
        ("kept: 0.0", "kept: 2.0", "kept must be"),
    ],
)
def test_a_mistake_shows_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert main([str(written(tmp_path, STUDY.replace(old, new))), f"output={tmp_path / 'o'}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not list((tmp_path / "o").glob("fictitious/*/run.yaml"))


def test_only_names_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(written(tmp_path, STUDY)), "--only", "tinny"]) == 2
    assert "did you mean tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "option"), [(SHIPPED, "--tune-only"), (SHIPPED.with_name("embedded.yaml"), "--write")]
)
def test_options_of_the_other_kind_of_study_are_refused(
    file: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), option]) == 2
    assert capsys.readouterr().err.startswith(f"{option} is for a study of")


def test_every_run_of_the_shipped_study_composes() -> None:
    study = spec.read_study(SHIPPED)
    assert isinstance(study, FigureStudy)
    for setting in study.figures.settings.values():
        common, first = setting.common.split(), spec.expand_sweep(setting.studied)[0]
        for sweep in (setting.calibration, setting.studied, *setting.further):
            for line in spec.expand_sweep(sweep):
                compose_config([*common, *line, "attack=none"])
        for sweep in (*setting.unlearned, *setting.hiders):
            for method in spec.expand_sweep(sweep):
                assert f"method={compose_config([*common, *first, *method]).method.name}" in method
        for attack in (setting.tuned, setting.relearned, setting.quantised, setting.probe):
            assert len(compose_config([*common, *first, *attack.split()]).attack) == 1
