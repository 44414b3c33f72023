"""Mail as a real SMTP server receives it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.post_office import PostOffice
from vcld.messages.mail import Mailer, MailSettings, addresses


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice.open() as post_office:
        yield post_office


def make_mailer(office: PostOffice, **changes: Any) -> Mailer:
    facts: dict[str, Any] = {
        "server": "127.0.0.1",
        "port": office.port,
        "timeout_seconds": 5.0,
        "returnpath": "bounces@example.edu",
        "defaulthelpemail": "help@example.edu",
    }
    return Mailer(MailSettings(**(facts | changes)))


def test_a_mail_arrives_with_its_text_sender_and_hidden_copy(office: PostOffice) -> None:
    sent = make_mailer(office).send(
        "maria@example.edu",
        "Ihr Rechner für Zoë ist bereit 🎓",
        "Grüße,\n.\n張\n",
        sender="help@physics.example.edu",
        bcc="box@example.edu",
    )

    mail = office.mail()
    assert sent
    assert mail["Subject"] == "Ihr Rechner für Zoë ist bereit 🎓"
    assert mail["From"] == "help@physics.example.edu"
    assert mail["To"] == "maria@example.edu"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().replace("\r\n", "\n") == "Grüße,\n.\n張\n"
    assert office.envelopes[0].mail_from == "bounces@example.edu"
    assert office.envelopes[0].rcpt_tos == ["maria@example.edu", "box@example.edu"]
    assert "box@example.edu" not in str(mail)


def test_what_goes_over_the_wire_is_ascii_with_short_lines(office: PostOffice) -> None:
    make_mailer(office).send("maria@example.edu", "ü" * 300, "ö" * 2000)

    content = office.envelopes[0].content
    assert isinstance(content, bytes)
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert office.mail().get_content().strip() == "ö" * 2000


def test_a_web_page_is_sent_as_one(office: PostOffice) -> None:
    make_mailer(office).send("maria@example.edu", "s", "<html><b>x</b></html>", html=True)

    assert office.mail().get_content_type() == "text/html"


def test_without_a_sender_the_mail_comes_from_the_default_help_address(office: PostOffice) -> None:
    mailer = make_mailer(office, returnpath="")

    mailer.send("maria@example.edu", "s", "b", sender="not an address")

    assert office.mail()["From"] == "help@example.edu"
    assert office.envelopes[0].mail_from == "help@example.edu"


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x85", "\u2028", "\x00"])
def test_no_field_can_add_a_header_or_a_recipient(office: PostOffice, end: str) -> None:
    evil = f"{end}Bcc: evil@example.org{end}X-Evil: yes{end}{end}body"

    make_mailer(office).send(
        "maria@example.edu", f"Hello{evil}", "text", sender=f"a@example.edu{evil}", bcc=f"b{evil}"
    )

    mail = office.mail()
    assert set(mail.keys()) <= {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding", "X-Peer", "X-MailFrom", "X-RcptTo"),
    }
    assert "X-Evil" not in mail
    assert mail.get_content().strip() == "text"
    assert "evil@example.org" not in office.envelopes[0].rcpt_tos
    assert mail["From"] == "help@example.edu"


def test_an_address_with_a_line_end_gets_no_mail(office: PostOffice) -> None:
    with structlog.testing.capture_logs() as logs:
        sent = make_mailer(office).send("a@example.edu\r\nRCPT TO:<evil@example.org>", "s", "b")

    assert not sent
    assert office.envelopes == []
    assert logs[-1]["event"] == "mail not sent"


def test_several_administrators_all_get_the_mail(office: PostOffice) -> None:
    make_mailer(office).send("a@example.edu, Bob <b@example.edu>,a@example.edu", "s", "b")

    assert office.envelopes[0].rcpt_tos == ["a@example.edu", "b@example.edu"]


def test_usable_addresses_are_picked_out_of_a_text() -> None:
    assert addresses("a@b.example, x, <c@d.example>, e f@g.example, @h, i@") == [
        "a@b.example",
        "c@d.example",
    ]
    assert addresses(None) == []


def test_a_refused_recipient_is_told_of_in_the_log(office: PostOffice) -> None:
    office.refuse = {"gone@example.edu"}

    with structlog.testing.capture_logs() as logs:
        sent = make_mailer(office).send("gone@example.edu", "s", "b", bcc="box@example.edu")

    assert not sent
    assert office.envelopes[0].rcpt_tos == ["box@example.edu"]
    assert logs[0]["recipient"] == "gone@example.edu"
    assert logs[0]["reason"] == "550 no such person"


def test_a_refused_copy_does_not_make_the_mail_a_failure(office: PostOffice) -> None:
    office.refuse = {"box@example.edu"}

    assert make_mailer(office).send("maria@example.edu", "s", "b", bcc="box@example.edu")


def test_when_all_are_refused_the_log_says_by_whom_and_why(office: PostOffice) -> None:
    office.refuse = {"gone@example.edu"}

    with structlog.testing.capture_logs() as logs:
        assert not make_mailer(office).send("gone@example.edu", "s", "b")

    assert logs[0]["reason"] == "gone@example.edu: 550 no such person"


def test_a_server_that_is_down_is_told_of_and_nothing_is_raised() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mailer = Mailer(MailSettings(server="127.0.0.1", port=port, timeout_seconds=5))

    with structlog.testing.capture_logs() as logs:
        assert not mailer.send("maria@example.edu", "s", "b")

    assert logs[0]["log_level"] == "warning"
    assert logs[0]["server"] == f"127.0.0.1:{port}"
    assert "refused" in logs[0]["reason"]


@pytest.mark.parametrize("greeting", [b"", b"554 go away\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_hangs_or_talks_nonsense_is_given_up(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def greet() -> None:
            connection, _ = server.accept()
            held.append(connection)
            connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        port = server.getsockname()[1]
        mailer = Mailer(MailSettings(server="127.0.0.1", port=port, timeout_seconds=0.3))
        began = time.monotonic()

        sent = mailer.send("maria@example.edu", "s", "b")

        thread.join()
        held[0].close()
    assert not sent
    assert time.monotonic() - began < 30


def test_an_address_that_the_server_cannot_take_is_a_failure_of_that_mail_only() -> None:
    with PostOffice.open(enable_SMTPUTF8=False) as office:
        mailer = make_mailer(office)

        assert not mailer.send("jürgen@example.edu", "s", "b")
        assert mailer.send("maria@example.edu", "s", "b")


def test_text_that_cannot_be_encoded_is_sent_with_question_marks(office: PostOffice) -> None:
    assert make_mailer(office).send("maria@example.edu", "a\ud800b", "c\udcffd")

    assert office.mail()["Subject"] == "a?b"
    assert office.mail().get_content().strip() == "c?d"
