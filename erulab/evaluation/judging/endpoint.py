"""A judge behind an OpenAI-compatible server. What is sent holds what must be forgotten, so it goes to one host only.

No proxy of the environment is used and no redirect is followed. Messages name the server and the status and never
quote the server's text, which can repeat a prompt or a key.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from erulab.errors import EnvironmentFault
from erulab.evaluation.judging.answers import Answer
from erulab.options import JudgeOptions
from erulab.redaction import redacted_text

PARALLEL = 8  # requests under way at once
FIRST_PAUSE = 1.0  # seconds before the second try; each later pause is twice as long
LONGEST_PAUSE = 60.0  # seconds, also where the server asks for more
LOOK_EVERY = 0.5  # seconds between two looks at whether the user wants the run to end
LARGEST = 2**20  # bytes of a server's answer that are read
BUSY = (408, 425, 429, 500, 502, 503, 504, 529)  # statuses of a server that may serve the same request later
HINTS = {
    401: "check the key in the variable that evaluation.judge.key_variable names",
    403: "check the key in the variable that evaluation.judge.key_variable names, and what it may use",
    404: "check evaluation.judge.url (it often ends in /v1) and evaluation.judge.url_model",
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses every redirect: the address that it names was not named by the user."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        host = urlsplit(newurl).netloc.rpartition("@")[2]
        raise EnvironmentFault(
            f"the judge {_place(req.full_url)} redirects to {host}, and prompts are sent to no host that was not "
            "named; if it is the right one, type its address as evaluation.judge.url"
        )


class EndpointJudge:
    """Asks a server's chat completions, several requests at once, at temperature 0."""

    def __init__(self, options: JudgeOptions, key: str | None) -> None:
        """
        Args:
            key: the server's key, which stands in a header and in nothing that is written.
        """
        self._options, self._key = options, key
        self._address = f"{(options.url or '').rstrip('/')}/chat/completions"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
        self._ended = threading.Event()

    def ask(self, prompts: Sequence[str], keep: Callable[[Answer], None], stopped: Callable[[], bool]) -> None:
        """Asks about each prompt. `keep` is called in the thread that calls this.

        Raises:
            EnvironmentFault: the server refuses, or cannot serve a request after all tries. Answers to requests that
                were under way are kept.
        """
        self._ended.clear()
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="judge")
        waiting: set[Future[Answer | None]] = {pool.submit(self._answer, prompt) for prompt in prompts}
        fault: BaseException | None = None
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED)
                for future in done:
                    if future.cancelled():
                        continue
                    fault = fault or future.exception()
                    answer = None if future.exception() else future.result()
                    if answer is not None:
                        keep(answer)
                if (fault is not None or stopped()) and not self._ended.is_set():
                    self._ended.set()
                    for future in waiting:
                        future.cancel()
        finally:
            self._ended.set()
            pool.shutdown(cancel_futures=True)
        if fault is not None:
            raise fault

    def _answer(self, prompt: str) -> Answer | None:
        """Returns the answer to a prompt, after as many tries as it takes; None if the run ends while it waits."""
        for attempt in range(self._options.retries + 1):
            reason, pause = "", FIRST_PAUSE * 2**attempt
            try:
                return Answer(prompt, redacted_text(self._post(prompt)))
            except HTTPError as error:
                error.close()
                reason = f"answers with HTTP status {error.code}"
                if error.code not in BUSY:
                    hint = HINTS.get(error.code, "its log says more")
                    raise EnvironmentFault(f"the judge {_place(self._address)} {reason}; {hint}") from None
                asked = error.headers.get("Retry-After", "")
                pause = max(pause, float(asked) if asked.isdecimal() else 0.0)
            except TimeoutError:
                reason = f"gives no answer within {self._options.timeout:g} s"
            except URLError as error:
                reason = f"cannot be reached ({_cause(error)})"
            except (HTTPException, OSError) as error:
                reason = f"ends the connection ({type(error).__name__})"
            except ValueError:
                reason = "answers with no chat completion in JSON"
            if attempt < self._options.retries and self._ended.wait(min(pause, LONGEST_PAUSE)):
                return None
        raise EnvironmentFault(
            f"the judge {_place(self._address)} {reason}, {self._options.retries + 1} times; the same command goes on "
            "from the answers it has given"
        )

    def _post(self, prompt: str) -> str:
        """Sends one request; returns the text of its answer.

        Raises:
            HTTPError, URLError, OSError, HTTPException: as urllib's.
            ValueError: the answer is no chat completion.
        """
        body = {
            "model": self._options.url_model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self._options.max_new_tokens,
        }
        headers = {"Content-Type": "application/json", "User-Agent": "erulab"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._address, json.dumps(body).encode(), headers, method="POST")
        with self._opener.open(request, timeout=self._options.timeout) as response:
            return _text_of(json.loads(response.read(LARGEST)))


def _text_of(completion: Any) -> str:
    """Returns the text of a chat completion; "" if the server gives none, such as after a refusal.

    Raises:
        ValueError: it is no chat completion.
    """
    try:
        content = completion["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("no chat completion") from None
    return content if isinstance(content, str) else ""


def _place(address: str) -> str:
    return urlsplit(address).netloc


def _cause(error: URLError) -> str:
    reason = error.reason
    return type(reason).__name__ if isinstance(reason, Exception) else "no connection"
