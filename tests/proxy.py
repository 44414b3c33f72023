"""A proxy between daemon and database that cuts connections and slows them down.

It reads the client's packets (3 bytes of length, 1 of sequence, then the command: 3 is a
query), so that a fault strikes at a chosen statement.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import Self

from sqlalchemy.engine import make_url

QUERY = 3


@dataclass
class Fault:
    """Strikes ``times`` times, at a statement that contains ``text``."""

    text: str
    #: The server carries the statement out, but its answer is lost.
    after: bool
    times: int = 1


class Proxy:
    """Listens on a port of its own; ``url`` leads through it."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._armed = False
        self.struck = 0
        #: Every statement waits this long on its way.
        self.delay_seconds = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return self._target.set(host=host, port=port).render_as_string(hide_password=False)

    def cut_at(self, text: str, *, after: bool, only_after: str | None = None) -> None:
        """Cut the connection at the next statement that contains ``text``.

        With ``only_after``, not before a statement with that text has passed.
        """
        with self._lock:
            self._faults.append(Fault(text, after))
            self._only_after = only_after
            self._armed = only_after is None

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((self._target.host or "", self._target.port or 3306))
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets |= {client, server}
        answers = threading.Thread(target=self._answer, args=(server, client), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            self._ask(client, server)
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        answers.join(10)
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            head = _receive(client, 4)
            body = _receive(client, int.from_bytes(head[:3], "little"))
            is_query = body[:1] == bytes([QUERY])
            text = body[1:].decode("utf-8", "replace") if is_query else ""
            if is_query and self.delay_seconds:
                time.sleep(self.delay_seconds)
            fault = self._strike(text) if is_query else None
            if fault is None:
                server.sendall(head + body)
                continue
            if fault.after:
                # Nobody hears the answer: the way back is shut before the question goes out.
                client.shutdown(socket.SHUT_RDWR)
                server.sendall(head + body)
                server.settimeout(5)
                time.sleep(0.3)
            return

    def _strike(self, text: str) -> Fault | None:
        with self._lock:
            if not self._faults:
                return None
            if not self._armed:
                self._armed = self._only_after is not None and self._only_after in text
                return None
            for fault in self._faults:
                if fault.text in text:
                    self._faults.remove(fault)
                    self.struck += 1
                    return fault
        return None


def _receive(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise ConnectionError("the client is gone")
        data += part
    return data
