"""A server with as much of the Hugging Face hub as one commit to a model repository needs, in a thread."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """A running server and its only repository; `private` is None until it is made."""

    url: str = ""
    token: str = ""  # the one that may write
    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Runs the server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            siblings = [{"rfilename": name} for name in hub.files]
            self._answer(200, {"id": "me/mine", "private": hub.private, "siblings": siblings})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._answer(401, {"error": f"Invalid token {self.headers.get('Authorization')}"})
            if self.path == "/api/repos/create":
                if hub.private is not None:
                    return self._answer(409, {"error": "exists", "url": f"{hub.url}/me/mine"})
                asked = json.loads(body)
                hub.private = asked.get("private", asked.get("visibility") == "private")
                return self._answer(200, {"url": f"{hub.url}/me/mine"})
            if self.path == "/api/validate-yaml":
                return self._answer(200, {"errors": [], "warnings": []})
            if "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                return self._answer(200, {"files": modes})
            for line in body.splitlines():  # a commit
                change = json.loads(line)
                if change["key"] == "file":
                    hub.files[change["value"]["path"]] = base64.b64decode(change["value"]["content"])
            hub.commits += 1
            return self._answer(200, {"commitUrl": f"{hub.url}/me/mine/commit/{'a' * 40}", "commitOid": "a" * 40})

        def _chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
