"""What a person reads after the facts were put in."""

from __future__ import annotations

import pytest

from tests.samples import make_reservation, make_user, make_vmhost, with_end
from vcld import snapshot
from vcld.messages import identifiers
from vcld.messages.render import Template, find_identifiers, render


def fill(
    text: str, reservation: snapshot.Reservation | None = None, **extra: str
) -> tuple[str, tuple[str, ...]]:
    template = Template(name="usermessage|x|Global", subject="s", message=text, short_message="k")
    rendered = render(template, reservation or make_reservation(), extra)
    return rendered.message, rendered.unknown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("user_login_id", "mmuster@example.edu"),
        ("user_unityid", "mmuster@example.edu"),
        ("user_affiliation_name", "Physics"),
        ("user_affiliation_sitewwwaddress", "https://vcl.example.edu/"),
        ("image_prettyname", "Linux with tools"),
        ("image_name", "vmwarelinux-base9-v3"),
        ("image_size", "1450"),
        ("imagerevision_revision", "3"),
        ("imagemeta_sysprep", "yes"),
        ("computer_short_name", "vm1"),
        ("computer_public_ip_address", "198.51.100.5"),
        ("computer_ipaddress", "198.51.100.5"),
        ("request_id", "77"),
        ("request_end_time", "2026-03-01 17:30:00"),
        ("reservation_id", "88"),
        ("management_node_short_name", "mn1"),
        ("managementnode_hostname", "mn1.example.edu"),
        ("IMAGE_CAPTURE_TYPE", "capture"),
        ("get_request_id", "77"),
        ("vmhost_short_name", ""),
        ("server_request_name", ""),
        ("nathost_public_ip_address", ""),
    ],
)
def test_an_identifier_of_vcl_is_replaced_by_the_fact(name: str, text: str) -> None:
    assert fill(f"<[{name}]>") == (f"<{text}>", ())


def test_the_vm_host_is_named_when_there_is_one() -> None:
    reservation = make_reservation(vmhost=make_vmhost())

    text, _ = fill("[vmhost_short_name] [vmhost_profile_name] [vmhost_hostname]", reservation)

    assert text == "esx1 esx cluster esx1.example.edu"


def test_every_identifier_leads_to_a_value_for_a_reservation_on_a_vm_host() -> None:
    reservation = make_reservation(vmhost=make_vmhost())

    facts = identifiers.identifiers(reservation)

    assert facts.keys() | identifiers.GIVEN == identifiers.KNOWN


def test_no_identifier_shows_a_secret() -> None:
    reservation = make_reservation(
        vmhost=make_vmhost(), user=make_user(sshpublickeys="ssh-rsa AAAA")
    )

    shown = " ".join(identifiers.identifiers(reservation).values())

    assert "s3cret-pw" not in shown
    assert "host-pw" not in shown
    assert "ssh-rsa" not in shown
    assert fill("[reservation_password]") == ("[reservation_password]", ("reservation_password",))


def test_a_fact_of_the_handler_is_replaced_under_both_of_its_names() -> None:
    text, unknown = fill("[NOTICE_INTERVAL]|[request_notice_interval]", notice_interval="5 minutes")

    assert text == "5 minutes|5 minutes"
    assert unknown == ()


def test_an_unknown_identifier_stays_in_the_text_and_is_reported_once() -> None:
    text, unknown = fill("[image_colour] and [image_colour] and [user_id]")

    assert text == "[image_colour] and [image_colour] and 21"
    assert unknown == ("image_colour",)


def test_a_known_fact_that_nobody_gave_stays_in_the_text() -> None:
    assert fill("[notice_interval] left") == ("[notice_interval] left", ("notice_interval",))


def test_conditions_and_ordinary_brackets_are_left_alone() -> None:
    text = "[if user_firstname] [endif] [1] [see below] [] [a-b]"

    assert fill(text) == (text, ())
    assert find_identifiers(text) == []


@pytest.mark.parametrize(
    "name", ["[user_unityid]", 'O\'Neil "Bob"', r"\1 \g<0>", "Zoë 张伟 🎓", "{0} %s $x", "a\nb\tc"]
)
def test_a_name_appears_as_it_is_whatever_it_holds(name: str) -> None:
    text, unknown = fill(
        "Hello [user_firstname]!", make_reservation(user=make_user(firstname=name))
    )

    assert text == f"Hello {name}!"
    assert unknown == ()


def test_in_a_web_page_a_name_is_escaped() -> None:
    reservation = make_reservation(user=make_user(firstname="<script>&"))

    text, _ = fill("<HTML>[user_firstname]</HTML>", reservation)

    assert text == "<HTML>&lt;script&gt;&amp;</HTML>"


def test_a_name_does_not_turn_plain_text_into_a_web_page() -> None:
    template = Template(name="x", subject="s", message="Hello [user_firstname]")

    rendered = render(template, make_reservation(user=make_user(firstname="<html><b>")))

    assert not rendered.html
    assert rendered.message == "Hello <html><b>"


def test_line_ends_around_the_text_are_trimmed_and_inner_ones_stay() -> None:
    assert fill("\r\n\n  one\n\ntwo \n\r\n")[0] == "  one\n\ntwo "


def test_without_a_short_message_the_whole_message_is_short_enough() -> None:
    rendered = render(Template(name="x", subject="", message="All of it.\n"), make_reservation())

    assert rendered.short_message == "All of it."


def test_a_user_without_a_first_name_is_called_by_the_account_name() -> None:
    reservation = make_reservation(user=make_user(firstname="", preferredname=None))

    assert fill("[user_firstname] [user_preferred_name]", reservation)[0] == "mmuster mmuster"


def test_an_instant_that_is_not_set_is_empty() -> None:
    assert fill("<[request_end_time]>", with_end(make_reservation(), None))[0] == "<>"
