"""The checks of `evaluation.judge`: one judge, and an address to which what must be forgotten may be sent."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from erulab.errors import ConfigError
from erulab.models import folders
from erulab.options import JudgeOptions, RunConfig, Stage
from erulab.redaction import is_secret_variable

EXAMPLE = "https://HOST/v1"


def check_judge(config: RunConfig) -> None:
    """Requires one judge with all it needs, and generated responses for it to read."""
    judge = config.evaluation.judge
    if judge.url is None:
        for name, value in (("url_model", judge.url_model), ("key_variable", judge.key_variable)):
            if value is not None:
                raise ConfigError(
                    f"evaluation.judge.{name} belongs to a server, and evaluation.judge.url is null; type "
                    f"evaluation.judge.url={EXAMPLE}"
                )
    if not judge.is_named:
        return
    if judge.model is not None and judge.url is not None:
        raise ConfigError(
            "evaluation.judge.model and evaluation.judge.url name two judges; a run has one, so leave one of them out"
        )
    if not config.evaluation.generate:
        raise ConfigError(
            "evaluation.judge reads generated responses, and evaluation.generate=false makes none; leave one of them "
            "out"
        )
    if Stage.evaluate not in config.stages:
        raise ConfigError("evaluation.judge has nothing to read without the stage evaluate; add it to stages")
    if judge.url is not None:
        _check_server(judge, judge.url)


def check_judge_of_job(config: RunConfig) -> None:
    """Looks for the local judge's folder and for the variable that holds a server's key."""
    judge = config.evaluation.judge
    if judge.model is not None:
        folders.check_source(judge.model)
    if judge.key_variable is not None and not os.environ.get(judge.key_variable):
        raise ConfigError(
            f"evaluation.judge.key_variable={judge.key_variable}: no such variable in the environment; type "
            f"export {judge.key_variable}=KEY before the command"
        )


def _check_server(judge: JudgeOptions, url: str) -> None:
    _check_url(url)
    if judge.url_model is None:
        raise ConfigError(
            "evaluation.judge.url needs the server's name of the model; type evaluation.judge.url_model=NAME"
        )
    variable = judge.key_variable
    if variable is None:
        return
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError(
            "evaluation.judge.key_variable is no name of a variable (its value is not shown, because it may be the "
            "key itself); put the key into the environment and type evaluation.judge.key_variable=JUDGE_API_KEY"
        )
    if not is_secret_variable(variable):
        raise ConfigError(
            f"evaluation.judge.key_variable={variable}: the name must end in _KEY, _TOKEN or _SECRET, by which erulab "
            "knows that its value must not be written anywhere; type evaluation.judge.key_variable=JUDGE_API_KEY"
        )


def _check_url(url: str) -> None:
    """Refuses addresses that are no address, carry credentials, or would send prompts over a network unencrypted."""
    parts = urlsplit(url)
    try:
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # the port is no number
        host = None
    if "@" in url:
        raise ConfigError(
            "evaluation.judge.url holds a name or password (its value is not shown), and configs are written to "
            "files; put the key into the environment and type evaluation.judge.key_variable=JUDGE_API_KEY"
        )
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch("[!-~]+", url):
        raise ConfigError(f"evaluation.judge.url={url} is no address of a server; type evaluation.judge.url={EXAMPLE}")
    if parts.query or parts.fragment:
        raise ConfigError(
            f"evaluation.judge.url={urlsplit(url)._replace(query='', fragment='').geturl()}: nothing may follow the "
            f"path (? or #); type evaluation.judge.url={EXAMPLE}"
        )
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ConfigError(
            f"evaluation.judge.url={url} would send what must be forgotten over the network unencrypted; type "
            "https://..., or reach the server as http://localhost:PORT (ssh -L PORT:HOST:PORT)"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
