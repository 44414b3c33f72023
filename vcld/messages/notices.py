"""Telling people: which message goes to whom, by the rules of specification §11.3."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from vcld.config import Settings
from vcld.messages import lookup
from vcld.messages.beside import run_beside
from vcld.messages.mail import Mailer, MailSettings
from vcld.messages.render import Rendered, Template, render
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode, Reservation

#: The owner of an image hears of it even without wanting notices (§8.5, §8.6).
ALWAYS_MAILED = frozenset(
    {
        "image_creation_success",
        "image_checkpoint_success",
        "image_creation_delayed",
        "production_imagerevision",
    }
)


class Block(Protocol):
    """What is told of a block allocation."""

    @property
    def name(self) -> str: ...
    @property
    def owner_email(self) -> str: ...
    @property
    def machines(self) -> int: ...


class Allocation(Protocol):
    """What the web site made of it."""

    @property
    def allocated(self) -> int: ...
    @property
    def errormsg(self) -> str: ...
    @property
    def warningmsg(self) -> str: ...


class Notices:
    """Sends messages. A mail that cannot be sent is logged and forgotten.

    With ``beside`` each mail goes from a process of its own, for callers that users wait for.
    """

    def __init__(self, settings: Settings, database: Database, *, beside: bool = False) -> None:
        self._beside = beside
        self._processname = settings.processname
        self._mailer = Mailer(MailSettings.from_settings(settings))
        self._database = database
        self._jabber = settings.jabber
        self._log: Any = structlog.get_logger()

    def user(self, reservation: Reservation, key: str, **facts: str) -> str:
        """Send a message to the user who made the request.

        Without ``user.emailnotices`` only the node's shared mail box gets it, unless it is
        one that always goes.

        Args:
            reservation: Whose user, and the values of the text.
            key: Such as ``reserved``.
            facts: Further values, such as ``notice_interval``.

        Returns:
            The short form, for a line on the user's screen.

        Raises:
            StoreError: the database with the site's texts is away.
        """
        user = reservation.request.user
        template = self._database.run(
            lambda connection: lookup.find_user_message(connection, key, user.affiliation.name)
        )
        if template.short_message is None:
            self._log.warning(
                "message has no short form, all of it is shown", variable=template.name
            )
        text = self._render(template, reservation, facts)
        if self._jabber:
            self._jabber = False
            self._log.warning("instant messages are not supported, only mail is sent")
        wanted = user.emailnotices or key in ALWAYS_MAILED
        self._mail(
            user.email if wanted else None,
            reservation.managementnode,
            text,
            sender=user.affiliation.helpaddress,
        )
        return text.short_message

    def admins(self, reservation: Reservation, key: str, **facts: str) -> None:
        """Send a message to the node's administrators.

        Raises:
            StoreError: the database with the site's texts is away.
        """
        node = reservation.managementnode
        template = self._database.run(lambda connection: lookup.find_admin_message(connection, key))
        text = self._render(template, reservation, facts)
        self._mail(node.sysadminEmailAddress, node, text)

    def problem(
        self, reservation: Reservation, step: str, reason: str, history: Sequence[str]
    ) -> None:
        """Tell the node's administrators of a failure, in the form of specification §1.4.

        Args:
            reservation: What was being worked on.
            step: Where in the handler.
            reason: What went wrong, a clause.
            history: The load log, a line each.
        """
        node, request = reservation.managementnode, reservation.request
        computer = reservation.computer
        host = f">{computer.vmhost.hostname}" if computer.vmhost else ""
        parts = (
            f"{request.id}:{reservation.id}",
            request.state,
            step,
            f"{computer.shortname}{host}",
            reservation.imagerevision.imagename,
            request.user.login,
        )
        self._problem(node, request.id, parts, reason, history)

    def broken(self, node: ManagementNode, requestid: int, state: str, reason: str) -> None:
        """The same of a request whose rows do not even say what it is about."""
        self._problem(node, requestid, (str(requestid), state), reason, ())

    def _problem(
        self,
        node: ManagementNode,
        requestid: int,
        parts: Sequence[str],
        reason: str,
        history: Sequence[str],
    ) -> None:
        subject = f"PROBLEM -- {node.shortname}|{'|'.join(parts)}"
        lines = [reason, "", f"'vcld explain {requestid}' says more."]
        if history:
            lines += ["", "Load log:", *history]
        text = Rendered(subject=subject, message="\n".join(lines), short_message=reason)
        self._mail(node.sysadminEmailAddress, node, text)

    def block_owner(
        self, node: ManagementNode, block: Block, result: Allocation, *, short: bool
    ) -> None:
        """Tell the owner of a block allocation how many computers there will be (§4.3).

        The administrators hear of it too when there are too few.
        """
        subject = f"VCL Block allocation {'warning' if short else 'results'} for {block.name}"
        lines = [
            f'Your block allocation "{block.name}" was prepared.',
            "",
            f"Computers asked for: {block.machines}",
            f"Computers allocated: {result.allocated}",
        ]
        if short:
            lines += [
                "",
                "There are fewer computers than you asked for. The administrators get this mail"
                " too; please ask them if you need more.",
            ]
        for remark in (result.errormsg, result.warningmsg):
            if remark:
                lines += ["", f"The web site says: {remark}"]
        self._mail_block(node, block, subject, lines, to_administrators=short)

    def block_waits(self, node: ManagementNode, block: Block, reason: str) -> None:
        """Tell the owner of a block allocation, and the administrators, that it is late."""
        subject = f"VCL Block allocation warning for {block.name}"
        lines = [
            f'Your block allocation "{block.name}" could not be prepared yet: {reason}.',
            "",
            "It is tried again until it ends. The administrators get this mail too.",
        ]
        self._mail_block(node, block, subject, lines, to_administrators=True)

    def _mail_block(
        self,
        node: ManagementNode,
        block: Block,
        subject: str,
        lines: Sequence[str],
        *,
        to_administrators: bool,
    ) -> None:
        text = Rendered(subject=subject, message="\n".join(lines), short_message=subject)
        self._mail(block.owner_email, node, text)
        if to_administrators and node.sysadminEmailAddress:
            self._mail(node.sysadminEmailAddress, node, text)

    def _mail(
        self, to: str | None, node: ManagementNode, text: Rendered, *, sender: str | None = None
    ) -> None:
        """Mail to an address if there is one; the shared mail box gets it in any case."""
        box = node.sharedMailBox
        if not (to or box):
            return
        send = partial(
            self._mailer.send,
            to or box or "",
            text.subject,
            text.message,
            sender=sender,
            bcc=box,
            html=text.html,
        )
        if self._beside:
            limit_seconds = self._mailer.settings.timeout_seconds
            run_beside(send, f"{self._processname}: sends mail", limit_seconds=limit_seconds)
        else:
            send()

    def _render(
        self, template: Template, reservation: Reservation, facts: dict[str, str]
    ) -> Rendered:
        help_address = reservation.request.user.affiliation.helpaddress
        helpers = help_address or self._mailer.settings.defaulthelpemail
        known = {"user_affiliation_helpaddress": helpers, "helpaddress": helpers}
        text = render(template, reservation, known | facts)
        if text.unknown:
            self._log.warning(
                "message holds unknown identifiers", variable=template.name, names=text.unknown
            )
        return text
