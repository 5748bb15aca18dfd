"""Every file of conf/experiment composes, and runs two steps with a tiny model of its family on tiny data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab import worker
from erulab.config.compose import CONF, compose_config, save_config
from erulab.launching.job import plan_job
from erulab.models.hf import HfOptions
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.presets import PRESETS
from erulab.options import RunConfig
from erulab.ranks import Ranks
from erulab.registry import load_plugins
from erulab.tokens.chat import ChatFormat
from erulab.training.stopping import StopRequest
from tests.models.conftest import byte_level, tiny_model
from tests.samples import muse_files
from tests.samples.rwku_files import write_target
from tests.tokens.test_chat import CHATML

EXPERIMENTS = CONF / "experiment"
RECIPES = sorted(str(file.relative_to(EXPERIMENTS).with_suffix("")) for file in EXPERIMENTS.rglob("*.yaml"))
every_recipe = pytest.mark.parametrize("recipe", RECIPES)
SHORT = (
    "trainer.steps=2",
    "trainer.global_batch=4",
    "target.epochs=0.5",
    "target.global_batch=4",
    "evaluation.max_new_tokens=2",
    "tracker=none",
    "engine=local",
    "attack=none",
)


def composed(recipe: str, *overrides: str) -> RunConfig:
    load_plugins()
    return compose_config([f"experiment={recipe}", *overrides])


def tofu(folder: Path) -> None:
    """Writes TOFU's files in its own format, four rows each."""

    def write(name: str, rows: list[dict[str, object]]) -> None:
        (folder / f"{name}.json").write_text("\n".join(json.dumps(row) for row in rows))

    def plain(part: str) -> list[dict[str, object]]:
        return [{"question": f"Who is {part} {i}?", "answer": f"{part} {i} writes."} for i in range(4)]

    for split, retain in (("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90")):
        for name in (split, retain):
            write(name, plain(name[:-2]))
    for name in ("forget01", "forget05", "forget10", "retain"):
        more = {
            "paraphrased_question": "Who?",
            "paraphrased_answer": "Writes.",
            "perturbed_answer": ["Sings.", "Dances."],
        }
        write(f"{name}_perturbed", [{**row, **more} for row in plain(name.rstrip("0156789"))])
    for name in ("real_authors", "world_facts"):
        write(f"{name}_perturbed", [{**row, "perturbed_answer": ["No.", "Never."]} for row in plain(name)])
    (folder / "idontknow.jsonl").write_text("I don't know.\nNo idea.")


def wmdp(folder: Path) -> None:
    """Writes WMDP's questions on biology and two corpora, four rows each."""

    def write(name: str, rows: list[dict[str, object]]) -> None:
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    choices = ["One.", "Two.", "Three.", "Four."]
    write("wmdp-bio", [{"question": f"Which is {i}?", "choices": choices, "answer": i} for i in range(4)])
    for part in ("forget", "retain"):
        write(part, [{"text": f"{part} {i}: a text of more than fifty characters, as corpora have."} for i in range(4)])


def rwku(folder: Path) -> None:
    """Writes rows about an invented person under the name in the recipes."""
    write_target(folder / "1_Stephen_King", "Stephen King")


def muse(folder: Path) -> None:
    """Writes an invented corpus."""
    muse_files.written(folder)


DATA: dict[str, Callable[[Path], None]] = {"muse": muse, "rwku": rwku, "tofu": tofu, "wmdp": wmdp}
# Overrides that a data set needs beside its folder; {} stands for the folder.
MORE = {
    "wmdp": ("dataset.forget=[{}/forget.jsonl]", "dataset.retain=[{}/retain.jsonl]"),
    "muse": ("dataset.truncate=left",),  # MUSE's ten examples are longer than the tiny model's context
}
# Methods that name layers of a deep model, in the tiny one of two blocks.
SHALLOW = {"rmu": "method.layer=1", "circuit_breaker": "method.layers=[1,2]"}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a tiny random model of this type, or of this data set with few rows; makes each once."""
    made = tmp_path_factory.mktemp("tiny")

    def folder(kind: str) -> Path:
        if not (made / kind).is_dir():
            if kind in DATA:
                (made / kind).mkdir()
                DATA[kind](made / kind)
            else:
                tokenizer = byte_level()
                tokenizer.chat_template = CHATML
                model = tiny_model(kind, bos_token_id=0, eos_token_id=0, pad_token_id=0)
                save_folder(LoadedModel(model, tokenizer, ChatFormat(tokenizer, 256)), made / kind)
        return made / kind

    return folder


@every_recipe
def test_recipes_compose_and_say_where_their_numbers_are_from(recipe: str) -> None:
    lines = (EXPERIMENTS / f"{recipe}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith("# ")
    config = composed(recipe)
    if isinstance(config.model, HfOptions):
        assert config.model.path is not None or config.model.target is not None
    # The command line overrides the recipe.
    assert composed(recipe, "trainer.lr=0.5", "method=none").trainer.lr == 0.5


@pytest.mark.parametrize(
    ("split", "retain"), [("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90")]
)
def test_a_given_oracle_follows_the_split(split: str, retain: str) -> None:
    given = [recipe for recipe in RECIPES if recipe.startswith("tofu/") and recipe.endswith("_open_unlearning")]
    assert len(given) == 4
    for recipe in given:
        model = composed(recipe, f"dataset.split={split}").model
        assert (model.target.rpartition("_")[2], model.oracle.rpartition("_")[2]) == ("full", retain)
        assert model.target.rpartition("_")[0] == model.oracle.rpartition("_")[0]


@every_recipe
def test_recipes_run_two_steps(recipe: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    plain = composed(recipe)
    preset = PRESETS.get(plain.model.name)
    model = folder_of(str(preset.config["model_type"]) if preset else "llama")
    named = [part for part in ("target", "oracle", "tokenizer") if getattr(plain.model, part, None) is not None]
    given = [f"model.{part}={model}" for part in named]
    other = [] if isinstance(plain.model, HfOptions) else ["model=hf"]  # the preset's package may be missing
    data = folder_of(plain.dataset.name)
    files = [more.format(data) for more in MORE.get(plain.dataset.name, ())]
    layers = [SHALLOW[plain.method.name]] if plain.method.name in SHALLOW else []
    config = composed(
        recipe,
        *other,
        *SHORT,
        *given,
        *files,
        *layers,
        f"model.path={model}",
        f"dataset.path={data}",
        f"output={tmp_path}",
        *(["dataset.retain_rows=null"] if other else []),
    )
    job = plan_job(config)
    job.rundir.make()
    save_config(job.config, job.rundir.run_yaml)
    worker.run_rank(job.rundir, job.config, Ranks(), StopRequest())
    lines = [json.loads(line) for line in job.rundir.metrics_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1] and all(line["loss"] is not None for line in lines)
    assert {"target", "unlearned"} <= json.loads(job.rundir.scores_json.read_text()).keys()
    assert (job.rundir.model / "model.safetensors").is_file()
