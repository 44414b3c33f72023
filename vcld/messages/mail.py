"""Sending mail through the site's SMTP server. Trouble with mail is logged, never raised."""

from __future__ import annotations

import contextlib
import email.policy
import re
import smtplib
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

import structlog

from vcld import clock
from vcld.config import Settings

#: Bodies that are not ASCII go as quoted-printable, which every server takes.
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
#: No space, bracket, comma, control character or line end of any kind.
_WORD = r"[^\s@<>(),;:\\\"\[\]\x00-\x20\x7f-\x9f]+"
_RECIPIENT = re.compile(rf" *(?:[^<>\x00-\x1f\x7f-\x9f\u2028\u2029]*<)?({_WORD}@{_WORD})>? *")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """What the configuration says about mail."""

    server: str = "localhost"
    port: int = 25
    #: Limit for the whole delivery of a mail, from finding the server to its last answer.
    timeout_seconds: float = 10.0
    #: Envelope sender, where returned mail goes; empty: the From address.
    returnpath: str = ""
    defaulthelpemail: str = "vcl_help@example.org"
    #: How this machine presents itself to the server.
    fqdn: str = "localhost"

    @classmethod
    def from_settings(cls, settings: Settings) -> MailSettings:
        return cls(
            server=settings.smtp_server,
            port=settings.smtp_port,
            timeout_seconds=settings.smtp_timeout_seconds,
            returnpath=settings.returnpath,
            defaulthelpemail=settings.defaulthelpemail,
            fqdn=settings.fqdn or "localhost",
        )


class Mailer:
    """Sends one mail at a time, each over a connection of its own."""

    def __init__(self, settings: MailSettings) -> None:
        self.settings = settings
        self._log = structlog.get_logger()

    def send(
        self,
        to: str,
        subject: str,
        body: str,
        *,
        sender: str | None = None,
        bcc: str | None = None,
        html: bool = False,
    ) -> bool:
        """Send a mail.

        Args:
            to: One address, or several with commas.
            subject: Line ends in it become spaces.
            body: The text.
            sender: The From address; None or an unusable one: ``defaulthelpemail``.
            bcc: Addresses that get a copy unseen.
            html: Whether the body is a web page.

        Returns:
            Whether the server took it for everyone in ``to``. If not, the log says why.
        """
        log = self._log.bind(to=to, subject=_one_line(subject))
        recipients = addresses(to)
        if not recipients:
            log.warning("mail not sent", reason="there is no usable address")
            return False
        copies = [address for address in addresses(bcc) if address not in recipients]
        author = (addresses(sender) or addresses(self.settings.defaulthelpemail) or [""])[0]
        if not author:
            log.warning("mail not sent", reason="defaulthelpemail is not a mail address")
            return False
        mail = _compose(recipients, subject, body, author, html=html)
        try:
            refused = self._deliver(mail, author, [*recipients, *copies])
        except (OSError, ValueError) as err:  # every SMTPException is an OSError
            log.warning("mail not sent", server=self._server, reason=_reason(err))
            return False
        for address, (code, text) in refused.items():
            log.warning(
                "mail refused for a recipient", recipient=address, reason=_reply(code, text)
            )
        if not refused.keys().isdisjoint(recipients):
            return False
        log.info("mail sent")
        return True

    @property
    def _server(self) -> str:
        return f"{self.settings.server}:{self.settings.port}"

    def _deliver(
        self, mail: EmailMessage, author: str, recipients: list[str]
    ) -> dict[str, tuple[int, bytes]]:
        """Deliver within the limit, in a thread that is given up when the limit is over.

        Neither the name service nor a server that sends a word now and then has a limit of
        its own; the latter meets a closed connection then.
        """
        settings = self.settings
        # Without a name smtplib asks the DNS for one. Its own limit ends the thread, later.
        server = smtplib.SMTP(local_hostname=settings.fqdn, timeout=settings.timeout_seconds + 1)
        answer: Future[dict[str, tuple[int, bytes]]] = Future()

        def deliver() -> None:
            try:
                with server:
                    server.connect(settings.server, settings.port)
                    sender = settings.returnpath or author
                    answer.set_result(server.send_message(mail, sender, recipients))
            except Exception as err:  # noqa: BLE001 - for the thread that waits
                if not answer.done():
                    answer.set_exception(err)

        threading.Thread(target=deliver, name="mail", daemon=True).start()
        try:
            return answer.result(settings.timeout_seconds)
        except FutureTimeoutError:
            _hang_up(server)
            limit = f"{settings.timeout_seconds:g} s"
            raise TimeoutError(f"the server did not take it within {limit}") from None


def _hang_up(server: smtplib.SMTP) -> None:
    connection: socket.socket | None = server.sock
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def addresses(text: str | None) -> list[str]:
    """The usable mail addresses in a text with commas, without names and repetitions.

    Strict on purpose: what a lenient parser makes of a line end may be somebody else's address.
    """
    found = (_RECIPIENT.fullmatch(part) for part in re.split("[,;]", text or ""))
    return list(dict.fromkeys(match[1] for match in found if match))


def _compose(
    recipients: list[str], subject: str, body: str, author: str, *, html: bool
) -> EmailMessage:
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = author
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = _one_line(subject) or "Message from VCL"
    mail["Date"] = formatdate(clock.epoch(), localtime=True)
    mail["Message-ID"] = make_msgid(domain=author.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_encodable(body), subtype="html" if html else "plain")
    return mail


def _one_line(text: str) -> str:
    """The text without line ends and other control characters: fit for a header."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", _encodable(text)).split())


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _reason(err: Exception) -> str:
    if isinstance(err, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{who}: {_reply(*answer)}" for who, answer in err.recipients.items())
    if isinstance(err, smtplib.SMTPResponseException):
        return _reply(err.smtp_code, err.smtp_error)
    return str(err) or type(err).__name__


def _reply(code: int, text: Any) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return f"{code} {_one_line(words)}"
