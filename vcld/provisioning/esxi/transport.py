"""HTTPS to a vSphere API: the certificate checked at each connection, every wait cancellable.

pyVmomi's own pinning checks the thumbprint only when the system refuses the certificate, and
leaves the shared context without any check afterwards; so the connection is our own.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import http.client
import socket
import ssl
from typing import Any

from vcld import clock
from vcld.provisioning.esxi.endpoint import Endpoint
from vcld.waiting import Cancellation

CONNECT_SECONDS = 10.0
#: The longest wait of one call is that for updates, which the server ends itself.
ANSWER_SECONDS = 90.0
#: Longest stall in the middle of sending: a datastore that is busy takes its time.
STALL_SECONDS = 60.0
#: How often a worker that sends looks whether it must stop.
LOOK_SECONDS = 1.0
#: Seconds of silence before the first probe, seconds between probes, probes without an answer.
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}


class CertificateError(Exception):
    """The server is not the one that is wanted. Its message says what to do."""


class Waits:
    """What may end a wait for the server; replaced when the session says farewell."""

    def __init__(self, cancellation: Cancellation) -> None:
        self.cancellation = cancellation
        self.answer_seconds = ANSWER_SECONDS


class _Socket(ssl.SSLSocket):
    """A socket whose waits end when the work must stop, and renew its leases."""

    waits: Waits

    def send(self, *args: Any, **kwargs: Any) -> int:
        deadline = clock.monotonic() + STALL_SECONDS
        before = self.gettimeout()
        self.settimeout(LOOK_SECONDS)
        try:
            while True:
                self.waits.cancellation.wait(0.0)
                try:
                    return super().send(*args, **kwargs)
                except TimeoutError:
                    if clock.monotonic() > deadline:
                        raise
        finally:
            self.settimeout(before)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if not self.pending():
            ready = self.waits.cancellation.wait(self.waits.answer_seconds, self.fileno())
            if not ready:
                raise TimeoutError(f"no answer within {self.waits.answer_seconds:g} s")
        return super().recv_into(*args, **kwargs)


@functools.lru_cache(maxsize=16)
def _context(ca_file: str, *, pinned: bool) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, as ESXi 6.5 to 8 speak it. Made once: reading the authorities is slow."""
    if pinned:
        # The thumbprint is compared below, before a single byte is sent.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    return context


# Once, before the daemon forks: every worker would need 50 ms for it.
_context("", pinned=False)


class Connection(http.client.HTTPSConnection):
    """One connection to an endpoint; the shape that pyVmomi's stub makes connections in."""

    def __init__(self, host: str, port: int, *, endpoint: Endpoint, waits: Waits) -> None:
        self._endpoint = endpoint
        self._waits = waits
        try:
            self._tls = _context(endpoint.ca_file, pinned=bool(endpoint.thumbprint))
        except OSError as err:
            raise CertificateError(f"{endpoint.ca_file} holds no certificates: {err}") from err
        super().__init__(host, port, timeout=CONNECT_SECONDS, context=self._tls)

    def connect(self) -> None:
        """Connect and check the certificate.

        Raises:
            CertificateError: it is not the one that is wanted.
            OSError: the server cannot be reached.
        """
        endpoint = self._endpoint
        http.client.HTTPConnection.connect(self)
        plain: socket.socket = self.sock
        _keep_alive(plain)
        name = endpoint.certificate_name or endpoint.address
        try:
            made = self._tls.wrap_socket(plain, server_hostname=name)
        except ssl.SSLCertVerificationError as err:
            plain.close()
            raise CertificateError(self._advice(err.verify_message)) from err
        assert isinstance(made, _Socket)
        made.waits = self._waits
        made.settimeout(STALL_SECONDS)
        self.sock = made
        if endpoint.thumbprint:
            found = hashlib.sha256(made.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(found, endpoint.thumbprint):
                self.close()
                raise CertificateError(
                    f"the certificate of {endpoint.name} has the thumbprint {_colons(found)}, not"
                    " the one in vsphere_config: compare it on the host's own console before"
                    " you change it there"
                )

    def _advice(self, why: str) -> str:
        endpoint = self._endpoint
        seen = _seen_thumbprint(endpoint)
        return (
            f"the certificate of {endpoint.name} ({endpoint.address}) is not trusted: {why}; name"
            f" its authority with 'ca_file', or its thumbprint, in the file of vsphere_config."
            f" The server shows {seen}: compare it on the host's own console"
        )


def _keep_alive(sock: socket.socket) -> None:
    """Between calls a firewall must not forget the connection, nor we a server that is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _seen_thumbprint(endpoint: Endpoint) -> str:
    try:
        where = (endpoint.address, endpoint.port)
        pem = ssl.get_server_certificate(where, timeout=CONNECT_SECONDS)
    except OSError as err:
        return f"none any more ({err})"
    return _colons(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest())


def _colons(digits: str) -> str:
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()
