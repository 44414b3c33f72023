"""Fault 30: names that would hurt a shell, a log or a terminal, through a whole life."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.daemon import Daemons, eventually
from tests.site import Site

NAMES = {
    "shell": "x'; touch {trap}; $(touch {trap})",
    "line ends": "first\nsecond\r\n{{}}",
    "terminal": "\x1b[31mred\x1b]0;t\x07",
    "latin1": "Zoë Müller ©",  # VCL's tables hold no more
    "percent": "100% %s %(name)s {name}",
}
#: Where the web site puts what people have typed: table, column, longest text.
PLACES = (
    ("user", "unityid", 80),
    ("user", "firstname", 20),
    ("user", "lastname", 25),
    ("image", "prettyname", 60),
    ("imagerevision", "imagename", 60),
)


@pytest.mark.parametrize("kind", NAMES)
def test_fault_30_odd_names_go_through_a_whole_life_as_data(
    site: Site, daemons: Daemons, tmp_path: Path, kind: str
) -> None:
    trap = tmp_path / "trap"
    name = NAMES[kind].replace("{trap}", str(trap))
    ids = {"user": 101, "image": 2, "imagerevision": 21}
    with site.engine.begin() as c:
        for table, column, longest in PLACES:
            column_of = sa.table(table, sa.column("id"), sa.column(column))
            c.execute(
                sa.update(column_of)
                .where(column_of.c.id == ids[table])
                .values({column: name[:longest]})
            )
    daemon = daemons.start()

    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    shown = [daemon.command("status"), daemon.command("explain", str(request))]
    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)

    assert not trap.exists()
    for command in shown:
        assert command.returncode == 0
        assert "\x1b" not in command.stdout
        assert "\x07" not in command.stdout
    raw = daemon.log_path.read_bytes()
    assert raw.count(b"\n") == len(daemon.lines())
    assert b"\x1b" not in raw
    assert not daemon.events("worker failed by an unexpected error")
