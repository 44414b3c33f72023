"""Who gets which message, with a real database and a real SMTP server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from tests.post_office import PostOffice
from tests.samples import make_node, make_reservation, make_user
from vcld.config import Settings
from vcld.messages.notices import Notices
from vcld.schema.columns import Base
from vcld.schema.engine import Database, make_engine
from vcld.schema.models import Variable
from vcld.schema.sqltime import site_now


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice.open() as post_office:
        yield post_office


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[Database]:
    """A database with nothing but an empty ``variable`` table."""
    engine = make_engine(f"sqlite:///{tmp_path / 'vcl.db'}")
    Base.metadata.create_all(engine, tables=[Base.metadata.tables["variable"]])
    yield Database(engine)
    engine.dispose()


@pytest.fixture
def settings(office: PostOffice) -> Settings:
    return Settings(smtp_server="127.0.0.1", smtp_port=office.port, fqdn="mn1.example.edu")


@pytest.fixture
def notices(settings: Settings, variables: Database) -> Notices:
    return Notices(settings, variables)


def save(database: Database, name: str, value: str) -> None:
    row = {"name": name, "serialization": "yaml", "value": value, "timestamp": site_now()}
    database.run(lambda connection: connection.execute(sa.insert(Variable).values(**row)))


@dataclass
class Block:
    name: str = "Physics 101"
    owner_email: str = "teacher@example.edu"
    machines: int = 20


@dataclass
class Allocation:
    allocated: int
    errormsg: str = ""
    warningmsg: str = ""


def test_a_user_who_wants_mail_gets_it_from_the_affiliations_help_desk(
    office: PostOffice, notices: Notices
) -> None:
    short = notices.user(make_reservation(), "reserved", acknowledge_minutes="15")

    mail = office.mail()
    assert mail["To"] == "maria@example.edu"
    assert mail["From"] == "help@physics.example.edu"
    assert mail["Subject"] == "Your computer is ready: Linux with tools"
    assert "Hello Maria," in mail.get_content()
    assert "15 minutes" in mail.get_content()
    assert office.envelopes[0].rcpt_tos == ["maria@example.edu", "box@example.edu"]
    assert short.startswith("Your computer with Linux with tools is ready.")


@pytest.mark.parametrize("key", ["reserved", "endtime_imminent", "timeout_inactivity"])
def test_of_a_user_who_wants_no_mail_only_the_shared_mail_box_hears(
    office: PostOffice, notices: Notices, key: str
) -> None:
    reservation = make_reservation(user=make_user(emailnotices=False))

    short = notices.user(reservation, key, notice_interval="5 minutes")

    assert [envelope.rcpt_tos for envelope in office.envelopes] == [["box@example.edu"]]
    assert short


def test_without_mail_wishes_and_shared_mail_box_nothing_is_sent(
    office: PostOffice, notices: Notices
) -> None:
    reservation = make_reservation(
        user=make_user(emailnotices=False), node=make_node(sharedMailBox=None)
    )

    assert notices.user(reservation, "timeout_inactivity")
    assert office.envelopes == []


@pytest.mark.parametrize(
    "key",
    [
        "image_creation_success",
        "image_checkpoint_success",
        "image_creation_delayed",
        "production_imagerevision",
    ],
)
def test_news_of_an_image_always_goes_to_its_owner(
    office: PostOffice, notices: Notices, key: str
) -> None:
    notices.user(make_reservation(user=make_user(emailnotices=False)), key)

    assert office.mail()["To"] == "maria@example.edu"


def test_administrators_get_their_message(office: PostOffice, notices: Notices) -> None:
    notices.admins(make_reservation(state="checkpoint"), "image_creation_started")

    mail = office.mail()
    assert mail["To"] == "admins@example.edu"
    assert mail["Subject"] == "Image checkpoint begins: vmwarelinux-base9-v3"
    assert "mmuster@example.edu@Physics, id 21" in mail.get_content()


def test_the_text_of_the_users_affiliation_is_found_with_one_query(
    office: PostOffice, notices: Notices, variables: Database
) -> None:
    save(variables, "usermessage|reserved|Physics", "{subject: Hi, message: '[user_id]'}")
    save(variables, "usermessage|reserved|Global", "{subject: no, message: no}")
    statements: list[str] = []
    sa.event.listen(
        variables.engine,
        "before_cursor_execute",
        lambda *details: statements.append(details[2]),
    )

    with structlog.testing.capture_logs() as logs:
        short = notices.user(make_reservation(), "reserved")

    assert (office.mail()["Subject"], office.mail().get_content().strip(), short) == (
        "Hi",
        "21",
        "21",
    )
    assert len([line for line in statements if line.startswith("SELECT")]) == 1
    assert "message has no short form, all of it is shown" in {line["event"] for line in logs}


def test_a_broken_text_of_the_site_is_replaced_by_ours(
    office: PostOffice, notices: Notices, variables: Database
) -> None:
    save(variables, "usermessage|reserved|Global", "subject: [")

    notices.user(make_reservation(), "reserved", acknowledge_minutes="15")

    assert office.mail()["Subject"] == "Your computer is ready: Linux with tools"


def test_unknown_identifiers_are_told_of_in_one_line(
    office: PostOffice, notices: Notices, variables: Database
) -> None:
    save(
        variables,
        "usermessage|reserved|Global",
        "{subject: s, message: '[one_x] [two_x] [one_x]', short_message: '[two_x]'}",
    )

    with structlog.testing.capture_logs() as logs:
        notices.user(make_reservation(), "reserved")

    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [line["names"] for line in warnings] == [("one_x", "two_x")]
    assert office.mail().get_content().strip() == "[one_x] [two_x] [one_x]"


def test_a_hostile_name_neither_adds_headers_nor_is_replaced_again(
    office: PostOffice, notices: Notices, variables: Database
) -> None:
    save(
        variables,
        "usermessage|reserved|Global",
        "{subject: 'Hi [user_firstname]', message: '[user_firstname]', short_message: s}",
    )
    user = make_user(firstname='[user_email]"\r\nBcc: x@y.example')

    notices.user(make_reservation(user=user), "reserved")

    mail = office.mail()
    assert mail["Subject"] == 'Hi [user_email]" Bcc: x@y.example'
    assert mail["Bcc"] is None
    assert mail.get_content().startswith('[user_email]"')
    assert office.envelopes[0].rcpt_tos == ["maria@example.edu", "box@example.edu"]


def test_no_password_goes_by_mail_even_when_the_site_asks_for_it(
    office: PostOffice, notices: Notices, variables: Database
) -> None:
    save(
        variables,
        "usermessage|reserved|Global",
        "{subject: s, message: '[reservation_password] [reservation_pw] [pw]', short_message: s}",
    )

    notices.user(make_reservation(), "reserved")

    assert "s3cret-pw" not in office.mail().get_content()


def test_a_dead_mail_server_does_not_stop_the_work(variables: Database) -> None:
    settings = Settings(smtp_server="127.0.0.1", smtp_port=1, smtp_timeout_seconds=1)

    assert Notices(settings, variables).user(make_reservation(), "timeout_inactivity")


def test_instant_messages_are_refused_in_the_log_once(
    settings: Settings, variables: Database
) -> None:
    facts: dict[str, Any] = {"smtp_server": settings.smtp_server, "smtp_port": settings.smtp_port}
    notices = Notices(Settings(jabber=True, **facts), variables)

    with structlog.testing.capture_logs() as logs:
        notices.user(make_reservation(), "timeout_inactivity")
        notices.user(make_reservation(), "timeout_inactivity")

    assert [line["event"] for line in logs].count(
        "instant messages are not supported, only mail is sent"
    ) == 1


def test_the_owner_of_a_block_hears_that_all_computers_are_there(
    office: PostOffice, notices: Notices
) -> None:
    notices.block_owner(make_node(), Block(), Allocation(20), short=False)

    assert len(office.envelopes) == 1
    assert office.mail()["To"] == "teacher@example.edu"
    assert office.mail()["Subject"] == "VCL Block allocation results for Physics 101"
    assert "Computers allocated: 20" in office.mail().get_content()


def test_of_a_shortage_the_administrators_hear_too(office: PostOffice, notices: Notices) -> None:
    result = Allocation(12, warningmsg="not enough free computers")

    notices.block_owner(make_node(), Block(name="<html>\nX"), result, short=True)

    assert [office.mail(number)["To"] for number in (0, 1)] == [
        "teacher@example.edu",
        "admins@example.edu",
    ]
    assert office.mail()["Subject"] == "VCL Block allocation warning for <html> X"
    assert "The web site says: not enough free computers" in office.mail().get_content()
    assert office.mail().get_content_type() == "text/plain"
