"""The fixtures themselves: what a test has done to the database is undone for the next."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.mariadb import Server
from tests.seeded import SeededDatabase
from tests.site import Site
from vcld.schema import models as m


def test_reset_takes_out_new_rows_and_brings_back_changed_and_removed_ones(
    seeded: SeededDatabase, site: Site
) -> None:
    site.ask("new", 1)
    with site.engine.begin() as connection:
        connection.execute(sa.delete(m.Variable))
        connection.execute(sa.update(m.Image).where(m.Image.id == 1).values(prettyname="changed"))
    assert {"request", "variable", "image", "computer"} <= set(seeded.changed())

    seeded.reset()

    assert seeded.changed() == []


def test_database_is_usable_again_after_its_server_was_killed(
    restartable: Server, seeded: SeededDatabase, database: Engine
) -> None:
    with database.begin() as connection:
        connection.execute(sa.insert(m.State).values(name="kept"))

    restartable.kill()
    restartable.start()

    database.dispose()
    with database.begin() as connection:
        assert "kept" in set(connection.scalars(sa.select(m.State.name)))
    seeded.reset()
    assert seeded.changed() == []
