"""Connections between the processes of one program: what is told, and who is gone."""

import contextlib
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

LOST = 3
"""Exit code of a process that has lost another one."""
_LENGTH = struct.Struct("!Q")
_FAREWELL = _LENGTH.pack(0)
_ADDRESS = 256
_PATIENCE = 5.0
"""Seconds that a failed process waits: the failure may be that of another one."""


class Links:
    """The first process's connections to all others, or the one to the first.

    Attributes:
        index: Number of this process.
        count: How many there are.
    """

    def __init__(self, index: int, count: int, links: dict[int, socket.socket]):
        self.index, self.count, self._links = index, count, links
        self._heard: queue.Queue[bytes | None] = queue.Queue()
        self._left = False

    def tell(self, content: bytes) -> None:
        """From the first process to all others.

        Args:
            content: At least one byte.

        Raises:
            ConnectionError: there is no connection to one of them.
        """
        self._check()
        self._send(_LENGTH.pack(len(content)) + content)

    def hear(self) -> bytes:
        """The next that the first process tells, in any other one; waits for it.

        Raises:
            ConnectionError: there is no connection, or the first one has ended.
        """
        self._check()
        content = self._heard.get()
        if content is None:
            raise ConnectionError(
                f"process 0 has ended and told process {self.index} no more; the "
                "processes do not run the same program on the same data"
            )
        return content

    def listen(self) -> None:
        """From now on the end of another process is noticed."""
        for number, link in self._links.items():
            thread = threading.Thread(
                target=_listen, args=(self, number, link), daemon=True
            )
            thread.start()

    def part(self) -> None:
        """Wait until every process has come here."""
        if not self._complete():
            multihost_utils.sync_global_devices("farewell")
        elif self.index == 0:
            for _ in self._links:
                while self._heard.get() is not None:
                    pass
            self._send(_FAREWELL)
        else:
            self._send(_FAREWELL)
            while self._heard.get() is not None:
                pass

    def leave(self) -> None:
        """Let the others notice that this process ends."""
        self._left = True
        for link in self._links.values():
            with contextlib.suppress(OSError):  # closing alone would not tell them
                link.shutdown(socket.SHUT_RDWR)

    def _complete(self) -> bool:
        return len(self._links) == (self.count - 1 if self.index == 0 else 1)

    def _check(self) -> None:
        if not self._complete():
            raise ConnectionError(
                f"process {self.index} of {self.count} has no connection to "
                f"{'all others' if self.index == 0 else 'the first one'}; let their "
                "machines reach each other's free ports"
            )

    def _send(self, content: bytes) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):  # noticed by who listens
                link.sendall(content)


@contextlib.contextmanager
def watched() -> Iterator[Links]:
    """Within this block a process that has lost another one ends, and says so.

    Each process holds a connection to the first. The system closes it when a process
    ends, whatever ended it. JAX's own heartbeats notice that too, later, and with pages
    of its traces. Where a connection cannot be made they alone are left.
    """
    with contextlib.ExitStack() as stack:
        links = Links(jax.process_index(), jax.process_count(), _connected(stack))
        links.listen()
        try:
            yield links
        except Exception:
            time.sleep(_PATIENCE)
            links.leave()
            raise
        links.part()


def _connected(stack: contextlib.ExitStack) -> dict[int, socket.socket]:
    """Connections by the number of the process at the other end."""
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
    links: dict[int, socket.socket] = {}
    with contextlib.suppress(OSError):
        if listener is None:
            host, _, port = told.tobytes().rstrip(b"\0").decode().rpartition(":")
            link = socket.create_connection((host, int(port)), timeout=_PATIENCE)
            link.sendall(_LENGTH.pack(jax.process_index()))
            links[0] = link
        else:
            listener.settimeout(2 * _PATIENCE)
            for _ in range(others):
                link, _ = listener.accept()
                (number,) = _LENGTH.unpack(_exactly(link, _LENGTH.size) or _FAREWELL)
                links[number] = link
    for link in links.values():
        stack.enter_context(link)
        link.settimeout(None)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return links


def _listen(links: Links, number: int, link: socket.socket) -> None:
    """Until the other end says farewell; or is gone, which ends this process."""
    while (header := _exactly(link, _LENGTH.size)) is not None:
        (length,) = _LENGTH.unpack(header)
        if not length:
            links._heard.put(None)
            return
        content = _exactly(link, length)
        if content is None:
            break
        links._heard.put(content)
    if links._left or link.fileno() < 0:
        return
    sys.stdout.flush()
    print(
        f"error: process {links.index} of {links.count} has lost process {number}; see "
        "what that one said last, then start all of them again",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)


def _exactly(link: socket.socket, length: int) -> bytes | None:
    """So many bytes; None where the connection ends before."""
    parts = bytearray()
    while len(parts) < length:
        try:
            part = link.recv(min(length - len(parts), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
