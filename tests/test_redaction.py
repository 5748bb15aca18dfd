"""FAULTS 27: the values of secret-looking environment variables are found nowhere, whatever they look like."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from erulab.redaction import (
    REDACTED,
    RedactingFormatter,
    is_secret_variable,
    print_exception,
    redacted,
    redacted_text,
    secret_variable_in,
    without_variables,
)
from erulab.rundir import RunDir
from tests.commands import Answer, command, here

__all__ = ["command", "here"]  # fixtures

CANARY = 'wal"rus\\ä-42'  # JSON, repr and URLs each spell it otherwise


@pytest.mark.parametrize(
    "name",
    [
        *("DB_PASS", "PGPASSWORD", "SSHPASS", "GPG_PASSPHRASE", "MYSQL_PWD", "AWS_CREDENTIALS", "SESSION_COOKIE"),
        *("SENTRY_DSN", "OPENAI_API_KEY", "APIKEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "REDISCLI_AUTH", "db_pass"),
        *("DOCKER_AUTH_CONFIG", "KEY", "MY_TOKENS"),
    ],
)
def test_the_name_of_a_variable_makes_its_value_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_secret_variable(name)
    monkeypatch.setenv(name, CANARY)
    assert redacted_text(f"login as {CANARY} failed") == f"login as {REDACTED} failed"
    assert secret_variable_in(f"x{CANARY}") == name


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "GIT_AUTHOR_NAME", "KEYBOARD", "HOME"])
def test_other_variables_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "ordinary")
    assert redacted_text("an ordinary text") == "an ordinary text"


def test_short_values_and_paths_of_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value under six characters is an ordinary word; the path of an agent's socket is no secret."""
    monkeypatch.setenv("DB_PASS", "false")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path))
    text = f"false {tmp_path}/x"
    assert redacted_text(text) == text


def test_every_spelling_of_a_secret_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASS", CANARY)
    monkeypatch.setenv("SIGNING_KEY", "-----BEGIN-----\nMIIBVgIBADANBgkqhkiG9w\n-----END-----")
    for text in (CANARY, repr(CANARY), json.dumps(CANARY), urllib.parse.quote(CANARY), "  | MIIBVgIBADANBgkqhkiG9w |"):
        assert REDACTED in redacted_text(text), text
        assert "wal" not in redacted_text(text) and "MIIB" not in redacted_text(text)


def test_figures_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN_PASS", "123456")
    assert without_variables({"n": 123456, "share": 0.123456, "note": "pin 123456"}) == {
        "n": 123456,
        "share": 0.123456,
        "note": f"pin {REDACTED}",
    }


def test_an_option_called_tokens_is_no_secret() -> None:
    assert redacted({"forget_tokens": "all", "token": "x", "db_pass": "y"}) == {
        "forget_tokens": "all",
        "token": REDACTED,
        "db_pass": REDACTED,
    }


def test_logs_tracebacks_and_json_files_are_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_PASS", CANARY)
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        info = (type(error), error, error.__traceback__)
        print_exception(*info)
    record = logging.LogRecord("erulab", logging.ERROR, __file__, 1, "failed with %s", (CANARY,), info)
    RunDir(tmp_path).write_json(tmp_path / "exit.json", {"message": CANARY, "list": [CANARY]})
    printed = capsys.readouterr().err
    for text in (printed, RedactingFormatter("%(message)s").format(record), (tmp_path / "exit.json").read_text()):
        assert REDACTED in text and "wal" not in text
    assert "KeyError" in printed and "Traceback" in printed
    assert json.loads((tmp_path / "exit.json").read_text()) == {"message": REDACTED, "list": [REDACTED]}


PLUGIN = """
import logging, os
from dataclasses import dataclass, field
from erulab.registry import datasets

@dataclass
class LeakyOptions:
    name: str = "leaky"

@datasets.register("leaky", LeakyOptions)
class Leaky:
    \"\"\"A data set whose server refuses the password.\"\"\"
    def __init__(self, options): self.options = options
    def validate(self): pass
    def identity(self, cache): return "leaky"
    def load(self, seed, cache):
        secret = os.environ["SHOP_DB_PASS"]
        logging.getLogger("erulab.leaky").warning("asking with %s", secret)
        print("asking with", secret)
        raise RuntimeError(f"refused: {secret!r}")
"""


def test_an_exception_of_a_plugin_leaks_nothing(
    command: Callable[..., Answer], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command: terminal, run.log, rank0.log, exit.json, run.yaml, env.json."""
    monkeypatch.setenv("SHOP_DB_PASS", CANARY)
    monkeypatch.setenv("PYTHONPATH", f"{here}:{Path(__file__).parent.parent}")
    monkeypatch.syspath_prepend(here)
    (here / "leaky_shop.py").write_text(textwrap.dedent(PLUGIN))
    answer = command("plugins=[leaky_shop]", "dataset=leaky", "tracker=none", "engine=local", "hydra.run.dir=run")
    assert answer.code == 1, answer
    shown = answer.out + answer.err
    assert "refused: " in shown and REDACTED in shown and "wal" not in shown
    files = {file.name: file.read_text() for file in (here / "run").iterdir() if file.is_file()}
    assert {"run.yaml", "run.log", "rank0.log", "exit.json", "env.json"} <= files.keys()
    assert [name for name, text in files.items() if "wal" in text] == []
    assert REDACTED in files["run.log"] and REDACTED in files["rank0.log"] and REDACTED in files["exit.json"]
    assert yaml.safe_load(files["run.yaml"])["dataset"] == {"name": "leaky"}
    assert "erulab.leaky" in files["run.log"]
    sys.modules.pop("leaky_shop", None)


def test_a_config_may_not_hold_a_secret(command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASS", "correct-horse")
    answer = command("tracker.group=${oc.env:DB_PASS}")
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    assert "tracker.group holds the value of the environment variable DB_PASS" in answer.err
    assert "correct-horse" not in answer.err + answer.out
