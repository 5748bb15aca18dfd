"""Names of runs: the method, what differs from its defaults, the key of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.rundir import RunDir
from erulab.tracking.naming import LONGEST, job_type, run_name, tags


def named(folder: str, *overrides: str) -> str:
    return run_name(RunDir(Path(folder)), compose_config(overrides))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "eru"),
        (("method=npo", "trainer.lr=0.0003", "seed=1"), "npo_lr3e-4_s1"),
        (("method=npo", "method.beta=0.05", "trainer.lr=1.5e-05", "target.seed=2"), "npo_beta0.05_lr1.5e-05_target-s2"),
        (("method=npo", "trainer.micro_batch=2", "attack=none", "tracker=none"), "npo"),  # change no model
        (("method=npo", "model=hf", "model.path=meta-llama/Llama-3.2-1B", "seed=3"), "npo_Llama-3.2-1B_s3"),
        (("method=npo", "dataset=tofu", "dataset.split=forget05"), "npo_tofu-forget05"),
        (("method=npo", "adversary=rfa"), "npo_rfa"),
        (("method=retrain",), "retrain"),
    ],
)
def test_a_name_tells_what_differs(overrides: tuple[str, ...], name: str) -> None:
    assert named(f"x-{'0123456789'}", *overrides) == f"{name}-0123456789"


def test_long_names_are_bounded_and_count_what_they_leave_out() -> None:
    many = [f"dataset.{key}=3" for key in ("forget_authors", "retain_authors", "unseen_authors", "general_facts")]
    name = named("npo-0123456789", "method=npo", *many, "trainer.steps=7", "seed=4")
    assert len(name) <= LONGEST + len("-0123456789")
    assert name.startswith("npo_forget_authors3_retain_authors3") and name.endswith("_+3-0123456789")


def test_a_folder_that_the_user_named_is_the_name() -> None:
    assert named("outputs/my-run", "method=npo", "seed=1") == "my-run"


def test_tags_and_kinds() -> None:
    config = compose_config(["method=npo", "adversary=rfa", "tracker.tags=[a,npo]"])
    assert tags(config) == ["fictitious", "npo", "reference", "rfa", "a"]
    kinds = [job_type(compose_config([f"method={name}"])) for name in ("npo", "retrain", "none")]
    assert kinds == ["unlearn", "reference", "reference"]
    given = ["model.unlearned=org/a", "model.target=org/b", "model.oracle=org/c", "stages=[evaluate]"]
    checkpoint = compose_config(given)
    assert (job_type(checkpoint), tags(checkpoint)) == ("checkpoint", ["fictitious"])
