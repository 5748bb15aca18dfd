"""`python -m erulab.evaluate`."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erulab import evaluate
from tests.samples import tofu_logs
from tests.samples.tofu_logs import PROBABILITIES, RETRAINED, model_utility, open_unlearning_log, tofu_log, written


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return written(open_unlearning_log(PROBABILITIES), tmp_path / "TOFU_EVAL.json")


@pytest.fixture
def retain_log(tmp_path: Path) -> Path:
    return written(tofu_log(RETRAINED), tmp_path / "eval_log_aggregated.json")


def test_json(log: Path, retain_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--tofu-logs", str(log), "--retain-logs", str(retain_log), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["log"], found["retain_log"], found["layout"]) == (str(log), str(retain_log), "open-unlearning")
    assert found["model_utility"] == pytest.approx({mean: model_utility(mean) for mean in ("geometric", "arithmetic")})
    assert found["forget_quality"] == {"p": pytest.approx(tofu_logs.FORGET_QUALITY), "n": 2}
    assert {name: part["n"] for name, part in found["sets"].items()} == dict.fromkeys(PROBABILITIES, 2)
    assert evaluate.main(["--tofu-logs", str(log), "--format", "json", "--rows", "1"]) == 0
    cut = json.loads(capsys.readouterr().out)
    assert cut["forget_quality"] is None and cut["retain_log"] is None and cut["sets"]["retain"]["n"] == 1


def test_text_and_markdown(log: Path, retain_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--tofu-logs", str(log), "--retain-logs", str(retain_log)]
    assert evaluate.main(command) == 0
    lines = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()}
    utility = [f"{model_utility(mean):.4f}" for mean in ("geometric", "arithmetic")]
    assert lines["model utility"] == utility
    assert lines["forget quality (p)"] == ["0.3333", "2"]
    assert lines["retain truth ratio"] == ["0.5000", "0.3750", "2"]
    assert lines["real authors probability"] == ["0.3500", "2"]
    assert evaluate.main([*command, "--format", "md"]) == 0
    assert f"| model utility | {utility[0]} | {utility[1]} |" in capsys.readouterr().out


def test_the_command_loads_no_torch(log: Path) -> None:
    code = (
        f"import sys; from erulab import evaluate; evaluate.main(['--tofu-logs', {str(log)!r}]);"
        "print({'torch', 'transformers', 'hydra'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "set()\n" and "model utility" in done.stdout


Change = Callable[[dict[str, Any]], object]
TOFU: list[tuple[Change, str]] = [
    (lambda log: log.pop("eval_log.json"), "eval_log.json is missing; name a whole log of locuslab/tofu"),
    (lambda log: log["eval_log.json"].pop("rougeL_recall"), "eval_log.json: rougeL_recall is missing"),
    (
        lambda log: log["eval_log.json"]["avg_gt_loss"].pop(),
        "eval_log.json: avg_gt_loss and eval_log.json: average_perturb_loss are not of the same rows: 1 and 2",
    ),
    (lambda log: log["eval_log_forget.json"]["average_perturb_loss"].append([1.0]), "not of the same rows: 2 and 3"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss={"1": 0.5, "x": 0.5}), "row x is not a row number"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss={"1": 0.5, "2": 0.5}), "row 0 is in one only"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss=[]), "avg_gt_loss must hold rows"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss=0.5), "avg_gt_loss must hold rows"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss=[0.5, None]), "row 1 must be a finite number, got null"),
    (lambda log: log["eval_log.json"].update(avg_gt_loss=[math.nan, 1.0]), "row 0 must be a finite number, got NaN"),
    (lambda log: log["eval_log.json"].update(average_perturb_loss=[1.0, 2.0]), "row 0 must be a list of"),
    (lambda log: log["eval_log.json"].update(average_perturb_loss=[[], [1.0]]), "row 0 must be a list of"),
]
OPEN_UNLEARNING: list[tuple[Change, str]] = [
    (lambda log: log.pop("wf_Q_A_PERT_Prob"), "wf_Q_A_PERT_Prob is missing; name a whole log of open-unlearning"),
    (lambda log: log.update(ra_Q_A_ROUGE=0.4), "ra_Q_A_ROUGE: value_by_index is missing"),  # TOFU_SUMMARY.json
    (
        lambda log: log["retain_Q_A_Prob"]["value_by_index"]["1"].pop("avg_loss"),
        "retain_Q_A_Prob: avg_loss, row 1 is missing",
    ),
    (lambda log: log["forget_Q_A_PARA_Prob"]["value_by_index"].pop("0"), "are not of the same rows: 1 and 2"),
    (lambda log: log["forget_Q_A_PARA_Prob"]["value_by_index"].update({"0": None}), "row 0 is missing"),
]


@pytest.mark.parametrize(
    ("content", "change", "message"),
    [(tofu_log(PROBABILITIES), *case) for case in TOFU]
    + [(open_unlearning_log(PROBABILITIES), *case) for case in OPEN_UNLEARNING],
)
def test_damaged_logs(
    content: dict[str, Any], change: Change, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = copy.deepcopy(content)
    change(content)
    file = written(content, tmp_path / "log.json")
    assert evaluate.main(["--tofu-logs", str(file)]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"{file}: ") and message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no valid JSON"),
        ("[]", "is no evaluation log of TOFU"),
        ('{"loss": [1]}', "is no evaluation log of TOFU"),
        (None, "cannot be read"),
    ],
)
def test_other_files(text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    assert evaluate.main(["--tofu-logs", str(file)]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err and str(file) in err


def test_logs_that_do_not_fit(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retain_log = written(tofu_log({"forget": RETRAINED["forget"] * 2}), tmp_path / "retain.json")
    assert evaluate.main(["--tofu-logs", str(log), "--retain-logs", str(retain_log)]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "not of the same forget rows: 2 and 4" in err
    assert evaluate.main(["--tofu-logs", str(log), "--retain-logs", str(retain_log), "--rows", "2"]) == 0


@pytest.mark.parametrize(
    "options", [["--log", "x"], ["--rows", "0"], ["--rows", "-1"], ["--rows", "1.5"], ["--format", "xml"], ["more"]]
)
def test_bad_options_exit_2(options: list[str], log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--tofu-logs", str(log), *options])
    assert stopped.value.code == 2 and capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([])
    assert stopped.value.code == 2
