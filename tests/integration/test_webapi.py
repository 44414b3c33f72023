"""Calls to a real XML-RPC server that looks at the headers as the web site does."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.web_site import PASSWORD, PATH, USER, FakeWebSite, serving
from vcld.config import Secret, Settings
from vcld.errors import (
    AuthenticationError,
    BackendUnavailableError,
    Blame,
    ConfigError,
    FatalProvisioningError,
    ProvisioningError,
)
from vcld.webapi import BlockResult, WebApi


@pytest.fixture
def site() -> Iterator[FakeWebSite]:
    with serving(FakeWebSite()) as running:
        yield running


def make_api(site: FakeWebSite, password: str = PASSWORD, **options: Any) -> WebApi:
    return WebApi(site.url, USER, Secret(password), **({"timeout_seconds": 5} | options))


def test_a_block_time_is_processed_as_the_named_user(site: FakeWebSite) -> None:
    site.answer = {"status": "warning", "allocated": "7", "unallocated": 3, "warningcode": 4,
                   "warningmsg": "three are missing"}  # fmt: skip

    result = make_api(site).process_block_time(55)

    assert site.calls == [("XMLRPCprocessBlockTime", (55, 1))]
    assert result == BlockResult(
        status="warning", allocated=7, unallocated=3, warningcode=4, warningmsg="three are missing"
    )


def test_an_error_for_a_block_time_is_a_result_too(site: FakeWebSite) -> None:
    site.answer = {"status": "error", "errorcode": 34, "errormsg": "no access"}

    result = make_api(site).process_block_time(55)

    assert (result.status, result.allocated, result.errormsg) == ("error", 0, "no access")


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [({"status": "success"}, True), ({"status": "error", "errorcode": 51}, False), ({}, False)],
)
def test_a_capture_is_accepted_only_when_the_site_says_so(
    site: FakeWebSite, answer: dict[str, Any], accepted: bool
) -> None:
    site.answer = answer

    assert make_api(site).auto_capture(77) is accepted
    assert site.calls == [("XMLRPCautoCapture", (77,))]


def test_secrets_are_checked_for_a_reservation(site: FakeWebSite) -> None:
    assert make_api(site).check_crypt_secrets(88)
    site.answer = {"status": "error", "errormsg": "no key"}
    assert not make_api(site).check_crypt_secrets(88)
    assert site.calls[0] == ("XMLRPCcheckCryptSecrets", (88,))


def test_the_client_comes_from_the_configuration(site: FakeWebSite) -> None:
    settings = Settings(xmlrpc_url=site.url, xmlrpc_username=USER, xmlrpc_pass=Secret(PASSWORD))

    assert WebApi.from_settings(settings).auto_capture(77)


def complain(call: Callable[[], object], kind: type[ProvisioningError]) -> str:
    """Make a call that must fail; return all that a person or a log could see of it."""
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.blame is Blame.MANAGEMENT_NODE
    seen = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert PASSWORD not in seen
    return str(caught.value)


def test_a_refused_password_is_not_tried_again_and_not_shown(site: FakeWebSite) -> None:
    api = make_api(site, "another-secret")

    text = complain(lambda: api.auto_capture(77), AuthenticationError)

    assert "HTTP 401" in text
    assert "check xmlrpc_username and xmlrpc_pass" in text
    assert "another-secret" not in text
    assert site.calls == []


def test_a_fault_that_repeats_the_password_does_not_show_it(site: FakeWebSite) -> None:
    site.answer = RuntimeError(f"bad password {PASSWORD}")

    text = complain(lambda: make_api(site).auto_capture(77), FatalProvisioningError)

    assert "failed with fault 1" in text
    assert "bad password ***" in text


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ((404, b"not here"), FatalProvisioningError),
        ((503, b"later"), BackendUnavailableError),
        ((200, b"<html>Fatal error: out of memory"), BackendUnavailableError),
        ((200, b""), BackendUnavailableError),
        ((200, b"<?xml version='1.0'?><methodResponse></methodResponse>"), BackendUnavailableError),
    ],
)
def test_a_page_that_is_no_answer_is_told_of(
    site: FakeWebSite, page: tuple[int, bytes], kind: type[ProvisioningError]
) -> None:
    site.page = page

    text = complain(lambda: make_api(site).auto_capture(77), kind)

    assert f"127.0.0.1:{site.server_address[1]}{PATH}" in text


@pytest.mark.parametrize("answer", [5, [], "success", None])
def test_an_answer_that_is_no_structure_is_told_of(site: FakeWebSite, answer: object) -> None:
    site.answer = answer

    complain(lambda: make_api(site).auto_capture(77), BackendUnavailableError)


def test_a_site_that_is_down_can_be_asked_again_later(site: FakeWebSite) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = WebApi(f"http://127.0.0.1:{port}{PATH}", USER, Secret(PASSWORD))

    assert "refused" in complain(lambda: api.auto_capture(77), BackendUnavailableError)


def test_a_site_that_hangs_is_given_up_and_asked_only_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}{PATH}"
        api = WebApi(url, USER, Secret(PASSWORD), timeout_seconds=0.3)
        began = time.monotonic()

        text = complain(lambda: api.auto_capture(77), BackendUnavailableError)

        server.setblocking(False)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "timed out" in text
    assert time.monotonic() - began < 30


def test_a_call_whose_connection_breaks_is_not_repeated() -> None:
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drop() -> None:
            nonlocal asked
            server.settimeout(1)
            try:
                while True:
                    connection, _ = server.accept()
                    asked += 1
                    connection.recv(10)
                    connection.close()
            except TimeoutError:
                return

        thread = threading.Thread(target=drop)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}{PATH}"
        api = WebApi(url, USER, Secret(PASSWORD), timeout_seconds=5)
        complain(lambda: api.auto_capture(77), BackendUnavailableError)
        thread.join()
    assert asked == 1


@contextmanager
def serving_tls(folder: Path) -> Iterator[FakeWebSite]:
    certificate = make_certificate(folder)
    site = FakeWebSite()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site.socket = context.wrap_socket(site.socket, server_side=True)
    site.scheme = "https"
    # A refused handshake is the client's decision, not a fault of the server.
    site.handle_error = lambda *_: None  # type: ignore[method-assign]
    with serving(site):
        yield site


def make_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vcl.example.edu")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "site.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_an_untrusted_certificate_is_refused_before_the_password_is_sent(tmp_path: Path) -> None:
    with serving_tls(tmp_path) as site:
        text = complain(lambda: make_api(site).auto_capture(77), FatalProvisioningError)

        assert "certificate" in text
        assert site.calls == []


def test_verification_can_be_turned_off(tmp_path: Path) -> None:
    with serving_tls(tmp_path) as site:
        assert make_api(site, verify_tls=False).auto_capture(77)


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("", USER, PASSWORD),
        ("ftp://x/", USER, PASSWORD),
        (f"https://{USER.partition('@')[0]}:{PASSWORD}@vcl.example.edu/", USER, PASSWORD),
        ("https://vcl.example.edu/", "", PASSWORD),
        ("https://vcl.example.edu/", USER, ""),
        ("https://vcl.example.edu/", USER, f"{PASSWORD}\r\nX-Evil: yes"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once_without_showing_it(
    url: str, username: str, password: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        WebApi(url, username, Secret(password))

    assert PASSWORD not in str(caught.value)


def test_a_site_without_the_keys_is_told_which_to_set() -> None:
    with pytest.raises(ConfigError, match="set xmlrpc_url, xmlrpc_username and xmlrpc_pass"):
        WebApi.from_settings(Settings())
