"""Sending mail. A mail that cannot be sent is told in the log and harms nothing else."""

from __future__ import annotations

import smtplib
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr

import structlog

from vcld.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    to: str
    subject: str
    body: str
    #: From address; empty: the configured one.
    sender: str = ""
    #: Gets a blind copy of everything; empty: nobody.
    copy_to: str = ""


class Mailer:
    """Hands mail to the configured server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, mail: Mail) -> bool:
        """Send one mail; False, with a line in the log, when it could not be sent."""
        log = structlog.get_logger()
        recipients = [address for address in (mail.to, mail.copy_to) if _is_address(address)]
        if not recipients:
            log.warning("mail has no usable recipient", to=mail.to, subject=mail.subject)
            return False
        settings = self._settings
        sender = mail.sender if _is_address(mail.sender) else settings.defaulthelpemail
        try:
            with smtplib.SMTP(
                settings.smtp_server, settings.smtp_port, timeout=settings.smtp_timeout_seconds
            ) as server:
                server.send_message(
                    _compose(mail, sender),
                    from_addr=settings.returnpath or sender,
                    to_addrs=list(dict.fromkeys(recipients)),
                )
        except (OSError, smtplib.SMTPException, ValueError) as err:
            log.warning("mail could not be sent", to=mail.to, subject=mail.subject, reason=str(err))
            return False
        log.info("mail sent", to=mail.to, subject=mail.subject)
        return True


def _is_address(text: str) -> bool:
    return not set(text) & set("\r\n") and "@" in parseaddr(text)[1]


def _compose(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    # One line each: a name must not be able to add a header.
    message["Subject"] = " ".join(mail.subject.split())
    message["From"] = Address(addr_spec=parseaddr(sender)[1])
    if _is_address(mail.to):
        message["To"] = Address(addr_spec=parseaddr(mail.to)[1])
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain="vcld.invalid")
    subtype = "html" if "<html>" in mail.body.lower() else "plain"
    message.set_content(mail.body + "\n", subtype=subtype)
    return message
