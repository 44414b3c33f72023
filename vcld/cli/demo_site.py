"""The web site and the users of the demonstration: they only write rows, as the real ones do."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from vcld.schema import models as m
from vcld.schema.engine import Connection, Database
from vcld.schema.sqltime import after_site_now, site_now
from vcld.store import durations, levers, requests
from vcld.store.catalog import Catalog, load_catalog

PEOPLE = ("ada", "grace", "edsger", "barbara", "donald", "radia", "ken", "frances")
ADDRESS = "198.51.100.7"
#: Time limits of the demonstration, in seconds.
TIMINGS = {
    "acknowledgetimeout": 8,
    "initialconnecttimeout": 20,
    "reconnecttimeout": 20,
    "general_end_notice_first": 6,
    "general_end_notice_second": 3,
}
#: What earlier loads would have taken, in seconds: the bars are right from the first one on.
EARLIER_LOADS = {"startload": 0.4, "transfervm": 2.5, "startvm": 0.4, "machinebooted": 2.0}
HOUR = 3600


class Site:
    """A small VCL site: one management node, eight virtual machines, two images."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._catalog: Catalog
        #: What each request shows, by its id.
        self.names: dict[int, str] = {}
        self._acts: list[tuple[float, Callable[[Connection], bool]]] = []
        self._connects: set[int] = set()

    def build(self) -> None:
        """Write the site's rows and the first requests."""
        self._catalog = self._database.run(load_catalog)
        self._database.run(self._build)

    def _build(self, c: Connection) -> None:
        states = self._catalog.state_id
        system = c.scalar(sa.select(m.OS.id).where(m.OS.name == "simulator"))
        provisioning = c.scalar(
            sa.select(m.Provisioning.id).where(m.Provisioning.name == "simulator")
        )
        for name, seconds in TIMINGS.items():
            c.execute(
                sa.update(m.Variable).where(m.Variable.name == name).values(value=str(seconds))
            )
        c.execute(
            sa.insert(m.ManagementNode).values(
                id=1, hostname="demo.example.org", IPaddress="192.0.2.1", ownerid=1,
                stateid=states("available"), checkininterval=5, availablenetworks="",
            )
        )  # fmt: skip
        for id_, name in enumerate(PEOPLE, start=11):
            c.execute(
                sa.insert(m.User).values(
                    id=id_, unityid=name, affiliationid=1, firstname=name.title(),
                    lastname="Demo", email=f"{name}@example.org", emailnotices=0,
                    lastupdated=site_now(),
                )
            )  # fmt: skip
        for image, name in ((2, "Linux"), (3, "Data science")):
            for revision in (1, 2) if image == 3 else (1,):
                if revision == 1:
                    c.execute(
                        sa.insert(m.Image).values(
                            id=image, name=f"simulator-{name.replace(' ', '')}{image}-v1",
                            prettyname=name, ownerid=11, OSid=system, lastupdate=site_now(),
                        )
                    )  # fmt: skip
                c.execute(
                    sa.insert(m.ImageRevision).values(
                        id=image * 10 + revision, imageid=image, revision=revision, userid=11,
                        datecreated=site_now(), deleted=0, production=int(revision == 1),
                        imagename=f"simulator-{name.replace(' ', '')}{image}-v{revision}",
                    )
                )  # fmt: skip
        for number in range(1, 9):
            c.execute(
                sa.insert(m.Computer).values(
                    id=number, hostname=f"vm{number}.example.org",
                    stateid=states("available"), IPaddress=f"192.0.2.{100 + number}",
                    privateIPaddress=f"10.0.0.{number}", type="virtualmachine", RAM=4096,
                    procnumber=2, provisioningid=provisioning, datedeleted=site_now(),
                )
            )  # fmt: skip
        for image in (2, 3):
            durations.remember(c, image, "simulator", EARLIER_LOADS)
        self._first_requests(c)

    def _first_requests(self, c: Connection) -> None:
        self._ask(c, "new", [1], "a user works and presses End", person=11)
        session = self._ask(c, "new", [2], "a user stays until the end", person=12, seconds=32)
        cancelled = self._ask(c, "new", [3], "cancelled while it is loaded", person=13)
        self._ask(c, "new", [4], "the load fails", person=14)
        cluster = self._ask(c, "new", [5, 6], "a cluster of two", person=15)
        making = self._ask(
            c, "new", [7], "an image is made of it", person=16, image=3, revision=31, imaging=True
        )
        absent = self._ask(c, "new", [8], "the user never connects", person=17, connects=False)
        self._ask(c, "new", [3], "later: starts tomorrow", person=18, start=24 * HOUR)
        first = min(self.names)
        self._acts = [
            (2.0, lambda c: self._cancel(c, cancelled)),
            (8.0, lambda c: self._set_state(c, session, "inuse", "rebootsoft")),
            (9.0, lambda c: self._capture(c, making)),
            (12.0, lambda c: self._end(c, first)),
            (14.0, lambda c: self._ask_later(c, "tomaintenance", [4], "put into maintenance")),
            (16.0, lambda c: self._end(c, cluster)),
            (
                20.0,
                lambda c: (
                    self._is_done(c, absent)
                    and self._ask_later(c, "reload", [8], "reloaded with another image", 31)
                ),
            ),
            (22.0, lambda c: self._ask_later(c, "new", [1], "the revision becomes production", 31)),
            (26.0, lambda c: self._ask_later(c, "imageprep", [5], "prepared for an image")),
            (28.0, self._make_production),
        ]

    def _ask(
        self,
        c: Connection,
        state: str,
        computers: list[int],
        name: str,
        *,
        person: int = 2,
        image: int = 2,
        revision: int = 21,
        start: int = 0,
        seconds: int = HOUR,
        connects: bool = True,
        imaging: bool = False,
    ) -> int:
        state_id = self._catalog.state_id(state)
        log = c.execute(
            sa.insert(m.Log).values(
                userid=person, start=site_now(), initialend=after_site_now(start + seconds),
                finalend=after_site_now(start + seconds), imageid=image,
            )
        ).inserted_primary_key  # fmt: skip
        assert log is not None
        made = c.execute(
            sa.insert(m.Request).values(
                stateid=state_id, laststateid=state_id, userid=person, logid=log[0],
                start=after_site_now(start), end=after_site_now(start + seconds),
                daterequested=site_now(), forimaging=int(imaging),
            )
        ).inserted_primary_key  # fmt: skip
        assert made is not None
        for computer in computers:
            c.execute(
                sa.insert(m.Reservation).values(
                    requestid=made[0], computerid=computer, imageid=image,
                    imagerevisionid=revision, managementnodeid=1, lastcheck=None,
                )
            )  # fmt: skip
        self.names[made[0]] = name
        if connects and state == "new":
            self._connects.add(made[0])
        return int(made[0])

    def _ask_later(
        self, c: Connection, state: str, computers: list[int], name: str, revision: int = 21
    ) -> bool:
        self._ask(c, state, computers, name, image=revision // 10, revision=revision,
                  person=18 if state == "new" else 2)  # fmt: skip
        return True

    def play(self, elapsed_seconds: float) -> None:
        """Do what users and the web site do at this moment."""
        self._database.run(self._press_connect)
        for act in list(self._acts):
            if elapsed_seconds >= act[0] and self._database.run(act[1]):
                self._acts.remove(act)

    def _press_connect(self, c: Connection) -> None:
        """Users press Connect when the web site offers it: the computer is reserved."""
        ready = (
            sa.select(m.Reservation.requestid)
            .join(m.Computer, m.Computer.id == m.Reservation.computerid)
            .join(m.State, m.State.id == m.Computer.stateid)
            .where(m.State.name == "reserved", m.Reservation.requestid.in_(self._connects))
        )
        for requestid in set(c.scalars(ready)):
            c.execute(
                sa.update(m.Reservation)
                .where(m.Reservation.requestid == requestid, m.Reservation.remoteIP.is_(None))
                .values(remoteIP=ADDRESS)
            )

    def is_over(self) -> bool:
        """True when nothing is left but the request of tomorrow."""
        if self._acts:
            return False
        waiting = self._database.run(
            lambda c: list(
                c.scalars(
                    sa.select(m.Request.id)
                    .join(m.State, m.State.id == m.Request.stateid)
                    .where(m.State.name.not_in(("complete", "failed")))
                )
            )
        )
        return all("later" in self.names.get(id_, "") for id_ in waiting)

    def _pair(self, c: Connection, requestid: int) -> tuple[str, str]:
        return requests.find_pair(c, requestid) or ("", "")

    def _is_done(self, c: Connection, requestid: int) -> bool:
        return self._pair(c, requestid)[0] in {"", "complete"}

    def _set_state(self, c: Connection, requestid: int, old: str, new: str) -> bool:
        """Ask for something else of a request in state ``old``, which a worker may hold."""
        pair = self._pair(c, requestid)
        if pair[0] != old and pair != ("pending", old):
            return pair[0] in {"", "timeout", "complete", "failed"}
        c.execute(
            sa.update(m.Request)
            .where(m.Request.id == requestid)
            .values(stateid=self._catalog.state_id(new), laststateid=self._catalog.state_id(old))
        )
        return True

    def _cancel(self, c: Connection, requestid: int) -> bool:
        if self._pair(c, requestid) == ("new", "new"):
            return False  # a slow machine: it is not being loaded yet
        levers.cancel(c, self._catalog, requestid)
        return True

    def _end(self, c: Connection, requestid: int) -> bool:
        if "inuse" not in self._pair(c, requestid):
            return False
        levers.cancel(c, self._catalog, requestid)
        return True

    def _capture(self, c: Connection, requestid: int) -> bool:
        """Create Image: the reservation gets the new revision, the request the state image."""
        if "inuse" not in self._pair(c, requestid):
            return False
        c.execute(
            sa.update(m.Reservation)
            .where(m.Reservation.requestid == requestid)
            .values(imagerevisionid=32)
        )
        return self._set_state(c, requestid, "inuse", "image")

    def _make_production(self, c: Connection) -> bool:
        requestid = next(id_ for id_, name in self.names.items() if "production" in name)
        return self._set_state(c, requestid, "inuse", "makeproduction")
