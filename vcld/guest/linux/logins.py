"""Which names can be accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcld.errors import Blame, RemoteError
from vcld.snapshot import Account

#: What useradd takes on every Linux, and a few signs that most take and people have.
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


def check_login(name: str) -> str:
    """The name, if it can be an account's.

    Raises:
        RemoteError: it cannot; nobody's computer is at fault.
    """
    if not _NAME.fullmatch(name):
        msg = f"user {name[:40]!r} can have no account on Linux: the name has signs that none may"
        raise RemoteError(msg, blame=Blame.NOBODY)
    return name


def check_password(password: str | None) -> str:
    """The password as ``chpasswd`` takes it: a line; empty for none.

    Raises:
        RemoteError: it is more than a line.
    """
    if password and ("\n" in password or "\r" in password or "\0" in password):
        raise RemoteError("a password holds the end of a line", blame=Blame.NOBODY)
    return password or ""


def public_keys(account: Account) -> str:
    """The keys the user wants to log in with, a line each; empty for none."""
    user = account.user
    if not user.usepublickeys or not user.sshpublickeys:
        return ""
    lines = (line.strip() for line in user.sshpublickeys.replace("\0", "").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def names(accounts: Sequence[Account]) -> list[str]:
    """Their checked login names."""
    return [check_login(account.user.login) for account in accounts]
