"""TOFU's own files against the facts known of them, and broken copies of them."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest

from erulab.data.checks import content_identity
from erulab.data.measures import Answers, Separation, Texts
from erulab.data.rows import Benchmark, Role
from erulab.data.tofu import Tofu, TofuOptions, TofuSplit
from erulab.errors import ConfigError, DataError
from erulab.evaluation.aggregate import forget_quality
from erulab.evaluation.row_score import RowScore

TOFU = Path(__file__).parents[2].parent / "shared" / "data" / "tofu"
pytestmark = pytest.mark.skipif(not TOFU.is_dir(), reason=f"TOFU's files are not at {TOFU}")


def load(path: Path = TOFU, **options: object) -> Benchmark:
    dataset = Tofu(TofuOptions(path=str(path), **options))  # type: ignore[arg-type]
    dataset.validate()
    with tempfile.TemporaryDirectory() as cache:  # what is mapped stays readable when its files are gone
        return dataset.load(0, Path(cache))


def full() -> list[dict[str, str]]:
    return [json.loads(line) for line in (TOFU / "full.json").read_text().splitlines()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(TOFU, tmp_path / "tofu", ignore=shutil.ignore_patterns("reference_logs"))
    (tmp_path / "tofu").chmod(0o755)
    for file in (tmp_path / "tofu").iterdir():
        file.chmod(0o644)
    return tmp_path / "tofu"


@pytest.mark.parametrize(
    ("split", "rows"), [(TofuSplit.forget01, 40), (TofuSplit.forget05, 200), (TofuSplit.forget10, 400)]
)
def test_ids_are_places_in_the_full_list(split: TofuSplit, rows: int) -> None:
    everything = full()
    benchmark = load(split=split)
    assert (len(benchmark.forget), len(benchmark.retain)) == (rows, 4000 - rows)
    assert list(benchmark.target_rows) == [*benchmark.forget, *benchmark.retain]
    assert list(benchmark.oracle_rows) == list(benchmark.retain)
    for row in benchmark.target_rows:
        index = int(row.id.removeprefix("full/"))
        assert (row.prompt, row.response) == (everything[index]["question"], everything[index]["answer"])
        assert row.author == f"author/{index // 20}" and row.fact == row.id
    assert len({row.id for row in benchmark.target_rows}) == 4000
    assert len({row.author for row in benchmark.forget}) == rows // 20


def test_suites_hold_what_the_metrics_need() -> None:
    benchmark = load()
    sizes = {suite.name: (suite.role, len(suite.rows), suite.in_utility) for suite in benchmark.suites}
    assert sizes == {
        "forget": (Role.FORGET, 40, False),
        "heldout": (Role.HELDOUT, 40, False),
        "retain": (Role.RETAIN, 400, True),
        "real_authors": (Role.RETAIN, 100, True),
        "world_facts": (Role.RETAIN, 117, True),
    }
    for name in ("forget", "heldout", "retain"):
        assert all(row.paraphrase and len(row.perturbed) == 5 for row in benchmark.suite(name).rows)
        assert benchmark.suite(name).measure == Answers("paraphrase")
    for name in ("real_authors", "world_facts"):
        assert all(len(row.options) == 3 and row.options == row.perturbed for row in benchmark.suite(name).rows)
        assert benchmark.suite(name).measure == Answers("answer")
    eiffel = benchmark.suite("world_facts").rows[0]
    assert (eiffel.prompt, eiffel.response) == ("Where would you find the Eiffel Tower?", "Paris")
    assert eiffel.options == ("Berlin", "London", "Madrid")
    assert len(benchmark.refusals) == 100 and benchmark.refusals[0] == "I'm not certain about that."


def test_held_out_rows_ask_the_same_facts_in_other_words() -> None:
    benchmark = load()
    for row, other in zip(benchmark.forget, benchmark.suite("heldout").rows, strict=True):
        assert other.fact == row.fact and other.response == row.response and other.perturbed == row.perturbed
        assert other.prompt != row.prompt and other.id == f"{row.id}/rephrased"


def test_only_learned_retain_rows_are_evaluated() -> None:
    benchmark = load(retain_rows=60)
    assert [row.id for row in benchmark.retain] == [f"full/{i}" for i in range(60)]
    assert [row.id for row in benchmark.suite("retain").rows] == [f"full/{i}" for i in range(60)]
    assert len(benchmark.oracle_rows) == 60 and len(benchmark.target_rows) == 100


def test_identity_is_of_content(copy: Path, tmp_path: Path) -> None:
    first = Tofu(TofuOptions(path=str(TOFU))).identity(tmp_path)
    assert first == Tofu(TofuOptions(path=str(copy))).identity(tmp_path)
    assert first != Tofu(TofuOptions(path=str(TOFU), retain_rows=10)).identity(tmp_path)
    rows = (copy / "forget01_perturbed.json").read_text()
    (copy / "forget01_perturbed.json").write_text(rows.replace("Marie Curie", "Lise Meitner", 1))
    assert first != Tofu(TofuOptions(path=str(copy))).identity(tmp_path)


def test_without_the_refusal_file_our_own_are_used_and_noted(copy: Path) -> None:
    (copy / "idontknow.jsonl").unlink()
    benchmark = load(copy)
    assert benchmark.refusals and "erulab's own" in benchmark.notes[0]


def test_missing_files_and_folders_are_found_at_composition(copy: Path) -> None:
    (copy / "retain99.json").unlink()
    with pytest.raises(DataError, match=r"no retain99\.json .*dataset\.split=forget01"):
        Tofu(TofuOptions(path=str(copy))).validate()
    with pytest.raises(DataError, match=r"dataset\.path=\./nowhere"):
        Tofu(TofuOptions(path="./nowhere")).validate()
    with pytest.raises(ConfigError, match=r"dataset\.path"):
        Tofu(TofuOptions(path=None)).validate()
    Tofu(TofuOptions()).validate()  # a hub id: nothing is fetched
    with pytest.raises(ConfigError, match=r"retain_rows must be at most 3960"):
        load(retain_rows=4000)
    with pytest.raises(ValueError, match="retain_rows must be > 0"):
        TofuOptions(retain_rows=0)


def test_files_that_do_not_fit_together(copy: Path) -> None:
    rows = (copy / "forget01_perturbed.json").read_text().splitlines()
    (copy / "forget01_perturbed.json").write_text("\n".join(rows[:-1]))
    with pytest.raises(DataError, match="forget01 has 40 rows, forget01_perturbed 39"):
        load(copy)
    (copy / "forget01_perturbed.json").write_text("\n".join([rows[1], rows[0], *rows[2:]]))
    with pytest.raises(DataError, match=r"forget01_perturbed\.json:1: not the question and answer of row full/3960"):
        load(copy)
    changed = json.loads(rows[4])
    del changed["paraphrased_question"]
    (copy / "forget01_perturbed.json").write_text("\n".join([*rows[:4], json.dumps(changed), *rows[5:]]))
    with pytest.raises(DataError, match=r"forget01_perturbed\.json:5: field 'paraphrased_question' is missing"):
        load(copy)


def test_overlap_is_refused_unless_allowed(copy: Path) -> None:
    with (copy / "retain99.json").open("a") as file:
        file.write("\n" + (copy / "forget01.json").read_text().splitlines()[0])
    with pytest.raises(DataError, match="1 of 40 forget rows"):
        load(copy)
    assert "1 of 40 forget rows" in " ".join(load(copy, allow_overlap=True).notes)


def test_tofu_s_own_code_scores_the_first_300_rows_of_a_set() -> None:
    """In TOFU's code ds_size 300 cuts forget10 and the retain rows; what is learned and forgotten stays whole."""
    benchmark = load(split=TofuSplit.forget10, evaluated_rows=300)
    sizes = {suite.name: len(suite.rows) for suite in benchmark.suites}
    assert sizes == {"forget": 300, "heldout": 300, "retain": 300, "real_authors": 100, "world_facts": 117}
    assert [row.id for row in benchmark.suite("forget").rows] == [f"full/{i}" for i in range(3600, 3900)]
    assert [row.id for row in benchmark.suite("retain").rows] == [f"full/{i}" for i in range(300)]
    assert (len(benchmark.forget), len(benchmark.retain)) == (400, 3600)
    # A split of fewer rows is not cut, and is the same data set.
    assert content_identity(load(evaluated_rows=400)) == content_identity(load())
    with pytest.raises(ValueError, match="evaluated_rows must be > 0"):
        TofuOptions(evaluated_rows=0)


def test_forget_quality_is_that_of_the_rows_that_are_scored() -> None:
    """Of two models that agree on the first 300 rows and on no other: 1 over those, far from it over all 400."""
    quality = {}
    for count in (None, 300):
        suite = load(split=TofuSplit.forget10, evaluated_rows=count).suite("forget")
        alike, other = (
            [
                RowScore(row.id, "forget", "forget", row.fact, "", {"log_truth_ratio": i if i < 300 else shift})
                for i, row in enumerate(suite.rows)
            ]
            for shift in (-1000.0, 1000.0)
        )
        quality[count] = forget_quality(alike, other)
    # Kolmogorov's tail 2 exp(-2 D^2 n / 2), with D = 100 / 400.
    assert quality[300] == 1.0 and quality[None] == pytest.approx(2 * math.exp(-25), rel=0.3)


def test_membership_uses_retain_rows_that_no_model_learns() -> None:
    benchmark = load(retain_rows=3920)
    members, holdout = benchmark.suites[-2:]
    assert (members.name, members.role, members.measure) == ("mia_forget", Role.FORGET, Texts())
    assert list(members.rows) == list(benchmark.forget)
    assert (holdout.name, holdout.role, holdout.measure) == ("holdout_local", Role.UNSEEN, Texts())
    assert [row.id for row in holdout.rows] == [f"full/{i}" for i in range(3920, 3960)]
    assert not {row.id for row in holdout.rows} & {row.id for row in benchmark.target_rows}
    assert benchmark.summaries == (Separation("mia", "mia_forget", "holdout_local"),)
    assert "not comparable" in benchmark.notes[0]
    # From the end, and never more than the forget rows; what is left where that is fewer.
    assert [row.id for row in load(retain_rows=60).suites[-1].rows] == [f"full/{i}" for i in range(3920, 3960)]
    assert len(load(retain_rows=3950).suites[-1].rows) == 10


def test_without_a_row_that_no_model_learns_there_is_no_membership_inference() -> None:
    benchmark = load()
    assert benchmark.summaries == ()
    assert {suite.name for suite in benchmark.suites}.isdisjoint({"mia_forget", "holdout"})
    (note,) = benchmark.notes
    assert "no holdout01.json" in note and "dataset.retain_rows=3920" in note


def test_the_published_holdout_comes_before_rows_of_our_own(copy: Path) -> None:
    rows = [{"question": f"Where was author {i} born?", "answer": f"In town {i}."} for i in range(40)]
    (copy / "holdout01.json").write_text("\n".join(map(json.dumps, rows)))
    for options in ({}, {"retain_rows": 60}):
        benchmark = load(copy, **options)
        assert benchmark.notes == () and benchmark.summaries == (Separation("mia", "mia_forget", "holdout"),)
        found = [(row.id, row.prompt, row.response) for row in benchmark.suite("holdout").rows]
        assert found == [(f"holdout01/{i}", row["question"], row["answer"]) for i, row in enumerate(rows)]
    # One that was learned is no holdout.
    learned = json.loads((copy / "retain99.json").read_text().splitlines()[7])
    (copy / "holdout01.json").write_text("\n".join(map(json.dumps, [*rows[1:], learned])))
    with pytest.raises(DataError, match=r"1 of 40 holdout rows \(holdout01/39\) overlap with learned rows"):
        load(copy)
    assert "1 of 40 holdout rows" in " ".join(load(copy, allow_overlap=True).notes)
