"""What a worker may do with the claim it holds; every write names the claim's token.

The statements are built once, in the supervisor, and inherited by its children: building one
costs a worker more than running it.
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.processes import ProcessId
from vcld.schema.models import Reservation
from vcld.schema.own import Claim
from vcld.schema.sqltime import after_utc_now
from vcld.store import texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Grip:
    """A worker's hold on its reservation: what its writes are checked against."""

    reservationid: int
    requestid: int
    computerid: int
    #: The request's pair when it was claimed; ``state`` is what the worker works on.
    state: str
    laststate: str
    token: int
    attempts: int
    #: What an earlier run of the handler left, by name.
    memo: Mapping[str, Any]
    is_parent: bool
    #: True once the request is ``pending`` by this claim (not yet for a split cluster).
    is_pending: bool

    @property
    def key(self) -> dict[str, int]:
        """Values for the parameters of ``OWNED``."""
        return {"own_reservationid": self.reservationid, "own_token": self.token}


class ClaimLostError(Exception):
    """Somebody else was faster or the rows changed. Not a failure; look again."""


#: The claim is still that of the grip whose ``key`` is given as parameters.
OWNED = (
    Claim.reservationid == sa.bindparam("own_reservationid", type_=sa.Integer()),
    Claim.token == sa.bindparam("own_token", type_=sa.BigInteger()),
)
#: And nobody wants it back.
HELD = (*OWNED, Claim.revoked == sa.literal_column("0"))


def register(connection: Connection, grip: Grip, process: ProcessId, *, exclusive: bool) -> bool:
    """Note which process works on the claim, and take its computer for it alone if asked.

    Returns:
        False when another worker has the computer; the claim itself is then registered.

    Raises:
        ClaimLostError: the claim is no longer this worker's: it must end without a trace.
    """
    values: dict[str, Any] = {"pid": process.pid, "pid_started": process.started}
    taken: dict[str, Any] = {"exclusive_computerid": grip.computerid} if exclusive else {}
    has_computer = True
    try:
        done = _update(connection, grip, **values, **taken)
    except IntegrityError:  # undoes the one statement, not the transaction
        has_computer = False
        done = _update(connection, grip, **values)
    if not done:
        raise ClaimLostError
    return has_computer


def take_computer(connection: Connection, grip: Grip) -> bool:
    """Take the computer for this worker alone; False when another worker has it."""
    try:
        return _update(connection, grip, exclusive_computerid=grip.computerid, reason=None)
    except IntegrityError:
        return False


def leave_computer(connection: Connection, grip: Grip) -> None:
    """Let another worker change the computer; the claim stays."""
    _update(connection, grip, even_revoked=True, exclusive_computerid=None)


def is_held(connection: Connection, grip: Grip) -> bool:
    """True while the claim is this worker's, and its reservation is there, on its computer."""
    return connection.scalar(_find_token(), grip.key) is not None


def save_memo(connection: Connection, grip: Grip, memo: Mapping[str, Any]) -> bool:
    """Keep what a later run of the handler must know. False when the claim is lost."""
    return _update(connection, grip, memo=json.dumps(dict(memo)))


def note(connection: Connection, grip: Grip, reason: str) -> bool:
    """Write what the worker is about. False when the claim is lost or revoked."""
    return _update(connection, grip, reason=reason[:255])


def release(connection: Connection, grip: Grip) -> bool:
    """Let go of the claim. False when it was not ours any more."""
    return connection.execute(_delete(), grip.key).rowcount == 1


def park(
    connection: Connection,
    grip: Grip,
    *,
    seconds: float,
    wake_on: str | None,
    memo: Mapping[str, Any],
    reason: str,
) -> bool:
    """Let the claim wait without a process. False when it was not ours any more."""
    return _update(
        connection,
        grip,
        **_let_go("waiting", seconds, reason),
        wake_on=wake_on,
        memo=json.dumps(dict(memo)),
        attempts=0,
    )


def postpone(
    connection: Connection, grip: Grip, *, attempts: int, seconds: float, reason: str
) -> bool:
    """Keep the claim for another attempt after some time. False when it was not ours."""
    return _update(
        connection,
        grip,
        even_revoked=True,
        **_let_go("retry", seconds, reason),
        wake_on=None,
        attempts=attempts,
    )


def _let_go(phase: str, seconds: float, reason: str) -> dict[str, Any]:
    """The claim stays, without a process, until it is due again."""
    return {
        "token": secrets.randbits(32),
        "phase": phase,
        "pid": None,
        "pid_started": None,
        "exclusive_computerid": None,
        "next_at": int(seconds),
        "reason": reason[:255],
    }


def fence(connection: Connection, grip: Grip) -> Grip | None:
    """Draw a new token, so that whoever held the claim can write no more.

    Returns:
        The grip with the new token, None when the claim is gone.
    """
    token = secrets.randbits(32)
    done = _update(connection, grip, even_revoked=True, token=token)
    return replace(grip, token=token) if done else None


def adopt(connection: Connection, grip: Grip, daemon: str) -> None:
    """Note that a worker of an earlier daemon is ours now."""
    _update(connection, grip, even_revoked=True, daemon=daemon)


def _update(
    connection: Connection, grip: Grip, *, even_revoked: bool = False, **values: object
) -> bool:
    """Set columns of the claim; ``next_at`` is given in seconds from now."""
    statement = _update_statement(even_revoked, *values)
    parameters = {f"to_{name}": value for name, value in values.items()}
    return texts.execute(connection, statement, {**grip.key, **parameters}).rowcount == 1


@functools.cache
def _update_statement(even_revoked: bool, *names: str) -> sa.Update:
    values: dict[str, Any] = {
        name: sa.bindparam(f"to_{name}", type_=Claim.__table__.c[name].type) for name in names
    }
    if "next_at" in values:
        values["next_at"] = after_utc_now(sa.bindparam("to_next_at", type_=sa.Integer()))
    return sa.update(Claim).where(*(OWNED if even_revoked else HELD)).values(values)


@functools.cache
def _delete() -> sa.Delete:
    return sa.delete(Claim).where(*OWNED)


@functools.cache
def _find_token() -> sa.Select[int]:
    there = sa.exists().where(
        Reservation.id == Claim.reservationid, Reservation.computerid == Claim.computerid
    )
    return sa.select(Claim.token).where(*HELD, there)
