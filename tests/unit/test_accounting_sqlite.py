"""The accounting on the embedded database: what is its own.

Everything else is tested on both databases by tests/integration/test_accounting_*.py.
"""

from __future__ import annotations

import pytest

from tests.accounts import Accounts
from tests.daemon import Daemon
from tests.site import Site

BACKENDS = ("sqlite",)


@pytest.mark.parametrize(
    "command",
    [
        ("accounting", "install"),
        ("accounting", "check"),
        ("accounting", "report"),
        ("accounting", "rebuild"),
        ("accounting", "copy", "copy.sqlite"),
        ("run",),
    ],
    ids=" ".join,
)
def test_other_schema_is_refused_in_one_line(
    site: Site, database_url: str, command: tuple[str, ...]
) -> None:
    told = Daemon(site, database_url, accounting_database="other").command(*command)

    assert told.returncode == 78, told.stderr
    assert "leave the key empty" in told.stderr
    assert "Traceback" not in told.stderr


def test_columns_have_the_types_of_the_seed(accounts: Accounts) -> None:
    with accounts.engine.begin() as c:
        found = c.exec_driver_sql("SELECT name, type, pk FROM pragma_table_info('history')").all()

    types = {name: type_.upper() for name, type_, _ in found}
    assert types.pop("host_name") == types.pop("vm_dir") == "TEXT"
    assert types.pop("vm_mad") == types.pop("tm_mad") == "TEXT"
    assert set(types.values()) == {"INTEGER"}
    assert {name: pk for name, _, pk in found if pk} == {"vid": 1, "seq": 2}


def test_copy_onto_itself_is_refused(site: Site, accounts: Accounts, database_url: str) -> None:
    accounts.put_base()

    told = Daemon(site, database_url).command(
        "accounting", "copy", database_url.removeprefix("sqlite:///")
    )

    assert told.returncode == 2
    assert "holds the accounting itself" in told.stderr
