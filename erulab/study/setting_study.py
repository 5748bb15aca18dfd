"""One setting of a study of figures: makes models that know, hide and do not know, and scores all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erulab.errors import ConfigError
from erulab.launching.job import Job
from erulab.stages import learn, unlearn
from erulab.study import work
from erulab.study.figures_spec import FigureSetting
from erulab.study.models_for_figures import ModelMaker, check_changing_attack
from erulab.study.spec import expand_sweep
from erulab.study.trust import Figures, JudgedModel
from erulab.typed import did_you_mean

# Figures that compare a model with the oracle of its run. The oracle's own value is fixed by that, so an AUC of them
# would say nothing.
AGAINST_ORACLE = ("knowledge_left", "forget_quality", "privleak", "smia")
NOT_KNOWLEDGE = ("cost/", "kept/", "utility_kept")


@dataclass(frozen=True)
class Plan:
    """A model that is scored: its folder, and what is known about it. Fields as in `JudgedModel`."""

    run: str
    role: str
    name: str
    knows: bool | None
    folder: Path
    relearned: Path | None = None
    quantised: Path | None = None


@dataclass(frozen=True)
class Pair:
    """The target and oracle of one run, by their folders."""

    target: Path
    oracle: Path


class SettingStudy:
    """Makes and scores the models of one setting. All are runs or products of the cache: nothing is repeated."""

    def __init__(self, setting: FigureSetting, overrides: Sequence[str], *, reverse: bool) -> None:
        """
        Args:
            overrides: more of them, for every run.
            reverse: begins with the last run, in a second terminal.
        """
        self._setting, self._overrides, self._step = setting, overrides, -1 if reverse else 1
        self._pairs: dict[str, Pair] = {}

    def compose(self) -> None:
        """Composes one run of each kind, so that a mistake shows before the first one starts.

        Raises:
            ConfigError and others: a run does not compose.
        """
        s = self._setting
        first = expand_sweep(s.studied)[0]
        for line in self._lines([s.calibration, s.studied, *s.further]):
            self._plan(line.split())
        for method in self._lines([*s.unlearned, *s.hiders]):
            self._plan([*first, *method.split()])
        for attack in (s.tuned, s.relearned, s.quantised):
            check_changing_attack(self._plan([*first, *attack.split()]).config)
        self._plan([*first, *s.probe.split()])

    def judged_models(self) -> tuple[list[JudgedModel], list[JudgedModel], list[dict[str, Any]]]:
        """Makes and scores all models.

        Returns:
            The models of the calibration runs; all others; for each of the latter what the study's result says of it.
        """
        s = self._setting
        calibration, studied = self._lines([s.calibration]), self._lines([s.studied])
        runs = [*studied, *self._lines(s.further)]
        self._learn([*calibration, *runs])
        made = self._unlearn(studied)
        plans = [plan for line in calibration for plan in self._pair_plans(line)]
        for line in runs[:: self._step]:
            plans += self._plans(line, made.get(line, []))
        jobs = self._scoring_jobs(plans)
        self._finish(list(jobs.values()))
        judged = [self._judged(plan, jobs) for plan in plans]
        notes = [self._note(plan, model, jobs) for plan, model in zip(plans, judged, strict=True)]
        judged = [
            replace(model, knows=bool(note["knows"]) or None) if model.role == "hider" else model
            for model, note in zip(judged, notes, strict=True)
        ]
        count = 2 * len(calibration)
        return judged[:count], judged[count:], notes[count:]

    def counts_for_robustness(self, model: JudgedModel, models: Sequence[JudgedModel]) -> bool:
        """Returns whether R and Q are computed of the model: a hider that knows, or unlearned, with utility kept.

        Raises:
            ConfigError: the figure of utility was not measured.
        """
        if self._setting.utility not in model.figures:
            near = did_you_mean(self._setting.utility, model.figures)
            raise ConfigError(f"utility: {self._setting.utility} is not a figure of the runs{near}; see scores.json")
        target = next(other for other in models if other.run == model.run and other.name == "target")
        kept = model.figures[self._setting.utility] >= self._setting.kept * target.figures[self._setting.utility]
        return kept and (model.role == "unlearned" or (model.role == "hider" and model.knows is True))

    def figures_of_knowledge(self, names: Sequence[str]) -> list[str]:
        """Returns the figures of forget and held-out suites, and those over several suites."""
        others = self._maker(expand_sweep(self._setting.studied)[0], self._setting.quantised).about_other_things
        return [
            name
            for name in names
            if not name.endswith("/n")
            and name != "n"
            and name.rpartition("/")[0] not in others
            and not name.startswith(NOT_KNOWLEDGE)
            and not name.rpartition("/")[2].startswith(AGAINST_ORACLE)
            and not self._setting.is_left_out(name)
        ]

    def _lines(self, sweeps: Sequence[str]) -> list[str]:
        return [" ".join(one) for sweep in sweeps for one in expand_sweep(sweep)]

    def _plan(self, overrides: Sequence[str]) -> Job:
        return work.plan_run([*self._setting.common.split(), *overrides, *self._overrides])

    def _finish(self, jobs: Sequence[Job]) -> None:
        for job in work.run_jobs(jobs[:: self._step]):
            print(job.rundir.path, flush=True)

    def _learn(self, lines: Sequence[str]) -> None:
        jobs = {
            line: self._plan([*line.split(), "method=none", "attack=none", "stages=[target,oracle]"]) for line in lines
        }
        self._finish(list(jobs.values()))
        self._pairs = {
            line: Pair(*(_product_folder(job, learn.KIND, role) for role in ("target", "oracle")))
            for line, job in jobs.items()
        }

    def _unlearn(self, lines: Sequence[str]) -> dict[str, list[tuple[str, str, Path]]]:
        """Runs methods of unlearning; returns for each line (role, what made it, folder of the model)."""
        kinds = [("unlearned", method) for method in self._lines(self._setting.unlearned)]
        kinds += [("hider", method) for method in self._lines(self._setting.hiders)]
        jobs = {
            (line, role, method): self._plan(
                [
                    *line.split(),
                    *method.split(),
                    "attack=none",
                    "artifacts.model=none",
                    "stages=[target,oracle,unlearn]",
                ]
            )
            for line in lines
            for role, method in kinds
        }
        self._finish(list(jobs.values()))
        made: dict[str, list[tuple[str, str, Path]]] = {}
        for (line, role, method), job in jobs.items():
            made.setdefault(line, []).append((role, method, _product_folder(job, unlearn.KIND, "unlearn")))
        return made

    def _pair_plans(self, line: str) -> Iterator[Plan]:
        pair = self._pairs[line]
        yield Plan(line, "target", "target", True, pair.target)
        yield Plan(line, "oracle", "oracle", False, pair.oracle)

    def _plans(self, line: str, made: Sequence[tuple[str, str, Path]]) -> Iterator[Plan]:
        """Yields the models of a line; those of a studied line are relearned and quantised as well."""
        s, pair = self._setting, self._pairs[line]
        tune = self._maker(line.split(), s.tuned)
        yield Plan(line, "target", "tuned target", True, tune.changed(pair.target))
        yield Plan(line, "oracle", "tuned oracle", False, tune.changed(pair.oracle))
        if not made:
            yield from self._pair_plans(line)
            return
        target, oracle = self._pair_plans(line)
        relearn, quantise = self._maker(line.split(), s.relearned), self._maker(line.split(), s.quantised)
        yield target
        yield replace(oracle, relearned=relearn.changed(oracle.folder))
        hidden = [("hider", one.value, relearn.hider(one, pair.target, s.mask)) for one in s.hiding]
        for role, name, folder in [*hidden, *made]:
            again, rounded = relearn.changed(folder), quantise.changed(folder)
            yield Plan(line, role, name, None, folder, again, rounded)

    def _maker(self, line: Sequence[str], attack: str) -> ModelMaker:
        return ModelMaker(self._plan([*line, "method=none", *attack.split()]))

    def _scoring_jobs(self, plans: Sequence[Plan]) -> dict[tuple[str, Path], Job]:
        """Returns the job that scores each folder; models whose knowledge is the question are probed as well."""
        jobs: dict[tuple[str, Path], Job] = {}
        first: dict[tuple[str, bool], Job] = {}  # of each run, with and without probe
        for plan in plans:
            for folder in (plan.folder, plan.relearned, plan.quantised):
                if folder is None:
                    continue
                probed = folder == plan.folder and plan.knows is None
                if (plan.run, probed) not in first:
                    first[plan.run, probed] = self._plan_scoring(plan.run, folder, probed=probed)
                jobs[plan.run, folder] = work.plan_scoring(first[plan.run, probed], folder)
        return jobs

    def _plan_scoring(self, line: str, folder: Path, *, probed: bool) -> Job:
        how = f"{self._setting.probe} stages=[evaluate,attack]" if probed else "attack=none stages=[evaluate]"
        pair = self._pairs[line]
        given = {"target": pair.target, "oracle": pair.oracle, "unlearned": folder}
        models = [f"model.{role}='{path}'" for role, path in given.items()]
        return self._plan([*line.split(), *how.split(), *models])

    def _judged(self, plan: Plan, jobs: Mapping[tuple[str, Path], Job]) -> JudgedModel:
        def figures(folder: Path | None) -> Figures | None:
            if folder is None:
                return None
            rundir = jobs[plan.run, folder].rundir
            scored: Figures = rundir.read_json(rundir.scores_json)["unlearned"]
            return scored

        own = figures(plan.folder)
        assert own is not None
        again, rounded = figures(plan.relearned), figures(plan.quantised)
        return JudgedModel(plan.run, plan.role, plan.name, plan.knows, own, again, rounded)

    def _note(self, plan: Plan, model: JudgedModel, jobs: Mapping[tuple[str, Path], Job]) -> dict[str, Any]:
        """Returns what the result says of a model. A model that was probed knows if relearning it brings back more
        knowledge than the report's margin: the lower 95 % bound counts, and the attack must be valid."""
        job = jobs[plan.run, plan.folder]
        note: dict[str, Any] = {
            "run": plan.run,
            "role": plan.role,
            "name": plan.name,
            "knows": plan.knows,
            "key": plan.folder.parent.name,
            "knowledge_left": model.figures.get("knowledge_left"),
            "utility": model.figures.get(self._setting.utility),
        }
        if plan.knows is None:
            row = next(row for row in job.rundir.read_json(job.rundir.attacks_json) if row["headline"])
            note["probed"] = {key: row[key] for key in ("knowledge_left_attacked", "low", "high", "standing")}
            note["knows"] = row["standing"] == "counts" and row["low"] > job.config.report.margin
        return note


def _product_folder(job: Job, kind: str, stage: str) -> Path:
    """Returns the folder of the model that a finished run's stage made."""
    key = job.rundir.read_json(job.rundir.stages_json)[stage]["key"].split("+")[-1]
    return Path(job.config.cache) / kind / key / "model"
