"""What handlers send: to the user, to the administrators, to the owner of a block."""

from __future__ import annotations

from typing import Any

import structlog

from vcld.config import Settings
from vcld.messages import lookup
from vcld.messages.mail import Mail, Mailer
from vcld.messages.render import Rendered, render
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode, Reservation

#: Sent whatever the user says about mail (VCL daemon specification §8.5, §8.6).
ALWAYS_SENT = frozenset(
    {
        "production_imagerevision",
        "image_creation_success",
        "image_checkpoint_success",
        "image_creation_delayed",
    }
)


class Notices:
    """Sends the site's messages about a reservation."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._mailer = Mailer(settings)

    def user(self, reservation: Reservation, key: str, **added: str) -> str:
        """Send a message to the request's user.

        Users who want no mail get none; the site's shared mail box gets a copy all the same.

        Returns:
            The short text, for the computer's console.
        """
        user, node = reservation.request.user, reservation.managementnode
        names = lookup.user_names(key, user.affiliation.name)
        rendered = self._render(reservation, key, names, added)
        wanted = user.emailnotices or key in ALWAYS_SENT
        to = user.email if wanted else ""
        shared = node.sharedMailBox or ""
        if to or shared:
            self._mailer.send(
                Mail(
                    to=to or shared,
                    subject=rendered.subject,
                    body=rendered.message,
                    sender=user.affiliation.helpaddress or "",
                    copy_to=shared if to else "",
                )
            )
        return rendered.short_message

    def admins(self, reservation: Reservation, key: str, **added: str) -> None:
        """Send a message to the management node's administrators."""
        rendered = self._render(reservation, key, lookup.admin_names(key), added)
        self._to_admins(reservation.managementnode, rendered.subject, rendered.message)

    def block_owner(self, node: ManagementNode, block: Any, result: Any, *, short: bool) -> None:
        """Tell the owner of a block allocation how many computers were found."""
        subject = f"VCL Block allocation {'warning' if short else 'results'} for {block.name}"
        body = (
            f"Your block allocation {block.name} asks for {block.machines} computers.\n"
            f"{result.allocated} could be prepared.\n"
        )
        if result.message:
            body += f"\nThe web site says: {result.message}\n"
        self._mailer.send(
            Mail(
                to=block.owner_email,
                subject=subject,
                body=body,
                copy_to=node.sharedMailBox or "",
            )
        )
        if short:
            self._to_admins(node, subject, body)

    def _to_admins(self, node: ManagementNode, subject: str, body: str) -> None:
        if node.sysadminEmailAddress:
            self._mailer.send(
                Mail(
                    to=node.sysadminEmailAddress,
                    subject=subject,
                    body=body,
                    copy_to=node.sharedMailBox or "",
                )
            )

    def _render(
        self, reservation: Reservation, key: str, names: list[str], added: dict[str, str]
    ) -> Rendered:
        template = self._database.run(lambda c: lookup.find_template(c, names))
        rendered = render(template, reservation, added)
        if rendered.unknown:
            structlog.get_logger().warning(
                "message has identifiers that mean nothing",
                message=key,
                identifiers=list(rendered.unknown),
            )
        return rendered
