"""A process that ends early ends the others of its program, which would wait for it."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

LOST = 3
"""Exit code of a process that has lost another one."""
_FAREWELL = b"."
_ADDRESS = 256
_PATIENCE = 5.0
"""Seconds that a failed process waits: the failure may be that of another one."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Within this block a process that has lost another one ends, and says so.

    Each process holds a connection to the first. The system closes it when a process
    ends, whatever ended it. JAX's own heartbeats notice that too, later, and with pages
    of its traces. Where a connection cannot be made they alone are left.
    """
    with contextlib.ExitStack() as stack:
        links = _connected(stack)
        for number, link in links:
            threading.Thread(target=_wait, args=(number, link), daemon=True).start()
        try:
            yield
        except Exception:
            time.sleep(_PATIENCE)
            raise
        for _, link in links:
            with contextlib.suppress(OSError):
                link.sendall(_FAREWELL)
        multihost_utils.sync_global_devices("farewell")


def _connected(stack: contextlib.ExitStack) -> list[tuple[int, socket.socket]]:
    """The first process's links to all others, or the one link to the first."""
    first, others = jax.process_index() == 0, jax.process_count() - 1
    text = b""
    listener = stack.enter_context(socket.socket()) if first else None
    if listener is not None:
        listener.bind(("", 0))
        listener.listen(others)
        text = f"{socket.gethostname()}:{listener.getsockname()[1]}".encode()
    told = np.zeros(_ADDRESS, np.uint8)
    told[: len(text)] = np.frombuffer(text, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(told), np.uint8)
    links: list[tuple[int, socket.socket]] = []
    with contextlib.suppress(OSError):
        if listener is None:
            host, _, port = told.tobytes().rstrip(b"\0").decode().rpartition(":")
            link = socket.create_connection((host, int(port)), timeout=_PATIENCE)
            link.sendall(jax.process_index().to_bytes(4, "big"))
            links.append((0, link))
        else:
            listener.settimeout(2 * _PATIENCE)
            for _ in range(others):
                link, _ = listener.accept()
                links.append((int.from_bytes(link.recv(4), "big"), link))
    for _, link in links:
        stack.enter_context(link)
        link.settimeout(None)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return links


def _wait(number: int, link: socket.socket) -> None:
    """Until the other end says farewell; or is gone, which ends this process."""
    try:
        said = link.recv(1)
    except OSError:
        said = b""
    if said == _FAREWELL or link.fileno() < 0:
        return
    sys.stdout.flush()
    print(
        f"error: process {jax.process_index()} of {jax.process_count()} has lost "
        f"process {number}; see what that one said last, then start all of them again",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)
