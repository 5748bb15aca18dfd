"""What people type by habit or mistake: one line that says what to type, and random overrides never end otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from erulab.config.compose import compose_config
from erulab.config.messages import error_line
from erulab.errors import ConfigError, ErulabError
from erulab.study.spec import read_study
from tests.commands import Answer

LINES: list[tuple[list[str], str]] = [
    (
        ["--method=npo"],
        "--method=npo: overrides have no dashes; type method=npo (in a wandb sweep: ${args_no_hyphens})",
    ),
    (["--method", "npo"], "overrides have no dashes; type method=npo"),
    (["--trainer.lr=1e-4", "method=npo"], "type trainer.lr=1e-4"),
    (["--learning_rate=1e-4"], "type trainer.lr=1e-4"),
    (["--learning-rate", "1e-4"], "type trainer.lr=1e-4"),
    (["--bf16"], "type trainer.precision="),
    (["learning_rate=1e-4"], "unknown key learning_rate; type trainer.lr=1e-4"),
    (["--config-name=unlearn.yaml"], "--config-name=unlearn.yaml: there is one config here; leave it out"),
    (["-m", "--cfg", "job", "method=npo,ga"], "--cfg shows the config of one run: leave out -m"),
    (["--run", "--cfg", "job"], "--run and --cfg do not go together"),
    (["-m", "--info"], "--multirun and --info do not go together"),
    (["--info", "nope"], "invalid choice: 'nope'"),
    (["--shell-completion"], "--shell-completion needs install=SHELL"),
    (["--cfg"], "expected one argument"),
    (["--experimental-rerun", "/nope"], "would load a pickle"),
    (["--experimental-re", "/nope"], "would load a pickle"),  # Hydra takes the beginning of a flag too
    (["--multi", "--cfg", "job"], "--cfg shows the config of one run"),
    (["-m", "--cfg=job"], "--cfg shows the config of one run"),
    (["--model_name_or_path", "gpt2"], "type model=hf model.path=gpt2"),
    (["-m", "seed=range(0,0)"], "the sweep has no jobs"),
    (["method@x=0"], "method='0' is no option's name"),
    (["~stages.0"], "type the whole list: stages=[...]"),
    (["-m", "seed=0,1", "hydra.sweeper.max_batch_size=-1"], "hydra.sweeper.max_batch_size must be a whole number > 0"),
    (["dataset=jsonl", "dataset.path=~/data"], "type dataset.path=$HOME/data"),
    (["dataset=jsonl", "dataset.forget=[~/a.jsonl]"], "type dataset.forget=[$HOME/a.jsonl]"),
    (["dataset=jsonl", 'dataset.path="~/data"'], "type dataset.path=$HOME/data"),
    (["hydra.run.dir=a\0b"], "hydra.run.dir holds a NUL character"),
    ([f"hydra.run.dir=out/{'x' * 300}"], "hydra.run.dir holds a name of more than 255 bytes"),
    (["-m", "seed=0,1", f"hydra.sweep.dir={'x' * 300}"], "hydra.sweep.dir holds a name of more than 255 bytes"),
    (["model.lora.rank=-1"], "model.lora.rank must be >= 0, got -1"),
]


@pytest.mark.parametrize(("typed", "said"), LINES, ids=[" ".join(typed)[:40] for typed, _ in LINES])
def test_one_line_says_what_to_type(typed: list[str], said: str, command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 8 and 40."""
    answer = command(*typed)
    assert answer.code == ConfigError.code, answer
    assert len(answer.err.splitlines()) == 1 and said in answer.err
    assert not list(here.iterdir())


def test_a_study_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(ConfigError, match="nested without an end"):
        read_study(tmp_path / "study.yaml")


WORDS = (
    *("method", "reward", "adversary", "attack", "dataset", "model", "trainer", "engine", "stages", "seed", "output"),
    *("method.beta", "trainer.lr", "model.lora.rank", "attack.relearn.samples", "evaluation.judge.url", "plugins"),
    *(
        "hydra.run.dir",
        "hydra.sweeper.max_batch_size",
        "tracker.group",
        "artifacts.model",
        "nothing",
        "a.b.c",
        "stages.0",
    ),
)
GOOD = ("method=npo", "seed=3", "attack=none", "trainer.lr=1e-4", "stages=[target]", "~attack", "method.beta=0.1")
VALUES = (
    *(
        "npo",
        "ga",
        "none",
        "null",
        "",
        "0",
        "-1",
        "1e308",
        "nan",
        "inf",
        "[]",
        "{}",
        "[npo,ga]",
        "{a: 1}",
        "true",
        "1,2",
    ),
    *(
        "range(0,0)",
        "choice(1,2)",
        "glob(*)",
        "${seed}",
        "${nothing}",
        "${oc.env:NOTHING}",
        "~/x",
        "'",
        '"',
        "\\",
        "[",
        "ä",
    ),
    *(
        "../../etc",
        "x" * 300,
        "\0",
        "!!python/object:os.system",
        "_target_",
        "tiny",
        "hf",
        "9" * 40,
        "a b",
        "a=b",
        ":",
        "@",
    ),
)


def test_random_overrides_compose_or_end_in_a_line() -> None:
    """FAULTS 1 to 3, 7 and 8: 60 random command lines; no exception but those that become one line."""
    draw = random.Random(16)
    composed = 0
    for number in range(60):
        typed = [_random_override(draw) for _ in range(draw.randrange(1, 3))]
        try:
            compose_config(typed)
            composed += 1
        except ErulabError as error:
            assert "\n" not in str(error), typed
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            assert "\n" not in error_line(error), typed
        except Exception as error:
            raise AssertionError(f"{number}: {typed}") from error
    assert composed > 2


def _random_override(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return draw.choice(GOOD)
    key = draw.choice(["", "", "", "+", "++", "~"]) + draw.choice(WORDS)
    return (
        key
        + draw.choice(["", "", "", "@x", ".0", "@method.first"])
        + draw.choice(["=", "=", "=", ""])
        + draw.choice(VALUES)
    )
