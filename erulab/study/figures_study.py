"""A study of figures: judges each figure by models whose knowledge is known, and writes the result."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from erulab.errors import ConfigError
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.reporting import trusted
from erulab.rundir import RunDir
from erulab.study import work
from erulab.study.figures_spec import FigureStudy, chosen_settings
from erulab.study.setting_study import SettingStudy
from erulab.study.trust import common_figures, figure_direction, judge_figure


def run_figure_study(study: FigureStudy, options: argparse.Namespace) -> None:
    """Runs a study of figures, or continues it; writes figures.json, prints a table per setting.

    Args:
        options: of the command line: `file`, `overrides`, `only`, `reverse`, `write`.
    Raises:
        ConfigError: a run does not compose, or no figure was measured on all models.
    """
    settings = {
        name: SettingStudy(setting, options.overrides, reverse=options.reverse)
        for name, setting in chosen_settings(study, options.only).items()
    }
    for setting in settings.values():
        setting.compose()
    output = Path(work.plan_run(options.overrides).config.output)
    typed = OmegaConf.to_container(OmegaConf.structured(study), enum_to_str=True)
    key = short_hash([typed, options.overrides, options.only])
    rundir = RunDir(output / "studies" / f"{options.file.stem}-{key}")
    rundir.make()
    found = {name: _judge_setting(name, setting, study) for name, setting in settings.items()}
    made_by = {"command": _typed_command(options), "commit": machine.describe([])["git"]}
    rundir.write_json(rundir.path / "figures.json", {"study": typed, **made_by, "settings": found})
    thresholds = {"faithfulness": study.figures.faithfulness, "robustness": study.figures.robustness}
    short = {name: {"models": entry["counts"], "figures": entry["figures"], **made_by} for name, entry in found.items()}
    if options.write:
        rundir.write_json(trusted.FILE, trusted.merged_content(thresholds, short))
    for table in trusted.trust_tables({**thresholds, "settings": short}).values():
        print(table.render("text"), flush=True)
    print(f"study folder: {rundir.path}")


def _judge_setting(name: str, setting: SettingStudy, study: FigureStudy) -> dict[str, Any]:
    calibration, models, notes = setting.judged_models()
    figures = setting.figures_of_knowledge(common_figures([*calibration, *models]))
    directions = {figure: figure_direction(figure, calibration) for figure in figures}
    if not any(directions.values()):
        raise ConfigError(f"figures.settings.{name}: no figure was measured on all models; see their scores.json")
    robust_of = [model for model in models if setting.counts_for_robustness(model, models)]
    options = study.figures
    judged: dict[str, Any] = {}
    for figure in (figure for figure, direction in directions.items() if direction):
        trust = judge_figure(figure, directions[figure], models, robust_of, draws=options.draws, seed=options.seed)
        judged[figure] = {**asdict(trust), "failed": trust.failed(options.faithfulness, options.robustness)}
    counts = {
        "runs": len({model.run for model in models}),
        "know": sum(model.knows is True and model.role != "hider" for model in models),
        "hide": sum(model.knows is True and model.role == "hider" for model in models),
        "lack": sum(model.knows is False for model in models),
        "relearned": len(robust_of),
    }
    parts = [
        {**note, "figures": {figure: model.figures[figure] for figure in judged}}
        for note, model in zip(notes, models, strict=True)
    ]
    return {"counts": counts, "figures": judged, "models": parts}


def _typed_command(options: argparse.Namespace) -> str:
    """Returns the command that makes the study's result."""
    only = [] if options.only is None else ["--only", options.only]
    return shlex.join(["python", "-m", "erulab.study", str(options.file), *options.overrides, *only])
