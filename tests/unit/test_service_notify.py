"""What systemd hears."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcld import notify

ABSTRACT = "vcld-test-notify"


@pytest.fixture(params=["path", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    where, named = (path, path) if request.param == "path" else (f"\0{ABSTRACT}", f"@{ABSTRACT}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(where)
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", named)
        yield channel


def test_state_reaches_the_socket_of_the_environment(listener: socket.socket) -> None:
    notify.notify(notify.READY)

    assert listener.recv(100) == b"READY=1"


def test_status_is_one_line_whatever_it_quotes(listener: socket.socket) -> None:
    notify.notify(notify.status("waiting for\nREADY=1 na\udcefve"))

    assert listener.recv(100) == b"STATUS=waiting for READY=1 na?ve"


def test_reloading_tells_since_when_as_systemd_demands(listener: socket.socket) -> None:
    notify.notify(notify.reloading())

    first, second = listener.recv(100).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.partition("=")[0] == "MONOTONIC_USEC"
    assert second.partition("=")[2].isdecimal()


def test_systemd_that_does_not_read_holds_nobody_up(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SEND_SECONDS", 0.01)

    for _ in range(20):  # more than the socket holds
        notify.notify(notify.WATCHDOG)


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all", "relative", "@" + "x" * 200])
def test_nothing_hurts_where_nobody_listens(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify.notify(notify.READY)
