"""The rows that every VCL database starts with, and those of the simulated hardware.

Names and ids are VCL's; labels and the texts of messages are our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
import yaml
from sqlalchemy.engine import Connection

from vcld.schema import models as m
from vcld.schema import untyped
from vcld.schema.columns import Base
from vcld.schema.create import relaxed
from vcld.schema.sqltime import site_now
from vcld.site_yaml import dump_fields

assert untyped  # the tables without a class are in the metadata now

Row = Mapping[str, Any]


def seed(connection: Connection) -> None:
    """Fill an empty schema."""
    with relaxed(connection):
        _seed(connection)


def _seed(connection: Connection) -> None:
    data = yaml.load(_read("vcld.schema", "seed.yaml"), Loader=yaml.CSafeLoader)
    for table in ("state", "module", "platform", "OStype", "imagetype", "resourcetype", "vmtype",
                  "adminlevel", "affiliation"):  # fmt: skip
        _insert(connection, table, data[table])
    _insert(connection, "OSinstalltype", data["OSinstalltype"])
    for table in ("user", "schedule", "scheduletimes"):
        _insert(connection, table, data[table])
    modules = _ids(connection, m.Module.name, m.Module.id)
    _insert(
        connection,
        "provisioning",
        [
            {"name": row["name"], "prettyname": row["prettyname"],
             "moduleid": modules[row["module"]]}
            for row in data["provisioning"]
        ],
    )  # fmt: skip
    _insert(
        connection,
        "OS",
        [
            {**{key: value for key, value in row.items() if key != "module"},
             "moduleid": modules[row["module"]]}
            for row in data["OS"]
        ],
    )  # fmt: skip
    _seed_installtypes(connection, data["provisioningOSinstalltype"])
    _insert(connection, "computerloadstate", data["computerloadstate"])
    _seed_loadflow(connection, data["computerloadflow"])
    _insert(connection, "connectmethod", data["connectmethod"])
    _insert(connection, "connectmethodport", data["connectmethodport"])
    _insert(connection, "connectmethodmap", data["connectmethodmap"])
    _seed_groups(connection, data)
    _seed_noimage(connection)
    _seed_variables(connection, data["variable"])


def seed_simulator(connection: Connection) -> None:
    """Add the simulated hardware's modules, provisioning and operating system."""
    names = {"provisioning_simulator": "Simulated hardware", "os_simulator": "Simulated guest"}
    present = _ids(connection, m.Module.name, m.Module.id)
    _insert(
        connection,
        "module",
        [
            {"name": name, "prettyname": text, "description": f"{text} of vcld",
             "perlpackage": ""}
            for name, text in names.items()
            if name not in present
        ],
    )  # fmt: skip
    if "simulator" in _ids(connection, m.Provisioning.name, m.Provisioning.id):
        return
    modules = _ids(connection, m.Module.name, m.Module.id)
    _insert(
        connection,
        "provisioning",
        [{"name": "simulator", "prettyname": "Simulator",
          "moduleid": modules["provisioning_simulator"]}],
    )  # fmt: skip
    _insert(
        connection,
        "OS",
        [{"name": "simulator", "prettyname": "Simulated system", "type": "linux",
          "installtype": "none", "sourcepath": "simulator",
          "moduleid": modules["os_simulator"]}],
    )  # fmt: skip
    _seed_installtypes(connection, {"simulator": ["none"]})


def _insert(connection: Connection, table: str, rows: Iterable[Row]) -> None:
    rows = list(rows)
    if rows:
        connection.execute(sa.insert(Base.metadata.tables[table]), rows)


def _ids(connection: Connection, name: Any, id_: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(sa.select(name, id_))}


def _seed_installtypes(connection: Connection, pairs: Mapping[str, list[str]]) -> None:
    provisionings = _ids(connection, m.Provisioning.name, m.Provisioning.id)
    installtypes = _ids(connection, m.OSInstallType.name, m.OSInstallType.id)
    _insert(
        connection,
        "provisioningOSinstalltype",
        [
            {"provisioningid": provisionings[name], "OSinstalltypeid": installtypes[kind]}
            for name, kinds in pairs.items()
            for kind in kinds
        ],
    )


def _seed_loadflow(connection: Connection, rows: Iterable[Row]) -> None:
    ids = _ids(connection, m.ComputerLoadState.loadstatename, m.ComputerLoadState.id)
    _insert(
        connection,
        "computerloadflow",
        [
            {"computerloadstateid": ids[row["state"]],
             "nextstateid": None if row["next"] is None else ids[row["next"]],
             "type": row["type"]}
            for row in rows
        ],
    )  # fmt: skip


def _seed_groups(connection: Connection, data: Mapping[str, Any]) -> None:
    _insert(
        connection,
        "usergroup",
        [
            {"name": name, "affiliationid": 1, "ownerid": 1, "custom": 0, "courseroll": 0}
            for name in data["usergroup"]
        ],
    )
    owners = _ids(connection, m.UserGroup.name, m.UserGroup.id)
    types = _ids(connection, m.ResourceType.name, m.ResourceType.id)
    _insert(
        connection,
        "resourcegroup",
        [
            {"name": row["name"], "ownerusergroupid": owners[row["ownergroup"]],
             "resourcetypeid": types[row["type"]]}
            for row in data["resourcegroup"]
        ],
    )  # fmt: skip


def _seed_noimage(connection: Connection) -> None:
    """Image 1 stands for a computer that holds nothing; every computer starts with it."""
    systems = _ids(connection, m.OS.name, m.OS.id)
    _insert(
        connection,
        "image",
        [{"id": 1, "name": "noimage", "prettyname": "No image", "ownerid": 1,
          "OSid": systems["vmwarelinux"]}],
    )  # fmt: skip
    connection.execute(
        sa.insert(m.ImageRevision).values(
            id=1, imageid=1, revision=0, userid=1, datecreated=site_now(), deleted=0,
            production=1, imagename="noimage",
        )
    )  # fmt: skip


def _seed_variables(connection: Connection, rows: Iterable[Row]) -> None:
    messages = yaml.load(_read("vcld.messages", "defaults.yaml"), Loader=yaml.CSafeLoader)
    values = []
    for row in rows:
        value = row["value"]
        if value is None:
            value = dump_fields(messages[row["name"]])
        values.append(
            {"name": row["name"], "serialization": row["serialization"], "value": value,
             "setby": "vcld", "timestamp": site_now()}
        )  # fmt: skip
    for item in values:
        connection.execute(sa.insert(m.Variable).values(**item))


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
