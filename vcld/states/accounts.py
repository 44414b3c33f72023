"""Who may log in to the reserved computer, and with what password."""

from __future__ import annotations

import secrets
import string

from vcld.schema.engine import Connection
from vcld.snapshot import Account
from vcld.states.work import Work
from vcld.store import reservations
from vcld.store.catalog import parse_count

#: Without the glyphs that people mistake for one another.
LETTERS = "".join(c for c in string.ascii_letters + string.digits if c not in "0O1lI5S2Z8B")
SPECIAL = "-+=@%^_"
DEFAULT_LENGTH = 6
#: ``reservation.pw`` has no place for more.
LONGEST = 40


def make_password(length: int, *, special: bool) -> str:
    """A random password of ``length`` characters; with ``special`` one is not alphanumeric."""
    length = min(max(length, DEFAULT_LENGTH), LONGEST)
    letters = [secrets.choice(LETTERS) for _ in range(length)]
    if special:
        letters[secrets.randbelow(length - 1) + 1] = secrets.choice(SPECIAL)
    return "".join(letters)


def prepare_accounts(work: Work) -> list[Account]:
    """Decide the accounts of the reservation and keep their passwords for the web site.

    Passwords that are already set are kept, so that a repeated run changes nothing. The
    owner's goes to ``reservation.pw``, the others' to ``reservationaccounts``.
    """
    reservation = work.reservation
    owner = reservation.request.user
    others = work.run(reservations.load_other_users, reservation)
    known = work.run(reservations.load_account_passwords, reservation.id) if others else {}
    password = None if owner.federated else reservation.pw or _new_password(work)
    accounts = [Account(user=owner, root_access=_owner_is_root(work), password=password)]
    for user, is_administrator in others:
        own = None if user.federated else known.get(user.id) or _new_password(work)
        root = is_administrator and reservation.image.meta.rootaccess
        accounts.append(Account(user=user, root_access=root, password=own))

    def keep(connection: Connection) -> None:
        if password and password != reservation.pw:
            reservations.set_password(connection, reservation.id, password)
        if others:
            passwords = {account.user.id: account.password for account in accounts[1:]}
            reservations.replace_accounts(connection, reservation.id, passwords)

    work.run(keep)
    return accounts


def known_accounts(work: Work) -> list[Account]:
    """The accounts that are there already, for taking them away; without passwords."""
    reservation = work.reservation
    others = work.run(reservations.load_other_users, reservation)
    gives_root = reservation.image.meta.rootaccess
    owner = Account(user=reservation.request.user, root_access=_owner_is_root(work))
    return [owner, *(Account(user=user, root_access=a and gives_root) for user, a in others)]


def _owner_is_root(work: Work) -> bool:
    reservation = work.reservation
    makes_image = (
        reservation.request.forimaging and reservation.image.ownerid == reservation.request.user.id
    )
    return reservation.image.meta.rootaccess or makes_image


def _new_password(work: Work) -> str:
    length = parse_count(work.catalog.variables.get("user_password_length"), LONGEST)
    special = work.catalog.variables.get("user_password_spchar", "").strip() == "1"
    return make_password(length or DEFAULT_LENGTH, special=special)
