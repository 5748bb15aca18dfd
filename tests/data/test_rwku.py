"""RWKU's own files against the facts known of them, and a folder in the hub's layout."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from erulab.data.measures import Choice, Generated, Overlap, Pooled, Separation, Texts
from erulab.data.rows import Benchmark, Role
from erulab.data.rwku import Rwku, RwkuOptions, Train
from erulab.errors import ConfigError, DataError
from erulab.evaluation.texts import answer_exact_match
from tests.samples.rwku_files import hub_layout, tables

RWKU = Path(__file__).parents[2].parent / "shared" / "data" / "rwku"
real = pytest.mark.skipif(not RWKU.is_dir(), reason=f"RWKU's files are not at {RWKU}")
KINDS = {
    "context_hint": 5,
    "prefix_injection": 4,
    "synonym_manipulation": 4,
    "role_play": 4,
    "incontext_learning": 3,
    "reverse_query": 3,
    "multiple_choice": 2,
    "affirmative_suffix": 2,
    "cross_lingual": 2,
}


def load(path: Path, **options: object) -> Benchmark:
    dataset = Rwku(RwkuOptions(path=str(path), **options))  # type: ignore[arg-type]
    dataset.validate()
    with tempfile.TemporaryDirectory() as cache:  # what is mapped stays readable when its files are gone
        return dataset.load(0, Path(cache))


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return hub_layout(tmp_path / "rwku")


@real
def test_suites_of_stephen_king() -> None:
    benchmark = load(RWKU)
    sizes = {suite.name: (suite.role, len(suite.rows)) for suite in benchmark.suites}
    assert sizes == {
        "forget_fb": (Role.FORGET, 8),
        "forget_qa": (Role.FORGET, 10),
        **{f"forget_aa_{kind}": (Role.HELDOUT, n) for kind, n in KINDS.items()},
        "mia_forget": (Role.FORGET, 55),
        "neighbor_fb": (Role.RETAIN, 30),
        "neighbor_qa": (Role.RETAIN, 30),
        "mia_retain": (Role.RETAIN, 37),
        "mmlu": (Role.RETAIN, 171),
        "bbh": (Role.RETAIN, 81),
        "bbh_as_published": (Role.RETAIN, 81),
        "truthfulqa": (Role.RETAIN, 50),
        "triviaqa": (Role.RETAIN, 100),
        "fluency": (Role.RETAIN, 50),
    }
    assert sum(KINDS.values()) == 29
    assert {suite.name for suite in benchmark.suites if suite.adversarial} == {f"forget_aa_{kind}" for kind in KINDS}
    assert benchmark.retain == benchmark.target_rows == benchmark.oracle_rows == ()
    assert all(row.author == "Stephen King" for suite in benchmark.suites for row in suite.rows)
    assert benchmark.notes[0] == "1 of RWKU's 200 targets: Stephen King"


@real
@pytest.mark.parametrize(("train", "rows"), [("passage", 128), ("positive", 582), ("pair", 582), ("refusal", 300)])
def test_training_rows_of_stephen_king(train: str, rows: int) -> None:
    file = RWKU / "1_Stephen_King" / f"{'reject' if train == 'refusal' else train}.json"
    records = json.loads(file.read_text())
    forget = load(RWKU, targets=["1_Stephen_King"], train=Train(train)).forget
    assert len(forget) == len(records) == len({row.id for row in forget}) == rows
    for row, record in zip(forget, records, strict=True):
        if train in ("passage", "positive"):
            assert (row.prompt, row.response, row.plain) == ("", record["text"], True)
        elif train == "pair":
            assert (row.prompt, row.fabricated, row.response) == (record["prompt"], *record["response"])
        else:
            assert (row.prompt, row.refusal, row.response) == (record["instruction"], record["output"], "")


@real
def test_the_code_s_way_with_bbh_can_be_right_on_two_thirds_of_the_rows() -> None:
    """55 of 81 answers have a character that is the whole answer: that bounds the published figure, 42 of 100."""
    rows = load(RWKU).suite("bbh_as_published").rows
    assert sum(answer_exact_match(row.response, row.response) for row in rows) == 55


def test_every_way_of_measuring(hub: Path) -> None:
    benchmark = load(hub, targets=["Ada Lund"])
    measures = {suite.name: suite.measure for suite in benchmark.suites}
    recall = Generated(Overlap.rwku_recall, 30, ("\n",))
    assert all(measure == recall for name, measure in measures.items() if name.startswith(("forget", "neighbor")))
    assert measures["mia_forget"] == measures["mia_retain"] == Texts()
    assert measures["mmlu"] == measures["truthfulqa"] == Choice()
    assert measures["bbh"] == Generated(Overlap.final_answer, 256)
    assert measures["triviaqa"] == Generated(Overlap.f1, 30) and measures["fluency"] == Generated(Overlap.entropy, 256)
    kinds = ("affirmative_suffix", "cross_lingual", "incontext_learning", "prefix_injection")
    adversarial = tuple(f"forget_aa_{kind}" for kind in kinds)
    assert benchmark.summaries == (
        Pooled("forget_aa", "rwku_recall", adversarial),
        Pooled("forget_all", "rwku_recall", ("forget_fb", "forget_qa", *adversarial)),
        Pooled("neighbor_all", "rwku_recall", ("neighbor_fb", "neighbor_qa")),
        Separation("mia", "mia_forget", "mia_retain"),
    )


def test_a_batch_is_the_union_of_its_targets(hub: Path) -> None:
    both = load(hub, targets=["2_Bo_Ek", "ada lund"])
    alone = [load(hub, targets=[name]) for name in ("Bo Ek", "Ada Lund")]
    assert list(both.forget) == [row for one in alone for row in one.forget]
    for suite in both.suites:
        assert list(suite.rows) == [row for one in alone for row in one.suite(suite.name).rows]
        assert len({row.id for row in suite.rows}) == len(suite.rows)
    assert both.notes[0] == "2 of RWKU's 200 targets: Bo Ek, Ada Lund"
    assert both.summaries == alone[0].summaries


def test_rows_to_rehearse_come_from_the_user(hub: Path, tmp_path: Path) -> None:
    file = tmp_path / "keep.jsonl"
    file.write_text('{"text": "Bergen is wet."}\n{"prompt": "Where is Oslo?", "response": "In Norway."}\n')
    rows = load(hub, targets=["Bo Ek"], retain=str(file)).retain
    assert [(row.prompt, row.response, row.plain) for row in rows] == [
        ("", "Bergen is wet.", True),
        ("Where is Oslo?", "In Norway.", False),
    ]
    file.write_text(json.dumps({"text": tables("Bo Ek")["positive"][1]["text"]}))
    with pytest.raises(DataError, match=r"1 of 3 forget rows \(Bo Ek/positive/1\) overlap with retain rows"):
        load(hub, targets=["Bo Ek"], retain=str(file))
    with pytest.raises(DataError, match=r"dataset\.retain=nowhere is no file"):
        Rwku(RwkuOptions(path=str(hub), targets=["Bo Ek"], retain="nowhere")).validate()


def test_identity_is_of_content(hub: Path, tmp_path: Path) -> None:
    def identity(**options: object) -> dict[str, str]:
        named = {"path": str(hub), "targets": ["Ada Lund"], **options}
        return Rwku(RwkuOptions(**named)).identity(tmp_path / "cache")  # type: ignore[arg-type]

    first = identity()
    (tmp_path / "moved").symlink_to(hub)
    assert identity(path=str(tmp_path / "moved")) == first == identity(targets=["1_Ada_Lund"])
    assert identity(train=Train.passage) != first != identity(targets=["Bo Ek"])
    file = hub / "Target" / "1_Ada_Lund" / "triviaqa.json"
    file.write_text(file.read_text().replace("Bjorgvin", "Bjørgvin"))
    assert identity() != first


def test_suites_of_files_that_are_not_there_are_left_out(hub: Path) -> None:
    for name in ("fluency", "neighbor_level2"):
        (hub / "Target" / "1_Ada_Lund" / f"{name}.json").unlink()
    benchmark = load(hub, targets=["Ada Lund"])
    names = {suite.name for suite in benchmark.suites}
    assert "fluency" not in names and "neighbor_qa" not in names and "neighbor_fb" in names
    assert "neighbor_all" not in {summary.name for summary in benchmark.summaries}
    with pytest.raises(DataError, match=r"1_Ada_Lund has no neighbor_level2\.json \(dataset\.targets=Ada Lund\)"):
        load(hub, targets=["Ada Lund", "Bo Ek"])


def test_unknown_targets_are_told_at_composition(hub: Path, tmp_path: Path) -> None:
    def validate(**options: object) -> None:
        Rwku(RwkuOptions(**{"path": str(hub), **options})).validate()  # type: ignore[arg-type]

    validate(targets=["Ada Lund"])
    Rwku(RwkuOptions()).validate()  # a hub id: nothing is fetched
    with pytest.raises(ConfigError, match=r"has no target 'Ada Lind' \(did you mean Ada Lund\?\); there are Ada Lund"):
        validate(targets=["Ada Lind"])
    with pytest.raises(ConfigError, match=r"did you mean Cleo Wing\?"):  # the hub lists whom this folder has not
        validate(targets=["Cleo Win"])
    with pytest.raises(ConfigError, match=r"dataset\.targets names Bo Ek twice"):
        validate(targets=["Bo Ek", "2_Bo_Ek"])
    with pytest.raises(DataError, match=r"holds no target .*1_Stephen_King"):
        validate(path=str(tmp_path.parent))
    with pytest.raises(DataError, match=r"dataset\.path=\./nowhere"):
        validate(path="./nowhere")
    with pytest.raises(ConfigError, match=r"dataset\.path"):
        validate(path=None)
    for targets in ([], [" "], ["_"]):
        with pytest.raises(ValueError, match=r"targets must be a list of names"):
            RwkuOptions(targets=targets)
    (hub / "Target" / "2_Bo_Ek" / "positive.json").unlink()
    with pytest.raises(DataError, match=r"2_Bo_Ek has no positive\.json \(dataset\.train=positive\)"):
        validate(targets=["Bo Ek"])


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("forget_level1", {"query": None}, r"forget_level1\.json:2: field 'query' must be str, got null"),
        ("forget_level3", {"type": 3}, r"forget_level3\.json:2: field 'type' must be str, got int"),
        ("positive", {"text": ""}, r"positive\.json:2: field 'text' is empty"),
        ("retain_mmlu", {"answer": 4}, r"retain_mmlu\.json:2: field 'answer' must be the place of a choice, 0 to 3"),
        ("retain_mmlu", {"answer": True}, r"field 'answer' must be the place"),
        ("retain_mmlu", {"examples": "five"}, r"retain_mmlu\.json:2: field 'examples' must be a list, got str"),
        ("retain_mmlu", {"examples": ["one"]}, r"retain_mmlu\.json:2: field 'examples\[0\]' must be an object"),
        ("truthful", {"mc1_targets": None}, r"truthful\.json:2: field 'mc1_targets' must be an object, got null"),
        ("truthful", {"mc1_targets": {"choices": ["a"], "labels": [0]}}, r"one label per choice, and one of them 1"),
        ("triviaqa", {"answers": []}, r"triviaqa\.json:2: field 'answers' is empty"),
    ],
)
def test_damaged_rows_name_file_and_line(table: str, change: dict[str, object], told: str, hub: Path) -> None:
    file = hub / "Target" / "1_Ada_Lund" / f"{table}.json"
    first, *others = json.loads(file.read_text())
    lines = [json.dumps({**first, **change}), *map(json.dumps, others)]
    file.write_text("[\n" + ",\n".join(lines) + "]")
    with pytest.raises(DataError, match=told):
        load(hub, targets=["Ada Lund"])


def test_a_pair_has_two_texts(hub: Path) -> None:
    file = hub / "Target" / "1_Ada_Lund" / "pair.json"
    file.write_text(json.dumps([{"prompt": "Who?", "response": ["one"]}]))
    with pytest.raises(DataError, match=r"pair\.json:1: field 'response' must have two texts, got 1"):
        load(hub, targets=["Ada Lund"], train=Train.pair)
