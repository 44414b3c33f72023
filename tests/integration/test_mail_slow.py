"""A mail server that never comes to an end: nobody waits for it, and it is given up."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import structlog

from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site
from vcld.messages.mail import Mailer, MailSettings


@contextlib.contextmanager
def endless(word: bytes) -> Iterator[int]:
    """Serve on a port: a greeting, and then this word now and then."""
    over = threading.Event()
    held: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"220 here\r\n" if word else b"")
            while not over.wait(0.2):
                connection.sendall(word)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                held.append(server.accept()[0])
                threading.Thread(target=talk, args=(held[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


WORDS = pytest.mark.parametrize("word", [b"250-x\r\n", b""], ids=["trickling", "silent"])


def mailing(daemon: Daemon) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if f"{daemon.title}: sends mail" in " ".join(process.info["cmdline"] or ())
    ]


@WORDS
def test_the_limit_is_one_for_the_whole_mail(word: bytes) -> None:
    with endless(word) as port, structlog.testing.capture_logs() as logs:
        mailer = Mailer(MailSettings(server="127.0.0.1", port=port, timeout_seconds=1))
        began = time.monotonic()

        assert not mailer.send("maria@example.edu", "s", "b")

        assert time.monotonic() - began < 5
    assert logs[-1]["reason"] == "the server did not take it within 1 s"


@WORDS
def test_user_gets_the_computer_while_the_mail_server_dawdles(
    site: Site, daemons: Daemons, word: bytes
) -> None:
    site.execute("UPDATE user SET emailnotices = 1")
    with endless(word) as port:
        daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=port, smtp_timeout=30)
        request = site.ask("new", 1)
        eventually(lambda: daemon.events("work waits", request_id=request), daemon.describe)
        assert mailing(daemon)

        site.connect(request)

        eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe, 10)
        site.end(request)
        eventually(lambda: site.pair(request) == "gone", daemon.describe, 10)
        assert not daemon.events("mail not sent")
        for pid in mailing(daemon):
            psutil.Process(pid).kill()


def test_mail_that_is_given_up_leaves_a_line_and_no_process(site: Site, daemons: Daemons) -> None:
    site.execute("UPDATE user SET emailnotices = 1")
    with endless(b"250-x\r\n") as port:
        daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=port, smtp_timeout=1)

        request = site.ask("new", 1)

        eventually(lambda: daemon.events("mail not sent", request_id=request), daemon.describe)
        eventually(lambda: not mailing(daemon), daemon.describe)
    assert site.pair(request) == "pending/reserved"


def test_image_is_announced_only_after_it_is_recorded(site: Site, daemons: Daemons) -> None:
    with endless(b"") as port:
        daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=port, smtp_timeout=30)
        request = site.ask("new", 1)
        eventually(lambda: site.computer(1) == "reserved", daemon.describe)
        site.connect(request)
        eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
        site.execute(f"UPDATE reservation SET imagerevisionid = 22 WHERE requestid = {request}")

        site.set_state(request, "image", "inuse")

        eventually(lambda: site.pair(request) == "gone", daemon.describe, 10)
        eventually(lambda: mailing(daemon), daemon.describe)
        for pid in mailing(daemon):
            psutil.Process(pid).kill()
