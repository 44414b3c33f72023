"""A host that takes nothing more: the worker hears that it must stop, and keeps its leases."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcld.errors import WorkerStopped
from vcld.provisioning.esxi import transport
from vcld.provisioning.esxi.endpoint import Endpoint
from vcld.provisioning.esxi.transport import Connection, Waits
from vcld.provisioning.leasing import Renewing
from vcld.waiting import Cancellation


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Endpoint]:
    """A server that makes TLS connections and reads nothing."""
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=esx", *files],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "cert").read_text())
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            kept.append(context.wrap_socket(server.accept()[0], server_side=True))

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint(
            name="esx",
            address="127.0.0.1",
            port=server.getsockname()[1],
            username="root",
            password="",
            thumbprint=hashlib.sha256(der).hexdigest(),
        )
        thread.join(10)
        for made in kept:
            made.close()


def send(endpoint: Endpoint, cancellation: Cancellation) -> None:
    connection = Connection(
        endpoint.address, endpoint.port, endpoint=endpoint, waits=Waits(cancellation)
    )
    try:
        connection.request("PUT", "/folder/disk", b"x" * (64 << 20))
    finally:
        connection.close()


def test_a_worker_that_sends_to_a_host_that_stalls_ends_when_it_must(stalled: Endpoint) -> None:
    cancellation = Cancellation()
    threading.Timer(0.5, cancellation.stop, ["the request was deleted"]).start()
    began = time.monotonic()
    with pytest.raises(WorkerStopped):
        send(stalled, cancellation)
    assert time.monotonic() - began < 15


def test_leases_are_renewed_while_a_host_stalls_which_it_may_not_do_for_ever(
    stalled: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(transport, "LOOK_SECONDS", 0.1)
    ticks: list[float] = []
    with pytest.raises(TimeoutError):
        send(stalled, Renewing(Cancellation(), lambda: ticks.append(time.monotonic())))
    assert len([tick for tick in ticks if tick > ticks[-1] - 0.9]) > 3
