"""Before the first fork: load and compile what every worker needs, so that none has to.

A statement that the parent has run once is compiled; the children inherit that. It is run for
a reservation that does not exist, in a transaction that is rolled back.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from vcld import guest, plugins, provisioning
from vcld.accounting.recorder import Recorder
from vcld.errors import ReservationChangedError, ReservationDataError, UnknownModuleError
from vcld.guest.interface import Guest
from vcld.processes import ProcessId
from vcld.provisioning.interface import Provisioner
from vcld.schema.engine import Connection, Database
from vcld.snapshot import ManagementNode
from vcld.states.table import STATES, find_handler
from vcld.store import (
    computers,
    grips,
    loadlog,
    modules,
    requests,
    reservations,
    snapshots,
    transitions,
)
from vcld.store.catalog import Catalog
from vcld.store.grips import ClaimLostError, Grip

#: A reservation id that no row has: the numbering starts at 1.
NOBODY = Grip(
    reservationid=0,
    requestid=0,
    computerid=0,
    state="new",
    laststate="new",
    token=0,
    attempts=0,
    memo={},
    is_parent=True,
    is_pending=True,
)


class _RolledBack(Exception):  # noqa: N818 - a signal to the transaction, not an error
    pass


def warm(database: Database, catalog: Catalog, node: ManagementNode, recorder: Recorder) -> None:
    """Load the handlers and the site's plugins, and compile the statements of workers."""
    for state in STATES:
        find_handler(state)
    for name in database.run(modules.provisioning_modules):
        _load("vcld.provisioning", provisioning.PROVISIONERS, name, Provisioner)
    for name in database.run(modules.guest_modules):
        _load("vcld.guest", guest.GUESTS, name, Guest)
    database.before_forks()
    with contextlib.suppress(_RolledBack):
        database.run(lambda connection: _rehearse(connection, catalog, node, recorder))


def _load(group: str, table: object, name: str, kind: type) -> None:
    # An unknown or broken plugin is told of by the reservation that needs it.
    with contextlib.suppress(UnknownModuleError):
        plugins.find_class(group, table, name, kind)  # type: ignore[arg-type]


def _rehearse(
    connection: Connection, catalog: Catalog, node: ManagementNode, recorder: Recorder
) -> None:
    process = ProcessId(1, 1)
    ending = transitions.Ending(
        request_state="reserved", computer_state="available", log_ending="none", logid=0
    )
    empty = dataclasses.replace(ending, computer_facts={**catalog.no_image, "vmhostid": None})
    grip, entry = NOBODY, ("info", "")
    steps: tuple[Callable[[], object], ...] = (
        lambda: grips.register(connection, grip, process, exclusive=True),
        lambda: grips.register(connection, grip, process, exclusive=False),
        lambda: snapshots.load_reservation(connection, grip, node, preload_only=False),
        lambda: requests.find_rivals(connection, 0, 0),
        lambda: requests.find_pair(connection, 0),
        lambda: grips.is_held(connection, grip),
        lambda: grips.save_memo(connection, grip, {"a": 1}),
        lambda: grips.park(connection, grip, seconds=1, wake_on=None, memo={}, reason=""),
        lambda: computers.set_own_state(connection, catalog, grip, "reloading"),
        lambda: loadlog.add(connection, catalog, 0, 0, [entry], token=0),
        lambda: loadlog.add(connection, catalog, 0, 0, [entry] * 3, token=0),
        lambda: computers.write(connection, catalog, 0, catalog.no_image),
        lambda: loadlog.read(connection, [0]),
        lambda: loadlog.delete(connection, catalog, [0], ["begin"]),
        lambda: loadlog.delete(connection, catalog, [0]),
        lambda: reservations.find_remote_ip(connection, 0),
        lambda: reservations.set_password(connection, 0, ""),
        lambda: reservations.log_loaded(connection, 0),
        lambda: reservations.log_address(connection, 0, 0, ""),
        lambda: reservations.touch(connection, [0]),
        lambda: transitions.finish(connection, catalog, grip, ending),
        lambda: transitions.rehearse(connection, catalog, grip, ending),
        lambda: transitions.rehearse(connection, catalog, grip, empty),
        lambda: recorder.rehearse(connection),
    )
    for step in steps:
        with contextlib.suppress(ClaimLostError, ReservationChangedError, ReservationDataError):
            step()
    raise _RolledBack
