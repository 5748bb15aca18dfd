"""A server with as much of OpenAI's chat completions as a judge needs, in a thread; it keeps what it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server answers to one request."""

    text: str = "yes"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None  # in place of a completion with the text


@dataclass
class JudgeServer:
    """A server that is running. `reply` is called with each request's JSON, in the request's own thread."""

    url: str
    reply: Callable[[dict[str, Any]], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Reply] | Reply) -> Iterator[JudgeServer]:
    """Runs a server on a free port of this machine."""
    answer = reply if callable(reply) else lambda request: reply

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append(request)
            server.headers.append(dict(self.headers))
            self._send(server.reply(request))

        def do_GET(self) -> None:
            server.requests.append({"get": self.path})
            self._send(Reply())

        def _send(self, found: Reply) -> None:
            body = found.body
            if body is None:
                body = json.dumps({"choices": [{"message": {"role": "assistant", "content": found.text}}]})
            try:
                self.send_response(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())
            except OSError:
                pass  # the client has stopped waiting

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Http(ThreadingHTTPServer):
        request_queue_size = 64  # with the usual 5, a request of many at once waits for a second

    http = Http(("127.0.0.1", 0), Handler)
    server = JudgeServer(f"http://127.0.0.1:{http.server_address[1]}/v1", answer)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
