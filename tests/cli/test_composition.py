"""Every choice, preset and documented command composes to a typed config that says what was typed."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from enum import Enum
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from erulab import registry
from erulab.config.compose import CONF, compose_config, load_config, save_config
from erulab.methods.npo import NPOOptions
from erulab.options import EngineName, EngineOptions, Offload, Stage, TrackerName, TrainerOptions
from erulab.registry import GROUPS, LIST_GROUPS
from erulab.rewards.elastic import ElasticOptions

registry.load_plugins()
BUILTIN = [
    (group, name)
    for group, known in GROUPS.items()
    for name in known.names()
    if known[name].options.__module__.startswith("erulab.")
]
ROOT = CONF.parent
SUITES = sorted((CONF / "attack").glob("suite_*.yaml"))
COMMANDS = [  # those of the pages: tests/pages
    "",
    "method=npo",
    "-m method=ga,npo,dpo,eru",
    "-m method=eru reward=reference,reference_free,elastic adversary=none,rfa,latent_pgd",
    "sweep=methods",
    "sweep=elastic",
    "method=eru engine=zero2 engine.processes=2",
    "experiment=smollm2_tofu_forget01 dataset.path=../shared/data/tofu",
    "method=eru dataset=tofu model=smollm2_135m attack=[relearn,quantize]",
    "attack=[]",
    "attack=none",
    "attack=quantize",
    "attack.relearn.samples=[10]",
    "-m attack=[relearn],[quantize]",
]


def jobs(arguments: list[str]) -> list[list[str]]:
    """Returns the overrides of each job, parsed by Hydra's own grammar."""
    chosen = [a for a in arguments if a not in ("-m", "--multirun")]
    for preset in [a.partition("=")[2] for a in chosen if a.startswith("sweep=")]:
        params = yaml.safe_load((CONF / "sweep" / f"{preset}.yaml").read_text())["hydra"]["sweeper"]["params"]
        chosen = [f"{k}={v}" for k, v in params.items()] + chosen
    parsed = OverridesParser.create().parse_overrides(chosen)
    axes = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_discrete_sweep()
        else [f"{one.get_key_element()}={one.value().start}" if one.is_sweep_override() else str(one.input_line)]
        for one in parsed
    ]
    return [list(job) for job in itertools.product(*axes)]


def plain(value: object) -> object:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in dataclasses.asdict(value).items()}
    return value.name if isinstance(value, Enum) else value


@pytest.mark.parametrize("typed", COMMANDS)
def test_documented_commands_compose(typed: str) -> None:
    for overrides in jobs(shlex.split(typed)):
        composed = compose_config(overrides)
        chosen = dict(o.split("=", 1) for o in overrides)
        for group in ("method", "reward", "adversary", "model", "dataset"):
            if group in chosen:  # a tuned variant bears the plugin's name inside
                shown = yaml.safe_load((CONF / group / f"{chosen[group]}.yaml").read_text())
                assert getattr(composed, group).name == shown["name"]


@pytest.mark.parametrize(("group", "name"), BUILTIN)
def test_yaml_shows_the_options_defaults(group: str, name: str) -> None:
    file = CONF / group / f"{name}.yaml"
    shown = yaml.safe_load(file.read_text())
    assert f"/schema_{group}_{name}@_here_" in shown.pop("defaults")
    defaults = {
        f.name: f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc]
        for f in dataclasses.fields(GROUPS[group][name].options)
    }
    assert shown == {key: plain(defaults[key]) for key in shown}
    assert shown["name"] == name


def test_every_yaml_choice_is_registered() -> None:
    # `none` is the empty choice of a list; a tuned variant of a plugin bears the plugin's name inside.
    for group, known in GROUPS.items():
        for file in (CONF / group).glob("*.yaml"):
            if not (group in LIST_GROUPS and (file.stem == "none" or file in SUITES)):
                content = yaml.safe_load(file.read_text())
                bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base in known]
                assert content["name"] in known if "name" in content else bases


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_suite_of_attacks_holds_all_that_stand_by_themselves(file: Path) -> None:
    chosen = compose_config([f"attack={file.stem}"]).attack
    names = {options.name for options in chosen.values()}
    assert GROUPS["attack"].names() == sorted(names | {"sequence"})
    assert "relearn_retain" in chosen
    # What is typed counts last.
    assert compose_config([f"attack=[{file.stem}]", "attack.gcg.steps=3"]).attack["gcg"].steps == 3


@pytest.mark.parametrize("name", [file.stem for file in (CONF / "trainer").glob("*.yaml")])
def test_trainers_compose(name: str) -> None:
    assert compose_config([f"trainer={name}"]).trainer.lr > 0


def test_a_model_from_scratch_brings_its_trainer() -> None:
    files = [CONF / "trainer" / f"{name}.yaml" for name in ("tiny", "default")]
    tiny, default = (yaml.safe_load(file.read_text()) for file in files)
    assert compose_config().trainer.lr == tiny["trainer"]["lr"]
    assert compose_config().target.lr == tiny["target"]["lr"]
    assert compose_config(["trainer=default"]).trainer.lr == default["lr"]
    assert compose_config(["model=smollm2_135m"]).trainer.lr == default["lr"]


def test_default_trainer_is_the_class() -> None:
    shown = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    defaults = {key: plain(value) for key, value in dataclasses.asdict(TrainerOptions()).items()}
    assert shown == defaults


def test_zero3_offload_is_zero3_with_offload() -> None:
    engine = compose_config(["engine=zero3_offload"]).engine
    assert (engine.name, engine.offload) == (EngineName.zero3, Offload.cpu)


@pytest.mark.parametrize("name", [engine.name for engine in EngineName])
def test_engines_compose(name: str) -> None:
    assert compose_config([f"engine={name}"]).engine.name is EngineName[name]


def test_engine_options_are_shown_with_their_defaults() -> None:
    shown = yaml.safe_load((CONF / "run.yaml").read_text())["engine"]
    defaults = dataclasses.asdict(EngineOptions())
    assert shown == {key: defaults[key] for key in shown}


@pytest.mark.parametrize("name", [tracker.value for tracker in TrackerName])
def test_trackers_compose(name: str) -> None:
    assert compose_config([f"tracker={name}"]).tracker.name.name == name


def test_default_run() -> None:
    composed = compose_config()
    chosen = {g: getattr(composed, g).name for g in ("model", "dataset", "method", "reward", "adversary")}
    assert chosen == {
        "model": "tiny",
        "dataset": "fictitious",
        "method": "eru",
        "reward": "elastic",
        "adversary": "rfa",
    }
    assert list(composed.attack) == ["relearn", "quantize"]
    assert composed.stages == list(Stage)
    assert composed.cache == "outputs/.cache"


@pytest.mark.parametrize(
    ("overrides", "reward", "adversary"),
    [
        (["method=npo"], "reference", "none"),
        (["method=dpo"], "reference", "none"),
        (["method=simnpo"], "reference_free", "none"),
        (["method=eru"], "elastic", "rfa"),
        (["method=ga"], "none", "none"),
        # The command line chooses last, wherever it stands.
        (["reward=reference", "method=eru", "adversary=none"], "reference", "none"),
        (["method=npo", "reward=elastic", "adversary=latent_pgd"], "elastic", "latent_pgd"),
    ],
)
def test_a_method_brings_its_reward_and_adversary(overrides: list[str], reward: str, adversary: str) -> None:
    composed = compose_config(overrides)
    assert (composed.reward.name, composed.adversary.name) == (reward, adversary)


def test_presets_yield_to_the_command_line() -> None:
    preset = ["experiment=smollm2_tofu_forget01"]
    assert compose_config(preset).model.name == "smollm2_135m"
    changed = compose_config([*preset, "method=npo", "trainer.lr=0.5", "dataset.split=forget05"])
    assert isinstance(changed.method, NPOOptions)
    assert changed.reward.name == "reference"
    assert changed.trainer.lr == 0.5
    assert changed.dataset.split.name == "forget05"


def test_decay_follows_the_pairs() -> None:
    # 0.9 for pairs (alpha-DPO's source), 0.5 for negatives; what is given is kept.
    for overrides, decay in (
        (["method=eru"], 0.5),
        (["method=npo", "reward=elastic"], 0.5),
        (["method=dpo", "reward=elastic"], 0.9),
        (["method=eru", "method.pairs=alternative"], 0.9),
        (["method=eru", "reward.decay=0.7"], 0.7),
    ):
        reward = compose_config(overrides).reward
        assert isinstance(reward, ElasticOptions)
        assert reward.decay == decay


def test_stages_run_in_their_own_order() -> None:
    composed = compose_config(["stages=[evaluate,target,unlearn]"])
    assert composed.stages == [Stage.target, Stage.unlearn, Stage.evaluate]


@pytest.mark.parametrize("overrides", [[], ["method=dpo", "reward=elastic", "seed=3"], ["attack=none", "method=none"]])
def test_run_yaml_gives_the_same_config_back(overrides: list[str], tmp_path: Path) -> None:
    composed = compose_config(overrides)
    save_config(composed, tmp_path / "run.yaml")
    loaded = load_config(tmp_path / "run.yaml")
    assert loaded == composed
    assert type(loaded.method) is type(composed.method)
    assert "!!" not in (tmp_path / "run.yaml").read_text()


def test_advnpo_is_npo_against_the_published_ball() -> None:
    config = compose_config(["method=advnpo"])
    assert config.method == compose_config(["method=npo"]).method
    adversary = config.adversary
    assert (adversary.name, adversary.layer, adversary.eps, adversary.steps) == ("latent_pgd", 4, 8.0, 6)
    assert (adversary.ball.name, adversary.tokens.name) == ("sequence", "all")
    assert compose_config(["method=advnpo", "adversary=none"]).adversary.name == "none"
