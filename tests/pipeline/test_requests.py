"""Forget requests in sequence: each starts from the model before it; every model is kept, scored, and resumable."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from erulab.stages import lab
from tests.pipeline.conftest import Finished, Runner
from tests.samples import muse_files

STEPS = 3
SETTINGS = (
    "dataset=muse",
    "dataset.truncate=left",
    "target.epochs=6",
    "target.lr=3e-3",
    "method=npo",
    "trainer.global_batch=3",
    f"trainer.steps={STEPS}",
    "attack=none",
)

MuseRun = Callable[..., Finished]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return muse_files.written(tmp_path_factory.mktemp("muse"))


@pytest.fixture(scope="module")
def muse(run: Runner, data: Path) -> MuseRun:
    def finish(*overrides: str, **more: Any) -> Finished:
        return run(*SETTINGS, f"dataset.path={data}", *overrides, **more)

    return finish


@pytest.fixture(scope="module")
def chain(muse: MuseRun) -> Finished:
    finished = muse("dataset.requests=[1,2,3]", "attack=quantize", "attack.quantize.bits=[4]")
    assert finished.code == 0
    return finished


def products(finished: Finished) -> list[Path]:
    """Returns the folders of a run's unlearned models, in order."""
    kept = finished.rundir.path.parents[1] / ".cache" / "unlearned"
    return [kept / key for key in finished.read("stages.json")["unlearn"]["key"].split("+")]


def starts(finished: Finished) -> list[str]:
    """Returns, for each request, the key of the model that it started from."""
    return [json.loads((folder / "entry.json").read_text())["depends_on"]["target"] for folder in products(finished)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_request_starts_from_the_model_before_it(chain: Finished) -> None:
    first, second, third = products(chain)
    assert starts(chain) == [chain.read("stages.json")["target"]["key"], first.name, second.name]
    assert_same_weights(third, chain.rundir.path)  # RUN_DIR/model is the last one's


def test_a_request_in_a_sequence_gives_the_model_that_it_gives_alone(
    chain: Finished, muse: MuseRun, tmp_path: Path
) -> None:
    first, second, _ = products(chain)
    alone = muse(
        "dataset.requests=[2]", f"model.target={first / 'model'}", "stages=[unlearn]", folder=tmp_path / "alone"
    )
    assert alone.code == 0
    assert_same_weights(products(alone)[0], second)


def test_every_step_is_scored_on_all_suites(chain: Finished, muse: MuseRun) -> None:
    scores = chain.read("scores.json")
    assert list(scores) == ["target", "unlearned@1", "unlearned@2", "unlearned", "oracle"]
    for figures in scores.values():
        assert {f"forget_{fold}/nll" for fold in (1, 2, 3)} <= figures.keys()
        assert {"verbmem/rouge_f1", "knowmem_f/rouge_f1", "knowmem_r/rouge_f1", "mia/privleak"} <= figures.keys()
        assert figures["forget_2/n"] == 6
    one = muse("dataset.requests=[1]").read("scores.json")
    assert list(one) == ["target", "unlearned", "oracle"]
    for name in ("forget_1/nll", "verbmem/rouge_f1", "knowmem_r/rouge_f1", "mia/auc_min_k"):
        assert one["unlearned"][name] == pytest.approx(scores["unlearned@1"][name], abs=1e-6)
    # A model's cost is the sum over all requests up to it.
    alone = [json.loads((p / "entry.json").read_text())["costs"]["tokens"] for p in products(chain)]
    assert [scores[f"unlearned{step}"]["cost/tokens"] for step in ("@1", "@2", "")] == [
        alone[0],
        alone[0] + alone[1],
        sum(alone),
    ]


def test_a_single_request_is_a_plain_run(chain: Finished, muse: MuseRun) -> None:
    one, raw = muse("dataset.requests=[1]"), muse("stages=[target,unlearn,report]")
    assert one.from_cache["unlearn"] and products(one) == products(chain)[:1]
    for finished in (one, raw):
        lines = [json.loads(line) for line in finished.rundir.metrics_jsonl.read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(STEPS))
        assert not any("request" in line for line in lines)
        assert not (finished.rundir.plots / "requests.png").exists()


def test_a_shorter_chain_is_in_the_cache_and_another_one_shares_its_beginning(chain: Finished, muse: MuseRun) -> None:
    shorter = muse("dataset.requests=[1,2]")
    assert shorter.from_cache["unlearn"] and products(shorter) == products(chain)[:2]
    assert list(shorter.read("scores.json")) == ["target", "unlearned@1", "unlearned", "oracle"]
    other = muse("dataset.requests=[1,3]", "stages=[target,unlearn]")
    assert not other.from_cache["unlearn"] and products(other)[0] == products(chain)[0]


def test_metrics_count_on_over_the_requests(chain: Finished, muse: MuseRun) -> None:
    def lines(file: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    found = lines(chain.rundir.metrics_jsonl)
    assert [line["step"] for line in found] == list(range(3 * STEPS))
    assert [line["request"] for line in found] == ["1"] * STEPS + ["2"] * STEPS + ["3"] * STEPS
    for number, folder in enumerate(products(chain)):
        own = lines(folder / "metrics.jsonl")
        assert [line["step"] for line in own] == list(range(STEPS)) and "request" not in own[0]
        assert [line["loss"] for line in own] == [line["loss"] for line in found[number * STEPS : (number + 1) * STEPS]]
    text = chain.rundir.metrics_jsonl.read_text()
    again = muse("dataset.requests=[1,2,3]")
    assert again.from_cache["unlearn"] and again.from_cache["evaluate"]
    assert chain.rundir.metrics_jsonl.read_text() == text


def test_the_report_shows_the_chain_and_attacks_are_on_its_last_model(chain: Finished) -> None:
    report = chain.rundir.report_md.read_text()
    (head,) = [line for line in report.splitlines() if line.startswith("| requests |")]
    table = report[report.index(head) :].split("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in table] == [
        "before",
        "after 1",
        "after 2",
        "after the last",
        "oracle",
    ]
    assert "mia/privleak" in head and "forget\\_3/probability" in head
    assert "requests.png" in report and (chain.rundir.plots / "requests.png").is_file()
    last = chain.read("scores.json")["unlearned"]["forget_3/probability"]
    attacked = {row["metric"]: row for row in chain.read("attacks.json")}
    assert attacked["forget_3/probability"]["unlearned"] == pytest.approx(last, rel=1e-6)


def test_scalability_unlearns_all_requests_so_far_from_the_target(chain: Finished, muse: MuseRun) -> None:
    made = muse("dataset.requests=[1,2]", "dataset.mode=scalability")
    target = made.read("stages.json")["target"]["key"]
    assert starts(made) == [target, target]
    assert products(made)[0] == products(chain)[0] and products(made)[1] not in products(chain)
    scores = made.read("scores.json")
    own = json.loads((products(made)[1] / "entry.json").read_text())["costs"]["tokens"]
    assert scores["unlearned"]["cost/tokens"] == own
    assert scores["target"].items() <= chain.read("scores.json")["target"].items()


def test_a_stopped_run_continues_with_its_request(
    chain: Finished, muse: MuseRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = tmp_path / ".cache" / "learned"
    shutil.copytree(chain.rundir.path.parents[1] / ".cache" / "learned", learned)
    trainings, train = iter(range(3)), lab.train

    def stopping(engine: Any, objective: Any, loop: Any, ranks: Any, checkpoints: Any, stop: Any) -> Iterator[Any]:
        number = next(trainings)
        for step, metrics in train(engine, objective, loop, ranks, checkpoints, stop):
            yield step, metrics
            stop.requested = number == 1 and step == 1

    monkeypatch.setattr(lab, "train", stopping)
    stopped = muse("dataset.requests=[1,2,3]", folder=tmp_path)
    assert stopped.code == 75 and next(trainings) == 2  # in the second training
    first = next(path for path in (tmp_path / ".cache" / "unlearned").glob("*/entry.json"))
    made = first.stat().st_mtime_ns
    monkeypatch.setattr(lab, "train", train)
    finished = muse("dataset.requests=[1,2,3]", folder=tmp_path)
    assert finished.code == 0 and first.stat().st_mtime_ns == made
    for one, other in zip(products(finished), products(chain), strict=True):
        assert one.name == other.name
        assert_same_weights(one, other)
    steps = [json.loads(line)["step"] for line in finished.rundir.metrics_jsonl.read_text().splitlines()]
    assert steps == list(range(3 * STEPS))


def test_each_request_has_an_audit_that_begins_where_the_one_before_ends(chain: Finished) -> None:
    audits = [chain.read(f"audit-{fold}.json") for fold in (1, 2, 3)]
    assert [one["done"]["after"]["key"] for one in audits] == [folder.name for folder in products(chain)]
    assert [one["done"]["before"]["key"] for one in audits] == starts(chain)
    for before, after in itertools.pairwise(audits):
        assert after["done"]["before"]["files"] == before["done"]["after"]["files"]
        assert after["figures"]["forget_1/probability"]["before"] == before["figures"]["forget_1/probability"]["after"]
    assert [one["asked"]["forget"]["rows"] for one in audits] == [6, 6, 6]
    hashes = [row["sha256"] for one in audits for row in one["asked"]["forget"]["hashes"]]
    assert len(hashes) == 18 and len(set(hashes)) == 17  # two rows are the same
    assert [one["attack"] for one in audits[2]["attacks"]] == ["quantize"] and not audits[0]["attacks"]
    assert audits[0]["verdict"]["label"] == "not judged"
    card = (chain.rundir.model / "README.md").read_text()
    assert all(one["asked"]["forget"]["sha256"] in card for one in audits)


def test_scoring_alone_finds_the_whole_chain(chain: Finished, muse: MuseRun) -> None:
    again = muse("dataset.requests=[1,2,3]", "stages=[evaluate]")
    assert list(again.read("scores.json")) == ["target", "unlearned@1", "unlearned@2", "unlearned", "oracle"]


REAL = Path(__file__).parents[2].parent / "shared" / "data" / "muse" / "news"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"MUSE's files are not at {REAL}")
def test_the_published_files_run(muse: MuseRun, tmp_path: Path) -> None:
    """A few rows of each part: long texts are split, prompts longer than the model's context are shortened."""
    for file in REAL.glob("*/*.json"):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).write_text(json.dumps(json.loads(file.read_text())[:4]))
    finished = muse(
        f"dataset.path={tmp_path}",
        "stages=[target,unlearn,evaluate]",
        "method=ga",
        "trainer.steps=1",
        "target.epochs=.1",
        "evaluation.rows=2",
        folder=tmp_path / "out",
    )
    assert finished.code == 0
    scores = finished.read("scores.json")["unlearned"]
    assert {scores[f"{suite}/n"] for suite in ("verbmem", "knowmem_f", "privleak_forget")} == {4}
    assert {scores[f"{suite}/n"] for suite in ("knowmem_r", "privleak_holdout", "privleak_retain")} == {2}
    notes = " ".join(finished.read("stages.json")["data"]["notes"])
    assert "texts longer than 256 tokens are learned in" in notes and "prompts shortened" in notes
    assert "raw/retain1, raw/retain2" in notes


def test_stages_that_lack_rows_say_so_before_anything_is_learned(muse: MuseRun, data: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(data, tmp_path / "bare")
    for part in ("retain1", "retain2"):
        (bare / "raw" / f"{part}.json").unlink()

    def message(*overrides: str, code: int = 3) -> str:
        finished = muse(f"dataset.path={bare}", *overrides, folder=tmp_path / "out")
        assert finished.code == code and not (tmp_path / "out" / ".cache" / "learned").exists()
        return str(finished.read("exit.json")["message"])

    assert message() == (
        "data set muse has no rows for the oracle to learn (not among its files: raw/retain1, raw/retain2); leave out "
        "what needs one (stages oracle and attack, method=retrain): type stages=[unlearn,evaluate,report], or name one "
        "with model.oracle=FOLDER_OR_HUB_ID"
    )
    stages = "stages=[target,unlearn,evaluate]"
    assert "method.retain=nll needs retain rows" in message(stages, code=2)
    enough = muse(f"dataset.path={bare}", stages, "method.retain=none", "target.epochs=1", folder=tmp_path / "ga")
    assert enough.code == 0 and "mia/privleak" not in enough.read("scores.json")["unlearned"]
    shutil.rmtree(bare / "raw")
    assert message("stages=[target]").startswith("data set muse has no rows for the target to learn")
    target = next((tmp_path / "ga" / ".cache" / "learned").glob("*/model"))
    given = ("stages=[unlearn,evaluate]", f"model.target={target}", "method.retain=none")
    assert message(*given).startswith("method=npo needs forget rows, and data set muse has none (not among its files: ")
