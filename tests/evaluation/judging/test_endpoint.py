"""A judge behind a server: what is sent and where, busy and broken servers, and what is kept when it fails."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import Any

import pytest

from erulab.errors import EnvironmentFault
from erulab.evaluation.judging import endpoint
from erulab.evaluation.judging.answers import Answer
from erulab.evaluation.judging.endpoint import EndpointJudge
from erulab.options import JudgeOptions
from tests.samples.judge_server import Reply, serving

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "LOOK_EVERY", 0.02)


def ask(url: str, prompts: list[str], key: str | None = None, **options: Any) -> dict[str, str]:
    """Asks about the prompts; returns prompt -> answer."""
    kept: list[Answer] = []
    chosen = JudgeOptions(url=url, url_model="judge-7b", **{"retries": 2, "timeout": 5.0, **options})
    EndpointJudge(chosen, key).ask(prompts, kept.append, lambda: False)
    assert len({answer.prompt for answer in kept}) == len(kept)
    return {answer.prompt: answer.text for answer in kept}


def test_a_request_is_a_chat_completion_at_temperature_0() -> None:
    with serving(lambda request: Reply("yes" if "1" in request["messages"][0]["content"] else "no")) as server:
        found = ask(server.url + "/", [f"prompt {i}" for i in range(20)], KEY)
    assert found == {f"prompt {i}": "yes" if "1" in str(i) else "no" for i in range(20)}
    assert sorted(server.prompts) == sorted(found), "each prompt once"
    assert server.requests[0] == {
        "model": "judge-7b",
        "messages": [{"role": "user", "content": server.prompts[0]}],
        "temperature": 0,
        "max_tokens": 16,
    }
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_without_a_key_no_header_has_one() -> None:
    with serving(Reply()) as server:
        ask(server.url, ["prompt"])
    assert "Authorization" not in server.headers[0]


def test_a_busy_server_is_asked_again() -> None:
    numbers = itertools.count()
    replies = {0: Reply(status=429, headers={"Retry-After": "0"}), 1: Reply(status=503)}
    with serving(lambda request: replies.get(next(numbers), Reply("no"))) as server:
        assert ask(server.url, ["prompt"]) == {"prompt": "no"}
    assert len(server.requests) == 3


def test_a_server_can_ask_for_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.3)
    numbers = itertools.count()
    with serving(lambda r: Reply(status=429, headers={"Retry-After": "60"}) if next(numbers) == 0 else Reply()) as one:
        begun = time.monotonic()
        ask(one.url, ["prompt"])
    assert 0.3 <= time.monotonic() - begun < 3, "as long as asked for, and at most LONGEST_PAUSE"


def test_a_server_that_stays_broken_is_one_line_and_keeps_what_is_known() -> None:
    def reply(request: dict[str, Any]) -> Reply:
        return Reply("yes") if "good" in request["messages"][0]["content"] else Reply(status=500, body=KEY)

    kept: list[Answer] = []
    with serving(reply) as server:
        judge = EndpointJudge(JudgeOptions(url=server.url, url_model="m", retries=2, timeout=5), KEY)
        with pytest.raises(EnvironmentFault) as told:
            judge.ask(["good 1", "bad", "good 2"], kept.append, lambda: False)
    assert sorted(answer.prompt for answer in kept) == ["good 1", "good 2"]
    assert server.prompts.count("bad") == 3
    assert "HTTP status 500, 3 times" in str(told.value) and told.value.code == 4
    assert "\n" not in str(told.value) and KEY not in str(told.value)


@pytest.mark.parametrize(("status", "hint"), [(401, "key_variable"), (404, "url_model"), (400, "its log")])
def test_a_refusal_is_not_tried_again_and_its_text_is_not_shown(status: int, hint: str) -> None:
    echo = f"bad request: 'the secret prompt', key {KEY}"
    with serving(Reply(status=status, body=echo)) as server, pytest.raises(EnvironmentFault, match=hint) as told:
        ask(server.url, ["the secret prompt"], KEY)
    assert len(server.requests) == 1 and f"HTTP status {status}" in str(told.value)
    assert "secret prompt" not in str(told.value) and KEY not in str(told.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with (
        serving(Reply()) as stranger,
        serving(Reply(status=status, headers={"Location": f"{stranger.url}/chat/completions?leak=1"})) as server,
        pytest.raises(EnvironmentFault) as told,
    ):
        ask(server.url, ["the secret prompt"], KEY)
    assert stranger.requests == [], "the other server sees nothing"
    assert len(server.requests) == 1
    host = stranger.url.split("/")[2]
    assert f"redirects to {host}, and prompts are sent to no host that was not named" in str(told.value)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Reply("no")) as proxy, serving(Reply("yes")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask(server.url, ["prompt"]) == {"prompt": "yes"}
    assert proxy.requests == []


def test_a_slow_answer_is_given_up_and_asked_for_again() -> None:
    numbers, end = itertools.count(), threading.Event()

    def reply(request: dict[str, Any]) -> Reply:
        if next(numbers) == 0:
            end.wait(10)
        return Reply("no")

    with serving(reply) as server:
        assert ask(server.url, ["prompt"], timeout=0.3) == {"prompt": "no"}
        end.set()
    assert len(server.requests) == 2


def test_a_server_that_is_always_slow_is_one_line() -> None:
    end = threading.Event()
    with serving(lambda request: Reply() if end.wait(10) else Reply()) as server:
        with pytest.raises(EnvironmentFault, match=r"gives no answer within 0\.2 s, 2 times"):
            ask(server.url, ["prompt"], timeout=0.2, retries=1)
        end.set()


@pytest.mark.parametrize("body", ["{", "[]", '{"choices": []}', '{"choices": [{"text": "yes"}]}', "\udcff"])
def test_what_is_no_completion_is_asked_for_again_and_then_refused(body: str) -> None:
    numbers = itertools.count()
    body = body.encode(errors="replace").decode()
    with serving(lambda request: Reply(body=body) if next(numbers) == 0 else Reply()) as server:
        assert ask(server.url, ["prompt"]) == {"prompt": "yes"}
    with serving(Reply(body=body)) as server, pytest.raises(EnvironmentFault, match="no chat completion in JSON"):
        ask(server.url, ["prompt"])


def test_an_answer_without_words_is_unjudged() -> None:
    refusal = json.dumps({"choices": [{"message": {"content": None, "refusal": "I cannot"}}]})
    with serving(Reply(body=refusal)) as server:
        assert ask(server.url, ["prompt"]) == {"prompt": ""}
    assert Answer("prompt", "").holds is None


def test_nobody_listens() -> None:
    with serving(Reply()) as server:
        url = server.url
    with pytest.raises(EnvironmentFault, match=r"cannot be reached \(ConnectionRefusedError\), 2 times"):
        ask(url, ["prompt"], retries=1)


def test_a_key_that_the_server_repeats_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "plain-but-secret")
    with serving(Reply("no, your key is plain-but-secret")) as server:
        assert ask(server.url, ["prompt"], "plain-but-secret") == {"prompt": "no, your key is [redacted]"}


def test_it_stops_soon_after_the_user_asks_for_it() -> None:
    kept: list[Answer] = []
    with serving(lambda request: Reply() if not time.sleep(0.05) else Reply()) as server:
        judge = EndpointJudge(JudgeOptions(url=server.url, url_model="m"), None)
        judge.ask([f"{i}" for i in range(200)], kept.append, lambda: len(kept) > 3)
    assert 3 < len(kept) < 60
    assert len(server.requests) == len(kept), "answers that were under way are kept"
