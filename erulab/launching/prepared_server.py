"""`python -m erulab.launching.prepared_server SOCKET MODULE [TRACKER ...]`: imports a module, and forks a copy per job.

It answers each request with the copy's process id, and with its exit code when it has ended. It ends with the sweep
that started it; a copy that works then works on, as every worker does whose command was killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from erulab.command import STOP_SIGNALS

REQUEST_BYTES = 1 << 16
DESCRIPTORS = 16  # more than a worker inherits


def main(argv: Sequence[str]) -> int:
    """Serves until the other side closes. Returns the exit code: of the server, or in a copy the worker's."""
    # Blocked, not ignored: a signal to a copy that has not yet set its handlers must wait for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    channel = socket.socket(fileno=int(argv[0]))
    module = importlib.import_module(argv[1])
    if hasattr(module, "prepare"):
        module.prepare(argv[2:])
    # What is imported is never freed: a collection in a copy would only write to memory that is shared.
    gc.collect()
    gc.freeze()
    copy = None
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, DESCRIPTORS)
        if copy is not None:
            os.waitpid(copy, 0)  # only now, so that nobody else had its id while the sweep could still signal it
        if not message:
            return 0
        copy = os.fork()
        if copy == 0:
            if not _become_worker(channel, json.loads(message), descriptors):
                return 0
            code: int = module.main(sys.argv[1:])
            return code
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):  # the sweep was killed
            channel.send(json.dumps({"pid": copy}).encode())
            channel.send(json.dumps({"code": _wait(copy)}).encode())


def _become_worker(channel: socket.socket, request: dict[str, Any], descriptors: Sequence[int]) -> bool:
    """Turns this copy into a worker in a session of its own; returns False if it is not to run."""
    go = channel.recv(16)
    channel.close()
    if not go:
        return False
    os.setsid()
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.update(request["variables"])
    sys.argv[1:] = [request["folder"]]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return True


def _wait(copy: int) -> int:
    """Returns the exit code of a copy, minus the signal that killed it, without freeing its process id."""
    ended = os.waitid(os.P_PID, copy, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
