"""Process titles in the form that VCL's own tools look for (VCL daemon specification §5)."""

from __future__ import annotations

import os

import setproctitle

from vcld.snapshot import Reservation
from vcld.store import requests
from vcld.store.grips import Grip


def set_title(processname: str, grip: Grip, reservation: Reservation | None = None) -> None:
    """Name this process after its work; with the reservation once it is known."""
    title = f"{processname} '|{os.getpid()}|{grip.requestid}|{grip.reservationid}|{grip.state}|'"
    if reservation is not None:
        title += f" {_describe(reservation)}"
    setproctitle.setproctitle(title)


def _describe(reservation: Reservation) -> str:
    computer, request = reservation.computer, reservation.request
    host = f">{computer.vmhost.hostname.partition('.')[0]}" if computer.vmhost else ""
    parts = [f"{computer.shortname}{host}", reservation.image.name]
    if request.user.unityid != requests.RELOAD_USER:
        parts.append(request.user.unityid)
    if request.forimaging:
        parts.append("(imaging)")
    if reservation.is_cluster:
        parts.append("(cluster=parent)" if reservation.is_parent else "(cluster=child)")
    return " ".join(parts)
