"""Nothing is made twice and nothing stale is reused: a stage's key is a hash of everything its product depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from erulab import checksums
from erulab.attacks.judging.columns import row_without_figures
from erulab.config.compose import compose_config
from erulab.costs.ledger import Ledger
from erulab.ranks import Ranks
from erulab.registry import datasets, models
from erulab.stages.cache import Cache, key_of
from erulab.stages.learn import learning_depends_on
from erulab.tokens.encoder import Encoder
from tests.pipeline.conftest import Finished, Runner, run_beside, small
from tests.reliability.world import without_machine
from tests.samples.damages import empty, flip_bit, halve


@pytest.fixture
def first(copy_first: Callable[[Path], Finished], tmp_path: Path) -> Finished:
    """A copy for each test: they change its folder and its cache."""
    return copy_first(tmp_path / "outputs")


@pytest.fixture
def run(first: Finished) -> Runner:
    """The command, in the output folder of the test."""
    return run_beside(first)


def learned_keys(*overrides: str) -> tuple[str, str]:
    """Returns the cache keys of target and oracle under these settings."""
    config = compose_config(small(overrides))
    source = models.build(config.model)
    benchmark = datasets.build(config.dataset).load(config.seed, Path(config.cache))
    encoder = Encoder(source.chat(benchmark), benchmark.max_length, Path(config.cache))
    data, chat = SimpleNamespace(raw=benchmark), encoder.chat
    context = SimpleNamespace(config=config, benchmark=benchmark, data=data, encoder=encoder, chat=chat, source=source)
    return key_of(learning_depends_on(context, "target")), key_of(learning_depends_on(context, "oracle"))  # type: ignore[arg-type]


UNRELATED = (
    "seed=5",
    "trainer.lr=1e-4",
    "trainer.steps=9",
    "method=npo",
    "reward.alpha=.3",
    "adversary=none",
    "attack=none",
    "output=elsewhere",
    "tracker=wandb",
    "engine=zero2",
    "trainer.micro_batch=4",
    "target.micro_batch=8",
    "target.oracle_seeds=3",
    "evaluation.max_new_tokens=9",
)
RELATED = (
    "target.lr=1e-4",
    "target.epochs=3",
    "target.seed=1",
    "dataset.world=1",
    "model.width=64",
    "dataset.phrasings=5",
)


def test_keys_of_target_and_oracle_depend_on_what_they_learn_from_and_nothing_else() -> None:
    plain = learned_keys()
    assert {o: learned_keys(o) == plain for o in UNRELATED} == dict.fromkeys(UNRELATED, True)
    changed = {o: [a != b for a, b in zip(learned_keys(o), plain, strict=True)] for o in RELATED}
    assert changed == {o: [True, True] for o in RELATED}


def test_the_same_command_again_makes_nothing(run: Runner, first: Finished) -> None:
    scores = (first.rundir.scores_json.read_bytes(), first.rundir.attacks_json.read_bytes())
    again = run("attack=[relearn,quantize]")
    assert again.rundir.path == first.rundir.path
    assert set(again.from_cache.values()) == {True}
    assert (again.rundir.scores_json.read_bytes(), again.rundir.attacks_json.read_bytes()) == scores


def test_another_attack_trains_nothing(run: Runner, first: Finished) -> None:
    other = run("attack=quantize", "attack.quantize.bits=[6]")
    assert other.from_cache == {"target": True, "oracle": True, "unlearn": True, "evaluate": True, "attack": False}
    assert other.rundir.path == first.rundir.path
    settings = [(row["attack"], row["setting"].get("bits")) for row in other.read("attacks.json")]
    assert {("relearn", None), ("quantize", 8), ("quantize", 4), ("quantize", 6)} == set(settings)


def test_scoring_again_keeps_the_unlearned_model(run: Runner, first: Finished) -> None:
    """A command without the stage `unlearn` reuses the cached model; it never writes scores that lack a model."""
    scores = first.rundir.scores_json.read_bytes()
    again = run("stages=[evaluate,report]", "attack=none")
    assert again.code == 0
    assert again.rundir.scores_json.read_bytes() == scores


def test_stages_that_lack_a_model_say_so(run: Runner, tmp_path: Path) -> None:
    """The error comes before anything is unlearned; such a run never ends with code 0 and no figures. FAULTS 31."""
    nothing = run("stages=[evaluate]", "attack=none", folder=tmp_path)
    assert (nothing.code, nothing.read("exit.json")["message"]) == (
        3,
        "no target has been learned with these settings; add target to stages, or name one with model.target=; a "
        "checkpoint that is only to be scored is model.unlearned=",
    )
    no_oracle = run("stages=[target,unlearn,attack]", "attack=quantize", "target.epochs=1", folder=tmp_path)
    assert no_oracle.code == 3 and "model.oracle=" in no_oracle.read("exit.json")["message"]
    assert not (tmp_path / ".cache" / "unlearned").exists()
    retrained = run("stages=[target,unlearn]", "attack=none", "method=retrain", "target.epochs=1", folder=tmp_path)
    assert retrained.code == 3 and "model.oracle=" in retrained.read("exit.json")["message"]


def test_another_learning_rate_unlearns_anew_from_the_same_target(run: Runner, first: Finished) -> None:
    other = run("trainer.lr=2e-3", "attack=none")
    assert other.rundir.path != first.rundir.path
    assert other.from_cache == {"target": True, "oracle": True, "unlearn": False, "evaluate": False}


def test_rerun_gives_the_same_bits(run: Runner, first: Finished) -> None:
    """rerun=true repeats every stage in the same folder, with the same weights and scores."""
    weights = load_file(first.rundir.model / "model.safetensors")
    scores = first.read("scores.json")
    again = run("attack=none", "rerun=true")
    assert not any(again.from_cache.values())
    same = load_file(again.rundir.model / "model.safetensors")
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    found = again.read("scores.json")
    for models_of in (scores, found):
        for figures in models_of.values():  # time and memory depend on the machine
            del figures["cost/seconds"], figures["cost/peak_memory_gb"]
    assert found == scores


def test_two_processes_make_a_product_once(tmp_path: Path) -> None:
    """The second process waits at the lock and reuses the product of the first."""
    script = (
        "import os, time, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "from erulab.stages.cache import Cache\n"
        "from erulab.costs.ledger import Ledger\n"
        "from erulab.ranks import Ranks\n"
        "def make(product):\n"
        "    while len(list(folder.glob('started-*'))) < 2: time.sleep(.01)\n"
        "    with open(folder / 'made', 'a') as f: f.write('x')\n"
        "cache = Cache(folder / 'cache', Ranks(), {}, Ledger(), 'cpu')\n"
        "(folder / f'started-{os.getpid()}').touch()\n"
        "p = cache.produce('kind', {'a': 1}, make)\n"
        "print(p.from_cache)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(process.communicate()[0].strip() for process in both)
    assert answers == ["False", "True"]
    assert (tmp_path / "made").read_text() == "x"


def test_a_product_that_failed_is_not_in_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path, Ranks(), {}, Ledger(), "cpu")

    def broken(folder: Path) -> None:
        (folder / "half").write_text("written")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.produce("kind", {"a": 1}, broken)
    assert cache.find("kind", {"a": 1}) is None
    made = cache.produce("kind", {"a": 1}, lambda folder: None)
    assert (
        not made.from_cache and (made.folder / "half").is_file()
    )  # the next attempt can continue from the files of the failed one

    def nothing(folder: Path) -> None:
        raise OSError("no such row")

    with pytest.raises(OSError, match="no such row"):
        cache.produce("kind", {"a": 2}, nothing)
    assert [path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()] == [made.key]


def test_the_note_that_an_attack_did_not_run_goes_once_it_has_run(run: Runner, first: Finished) -> None:
    file = first.rundir.attacks_json
    old = json.loads(file.read_text())
    first.rundir.write_json(
        file,
        [
            *old,
            row_without_figures("quantize", {}, "not run: a library is missing"),
            row_without_figures("gcg", {}, "not run: no responses"),
        ],
    )
    settings = [(row["attack"], row["setting"]) for row in run("attack=quantize").read("attacks.json")]
    assert ("quantize", {}) not in settings and ("gcg", {}) in settings
    first.rundir.write_json(file, [row for row in json.loads(file.read_text()) if row["attack"] != "gcg"])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped bit": flip_bit,
    "cut": halve,
    "empty": empty,
    "removed": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_product_is_made_again_and_said(damage: str, first: Finished, run: Runner) -> None:
    """FAULTS 33: one file of one product of each kind; the files and the figures are again those of before."""
    cache = first.rundir.path.parents[1] / ".cache"
    scores, attacks = first.read("scores.json"), first.read("attacks.json")
    damaged: dict[Path, bytes] = {}
    for kind in ("learned", "unlearned", "evaluated", "attacked"):
        product = max((p for p in (cache / kind).iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        files = sorted(file for file in product.rglob("*") if file.is_file())
        file = files[DRAWN[damage] % len(files)]
        damaged[file] = file.read_bytes()
        DAMAGES[damage](file)
    again = run("attack=[relearn,quantize]")
    assert again.code == 0
    lines = again.rundir.run_log.read_text().splitlines()
    for file, content in damaged.items():
        key = file.relative_to(cache).parts[1]
        said = any(key in line and "is not used" in line for line in lines)
        if file.name == "entry.json":
            assert said or damage == "removed", file  # a product without an entry is none
        else:
            assert said and figures_of(file, file.read_bytes()) == figures_of(file, content), file
    assert without_machine(again.read("scores.json")) == without_machine(scores)
    assert without_machine(again.read("attacks.json")) == without_machine(attacks)


DRAWN = {"flipped bit": 0, "cut": 1, "empty": 2, "removed": 3}  # which file of a product is damaged


def figures_of(file: Path, content: bytes) -> Any:
    """Returns what a product's file says without times and memory; the bytes of a file that is no JSON."""
    if file.suffix == ".jsonl":
        return [without_machine(json.loads(line)) for line in content.splitlines()]
    return without_machine(json.loads(content)) if file.suffix == ".json" else content


def test_large_weights_are_checked_while_they_are_loaded(
    first: Finished, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit of the target's weights: the run stops with one line, and the same command makes the target again."""
    monkeypatch.setattr(checksums, "SMALL_BYTES", 1000)
    product = first.rundir.path.parents[1] / ".cache" / "learned" / first.read("stages.json")["target"]["key"]
    weights = product / "model" / "model.safetensors"
    before = weights.read_bytes()
    flip_bit(weights)
    stopped = run("attack=none", "method=npo", "reward=reference", "adversary=none")
    message = stopped.read("exit.json")["message"]
    assert (stopped.code, str(weights) in message, "it is made again" in message) == (75, True, True)
    again = run("attack=none", "method=npo", "reward=reference", "adversary=none")
    assert again.code == 0 and not again.from_cache["target"]
    assert weights.read_bytes() == before


def test_a_model_that_was_trained_further_in_the_run_folder_is_kept_aside(run: Runner, first: Finished) -> None:
    """It is the same file as the cache's, which is made again."""
    weights = first.rundir.model / "model.safetensors"
    product = first.rundir.path.parents[1] / ".cache" / "unlearned" / first.read("stages.json")["unlearn"]["key"]
    weights.unlink()
    os.link(product / "model" / "model.safetensors", weights)  # as a run does; the copy for this test has no links
    before = weights.read_bytes()
    flip_bit(weights)
    changed = weights.read_bytes()
    again = run("attack=[relearn,quantize]")
    assert again.code == 0 and not again.from_cache["unlearn"]
    assert weights.read_bytes() == before
    assert (first.rundir.path / "model.changed" / "model.safetensors").read_bytes() == changed


def test_a_process_that_died_behind_its_entry_leaves_a_finished_product(tmp_path: Path) -> None:
    """Killed while checkpoints were removed, or before the folder had its name: it is not made again."""

    def cache() -> Cache:
        return Cache(tmp_path, Ranks(), {}, Ledger(), "cpu")

    def make(folder: Path) -> None:
        (folder / "checkpoints" / "step-1").mkdir(parents=True)
        (folder / "value").write_text("made")

    product = cache().produce("kind", {"a": 1}, make)
    assert not (product.folder / "checkpoints").exists()
    product.folder.rename(product.folder.with_name(f"{product.key}.partial"))
    (product.folder.with_name(f"{product.key}.partial") / "checkpoints").mkdir()

    def never(folder: Path) -> None:
        raise AssertionError("made again")

    again = cache().produce("kind", {"a": 1}, never)
    assert (again.folder / "value").read_text() == "made"
    assert sorted(path.name for path in again.folder.iterdir()) == ["entry.json", "value"]


def test_what_a_process_was_writing_when_it_died_is_not_kept(tmp_path: Path) -> None:
    """A run killed while it saved a model left the half of it beside the model for good; checkpoints stay."""
    cache = Cache(tmp_path, Ranks(), {}, Ledger(), "cpu")
    working = tmp_path / "kind" / f"{key_of({'a': 1})}.partial"
    (working / ".model.8238.tmp").mkdir(parents=True)
    (working / ".model.8238.tmp" / "model.safetensors").touch()
    (working / ".entry.json.k2x").touch()
    (working / "checkpoints").mkdir()
    seen = []

    def make(folder: Path) -> None:
        seen.extend(path.name for path in folder.iterdir())
        (folder / "value").write_text("made")

    product = cache.produce("kind", {"a": 1}, make)
    assert seen == ["checkpoints"]
    assert sorted(path.name for path in product.folder.iterdir()) == ["entry.json", "value"]


def test_a_file_that_does_not_belong_to_a_product_is_damage_too(tmp_path: Path) -> None:
    """A chat template beside a model changes its prompts, so a file too many is as bad as one that is missing."""
    cache = Cache(tmp_path, Ranks(), {}, Ledger(), "cpu")
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "value").write_text("made")

    product = cache.produce("kind", {}, make)
    assert cache.find("kind", {}) is not None
    (product.folder / "chat_template.jinja").write_text("other")
    assert cache.find("kind", {}) is None
    cache.produce("kind", {}, make)
    assert len(made) == 2 and not (product.folder / "chat_template.jinja").exists()
