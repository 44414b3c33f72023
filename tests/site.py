"""A VCL site for tests: rows as the web site, an operator or a Perl daemon would write them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from vcld.errors import NotFoundError, VcldError
from vcld.guest.simulated_world import World
from vcld.schema import models as m
from vcld.schema.engine import Database
from vcld.schema.own import Claim
from vcld.schema.sqltime import after_site_now, site_now
from vcld.store import levers, loadlog, requests
from vcld.store.catalog import Catalog, load_catalog

HOUR = 3600
USER = 101
IMAGE, OTHER_IMAGE = 2, 3
REVISION, NEW_REVISION, OTHER_REVISION = 21, 22, 31
ADDRESS = "198.51.100.7"


@dataclass
class Site:
    """One database, one folder of simulated hardware."""

    engine: Engine
    folder: Path
    nodes: tuple[str, ...] = ("node1.example.org",)
    computers: int = 10
    script: dict[str, Any] = field(default_factory=dict)
    _logs: dict[int, int] = field(default_factory=dict, init=False)

    def build(self) -> Site:
        with self.engine.begin() as connection:
            self.catalog: Catalog = load_catalog(connection)
            self._build(connection)
        self.write_script()
        return self

    @property
    def script_path(self) -> Path:
        return self.folder / "simulator.json"

    def write_script(self, **script: Any) -> None:
        """Say what the simulated hardware does from now on."""
        self.script.update(script)
        self.script.setdefault("state_dir", str(self.folder / "hardware"))
        self.script_path.write_text(json.dumps(self.script), encoding="utf-8")

    @property
    def world(self) -> World:
        return World(str(self.script_path))

    def _build(self, c: Connection) -> None:
        state = self.catalog.state_id
        system = c.scalar(sa.select(m.OS.id).where(m.OS.name == "simulator"))
        provisioning = c.scalar(
            sa.select(m.Provisioning.id).where(m.Provisioning.name == "simulator")
        )
        for id_, name in enumerate(self.nodes, start=1):
            c.execute(
                sa.insert(m.ManagementNode).values(
                    id=id_,
                    hostname=name,
                    IPaddress=f"192.0.2.{id_}",
                    ownerid=1,
                    stateid=state("available"),
                    checkininterval=1,
                    availablenetworks="",
                    lastcheckin=site_now(),
                )
            )
        c.execute(
            sa.insert(m.User).values(
                id=USER,
                unityid="ada@Local",
                affiliationid=1,
                firstname="Ada",
                lastname="Test",
                email="ada@example.org",
                emailnotices=0,
                lastupdated=site_now(),
            )
        )
        for image, name, revisions in (
            (IMAGE, "first", (REVISION, NEW_REVISION)),
            (OTHER_IMAGE, "second", (OTHER_REVISION,)),
        ):
            c.execute(
                sa.insert(m.Image).values(
                    id=image,
                    name=f"simulator-{name}-v1",
                    prettyname=f"The {name}",
                    ownerid=USER,
                    OSid=system,
                    lastupdate=site_now(),
                )
            )
            for number, id_ in enumerate(revisions, start=1):
                c.execute(
                    sa.insert(m.ImageRevision).values(
                        id=id_,
                        imageid=image,
                        revision=number,
                        userid=USER,
                        datecreated=site_now(),
                        deleted=0,
                        production=int(number == 1),
                        imagename=f"simulator-{name}-v{number}",
                    )
                )
        rows = [
            {
                "id": number,
                "hostname": f"vm{number}.example.org",
                "stateid": state("available"),
                "IPaddress": "192.0.2.99",
                "privateIPaddress": "10.0.0.1",
                "type": "virtualmachine",
                "RAM": 4096,
                "procnumber": 2,
                "provisioningid": provisioning,
                "datedeleted": "2000-01-01 00:00:00",
            }
            for number in range(1, self.computers + 1)
        ]
        table = sa.table("computer", *(sa.column(name) for name in rows[0]))
        c.execute(sa.insert(table), rows)

    def let_every_node_manage_all(self) -> None:
        """What a site says with its resource groups; without it nobody takes over."""
        with self.engine.begin() as c:
            rows = c.execute(sa.select(m.ResourceType.name, m.ResourceType.id))
            types = {name: id_ for name, id_ in rows}
            groups = {}
            for kind in ("managementnode", "computer"):
                made = c.execute(
                    sa.insert(m.ResourceGroup).values(
                        name=f"all of type {kind}", ownerusergroupid=1, resourcetypeid=types[kind]
                    )
                ).inserted_primary_key
                assert made is not None
                groups[kind] = made[0]
            members = [("managementnode", n + 1) for n in range(len(self.nodes))]
            members += [("computer", n + 1) for n in range(self.computers)]
            for kind, subid in members:
                resource = c.execute(
                    sa.insert(m.Resource).values(resourcetypeid=types[kind], subid=subid)
                ).inserted_primary_key
                assert resource is not None
                c.execute(
                    sa.insert(m.ResourceGroupMember).values(
                        resourceid=resource[0], resourcegroupid=groups[kind]
                    )
                )
            c.execute(
                sa.insert(m.ResourceMap).values(
                    resourcegroupid1=groups["managementnode"],
                    resourcegroupid2=groups["computer"],
                    resourcetypeid1=types["managementnode"],
                    resourcetypeid2=types["computer"],
                )
            )

    def variable(self, name: str, value: object) -> None:
        with self.engine.begin() as c:
            c.execute(sa.delete(m.Variable).where(m.Variable.name == name))
            c.execute(
                sa.insert(m.Variable).values(name=name, value=str(value), timestamp=site_now())
            )

    def ask(
        self,
        state: str,
        *computers: int,
        laststate: str | None = None,
        start: int = 0,
        seconds: int = HOUR,
        image: int = IMAGE,
        revision: int = REVISION,
        user: int = USER,
        node: int = 1,
        **more: Any,
    ) -> int:
        """Insert a request; return its id."""
        with self.engine.begin() as c:
            log = c.execute(
                sa.insert(m.Log).values(
                    userid=user,
                    start=after_site_now(start),
                    initialend=after_site_now(start + seconds),
                    finalend=after_site_now(start + seconds),
                    imageid=image,
                )
            ).inserted_primary_key
            assert log is not None
            made = c.execute(
                sa.insert(m.Request).values(
                    stateid=self.catalog.state_id(state),
                    laststateid=self.catalog.state_id(laststate or state),
                    userid=user,
                    logid=log[0],
                    start=after_site_now(start),
                    end=after_site_now(start + seconds),
                    daterequested=site_now(),
                    **more,
                )
            ).inserted_primary_key
            assert made is not None
            self._logs[int(made[0])] = int(log[0])
            for computer in computers or (1,):
                c.execute(
                    sa.insert(m.Reservation).values(
                        requestid=made[0],
                        computerid=computer,
                        imageid=image,
                        imagerevisionid=revision,
                        managementnodeid=node,
                        lastcheck=None,
                    )
                )
            return int(made[0])

    def pair(self, requestid: int) -> str:
        """``state/laststate``, or ``gone``."""
        with self.engine.begin() as c:
            pair = requests.find_pair(c, requestid)
        return "/".join(pair) if pair else "gone"

    def computer(self, computerid: int) -> str:
        """The state of a computer."""
        with self.engine.begin() as c:
            name = c.scalar(
                sa.select(m.State.name)
                .join(m.Computer, m.Computer.stateid == m.State.id)
                .where(m.Computer.id == computerid)
            )
        return str(name)

    def set_computer(self, computerid: int, state: str) -> None:
        self._write(
            sa.update(m.Computer)
            .where(m.Computer.id == computerid)
            .values(stateid=self.catalog.state_id(state))
        )

    def set_state(self, requestid: int, state: str, laststate: str | None = None) -> None:
        """What the web site, or an operator's hand, does."""
        values = {"stateid": self.catalog.state_id(state)}
        if laststate is not None:
            values["laststateid"] = self.catalog.state_id(laststate)
        self._write(sa.update(m.Request).where(m.Request.id == requestid).values(values))

    def connect(self, requestid: int) -> None:
        """The user presses Connect."""
        self._write(
            sa.update(m.Reservation)
            .where(m.Reservation.requestid == requestid)
            .values(remoteIP=ADDRESS)
        )

    def end(self, requestid: int) -> None:
        """The user presses End, again if the request changes under the finger."""
        for _ in range(50):
            try:
                with self.engine.begin() as c:
                    levers.cancel(c, self.catalog, requestid)
            except NotFoundError:
                return
            except VcldError:
                pair = self.pair(requestid)
                if pair.startswith(("complete/", "failed/", "deleted/")):
                    return
                if "image" in pair or "checkpoint" in pair or pair.startswith("maintenance/"):
                    return  # it ends by itself, or waits for an administrator
            else:
                return
        raise AssertionError(f"request {requestid} cannot be ended")

    def delete(self, requestid: int) -> None:
        """The row vanishes."""
        self._write(sa.delete(m.Request).where(m.Request.id == requestid))

    def reservations(self, requestid: int) -> list[int]:
        with self.engine.begin() as c:
            return list(
                c.scalars(
                    sa.select(m.Reservation.id)
                    .where(m.Reservation.requestid == requestid)
                    .order_by(m.Reservation.id)
                )
            )

    def load_log(self, requestid: int) -> list[tuple[str, str]]:
        """(load state, text) of all reservations of the request, oldest first."""
        ids = self.reservations(requestid) or [0]
        with self.engine.begin() as c:
            rows = loadlog.read(c, ids)
        return [(row.name, row.text) for row in rows]

    def steps(self, requestid: int) -> list[str]:
        return [name for name, _ in self.load_log(requestid)]

    def ending(self, requestid: int) -> str:
        """``log.ending`` of a request that ``ask`` made, though it be gone."""
        with self.engine.begin() as c:
            ending = sa.select(m.Log.ending).where(m.Log.id == self._logs[requestid])
            return str(c.scalar(ending))

    def claims(self) -> list[Any]:
        with self.engine.begin() as c:
            return list(c.execute(sa.select(Claim).order_by(Claim.reservationid)))

    def scalar(self, sql: str) -> Any:
        with self.engine.begin() as c:
            return c.exec_driver_sql(sql).scalar()

    def _write(self, statement: sa.Executable) -> None:
        """Again after a deadlock with the daemon, as the web site's user would."""
        Database(self.engine).run(lambda c: c.execute(statement))

    def execute(self, sql: str) -> int:
        """Run a statement; again after a deadlock with the daemon, as a person would."""
        return Database(self.engine).run(lambda c: c.exec_driver_sql(sql).rowcount)
