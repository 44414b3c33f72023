"""A real SMTP server that keeps the mail."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class PostOffice:
    """Keeps what it receives; refuses the addresses that it is told to."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.envelopes: list[Envelope] = []
        self.refuse: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - the server's name for it
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address in self.refuse:
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        self.envelopes.append(envelope)
        return "250 OK"

    @classmethod
    @contextmanager
    def open(cls, **options: Any) -> Iterator[PostOffice]:
        """Serve on a port of 127.0.0.1 while the block runs."""
        office = cls()
        controller = Controller(office, hostname="127.0.0.1", port=office.port, **options)
        controller.start()
        try:
            yield office
        finally:
            controller.stop()

    def mail(self, number: int = -1) -> EmailMessage:
        content = self.envelopes[number].content
        assert isinstance(content, bytes)
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
