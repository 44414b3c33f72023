"""Names and ids that differ between sites, read once and inherited by every worker.

State, load state and module ids are not the same everywhere: resolve by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import SchemaError
from vcld.schema.models import ComputerLoadState, Image, ImageRevision, State, Variable

#: Built-in values of the timings, in seconds (``ignore_connections_gte``: minutes);
#: VCL daemon specification §11.2.
TIMINGS: Mapping[str, int] = {
    "acknowledgetimeout": 900,
    "initialconnecttimeout": 900,
    "reconnecttimeout": 900,
    "general_end_notice_first": 600,
    "general_end_notice_second": 300,
    "ignore_connections_gte": 1440,
    "general_inuse_check": 300,
    "server_inuse_check": 300,
    "cluster_inuse_check": 300,
}
_UNITS: Mapping[str, str] = {"ignore_connections_gte": "minutes"}


#: A longer time limit counts as this long: more would overflow the database's datetimes.
LONGEST_SECONDS = 366 * 86400
#: Likewise for notices before the end: they are given in full, even by a daemon that is late.
LONGEST_NOTICE_SECONDS = 86400
_NOTICES = frozenset({"general_end_notice_first", "general_end_notice_second"})


#: image.name of the image that a computer without one has.
NO_IMAGE = "noimage"


def parse_count(text: str | None, most: int) -> int | None:
    """A number that a person wrote, ``most`` if it is greater; None for nonsense."""
    digits = (text or "").strip()
    if not digits.isdecimal():
        return None
    return most if len(digits) > len(str(most)) + 10 else min(int(digits), most)


@dataclass(frozen=True)
class Catalog:
    """States, load states and variables as of one moment."""

    state_ids: Mapping[str, int]
    loadstate_ids: Mapping[str, int]
    variables: Mapping[str, str]
    #: Columns of a computer that holds nothing; empty where the site has no such image.
    no_image: Mapping[str, int]

    @property
    def state_names(self) -> Mapping[int, str]:
        return {id_: name for name, id_ in self.state_ids.items()}

    def state_id(self, name: str) -> int:
        """The id of a state.

        Raises:
            SchemaError: the site's ``state`` table has no such row.
        """
        try:
            return self.state_ids[name]
        except KeyError:
            msg = f"the state table has no row {name!r}; see 'vcld db check'"
            raise SchemaError(msg) from None

    def loadstate_id(self, name: str) -> int:
        """The id of a load state; that of ``info`` where the site lacks the row.

        Raises:
            SchemaError: the site's ``computerloadstate`` table has neither.
        """
        found = self.loadstate_ids.get(name, self.loadstate_ids.get("info"))
        if found is None:
            msg = f"the computerloadstate table has no row {name!r}; see 'vcld db check'"
            raise SchemaError(msg)
        return found

    def states(self, names: Iterable[str]) -> list[int]:
        """Ids of those of the named states that the site has."""
        return [self.state_ids[name] for name in names if name in self.state_ids]

    def timing(self, name: str, affiliation: str | None = None) -> int:
        """A time limit of the site: for the affiliation, else for all, else built in.

        0 and nonsense count as not set (VCL daemon specification §11.2), what is too long
        as the longest that can be.
        """
        longest = LONGEST_NOTICE_SECONDS if name in _NOTICES else LONGEST_SECONDS
        for key in (f"{name}|{affiliation}", name):
            value = parse_count(self.variables.get(key), longest)
            if value:
                return value
        return TIMINGS[name]

    def odd_timings(self) -> list[str]:
        """Time limits of the site that are nonsense, and so count as not set; a sentence each."""
        return [
            f"variable {key}: {value!r} is no number of {_UNITS.get(name, 'seconds')}: as if it"
            f" were not set (built in: {TIMINGS[name]})"
            for key, value in sorted(self.variables.items())
            if (name := key.partition("|")[0]) in TIMINGS
            and parse_count(value, LONGEST_SECONDS) is None
        ]


def load_catalog(connection: Connection) -> Catalog:
    """Read the names anew. Message texts are left out: they are looked up when one is sent."""
    states = connection.execute(sa.select(State.name, State.id))
    loadstates = connection.execute(
        sa.select(ComputerLoadState.loadstatename, ComputerLoadState.id)
    )
    return Catalog(
        {name: id_ for name, id_ in states},
        {name: id_ for name, id_ in loadstates},
        load_variables(connection),
        _load_no_image(connection),
    )


def _load_no_image(connection: Connection) -> dict[str, int]:
    row = connection.execute(
        sa.select(Image.id, ImageRevision.id)
        .join(ImageRevision, ImageRevision.imageid == Image.id)
        .where(Image.name == NO_IMAGE)
        .order_by(ImageRevision.id)
        .limit(1)
    ).one_or_none()
    return {} if row is None else {"currentimageid": row[0], "imagerevisionid": row[1]}


def load_variables(connection: Connection) -> dict[str, str]:
    """The site's variables by name, without the texts of messages."""
    query = sa.select(Variable.name, Variable.value).where(
        Variable.name.not_like("usermessage|%"), Variable.name.not_like("adminmessage|%")
    )
    return {name: value for name, value in connection.execute(query)}
