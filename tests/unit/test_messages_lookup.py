"""Which text is used, and what happens with one that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
import yaml

from tests.samples import make_reservation
from vcld.messages.lookup import find_admin_message, find_user_message, parse
from vcld.messages.render import render
from vcld.site_yaml import dump_fields, parse_fields

SEED = json.loads((Path(__file__).parents[1] / "data" / "vcl-seed-rows.json").read_text())
KEYS = [row["name"] for row in SEED["variable"] if "message|" in row["name"]]


def text(message: str) -> str:
    return f"---\nsubject: s\nmessage: {message}\nshort_message: k\n"


def test_the_affiliation_goes_before_the_site_and_the_site_before_our_own_text() -> None:
    both = {
        "usermessage|reserved|Physics": text("physics"),
        "usermessage|reserved|Global": text("site"),
    }
    site = {"usermessage|reserved|global": text("site")}

    assert find_user_message(both, "reserved", "Physics").message == "physics"
    assert find_user_message(both, "reserved", "Arts").message == "site"
    assert find_user_message(site, "reserved", "Physics").message == "site"
    assert "is ready" in find_user_message({}, "reserved", "Physics").message


@pytest.mark.parametrize("name", KEYS)
def test_every_message_of_vcl_has_a_text_of_ours_in_which_everything_is_replaced(name: str) -> None:
    kind, key, *_ = name.split("|")
    find = (
        find_admin_message({}, key) if kind == "adminmessage" else find_user_message({}, key, "x")
    )

    rendered = render(
        find, make_reservation(), {"notice_interval": "5 minutes", "acknowledge_minutes": "15"}
    )

    assert rendered.unknown == ()
    assert "[" not in rendered.subject + rendered.message + rendered.short_message
    assert rendered.subject
    assert "\n" not in rendered.subject
    assert kind == "adminmessage" or "\n" not in rendered.short_message


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("subject: [a\nmessage: b: c: d", "not valid YAML"),
        ("just words", "no text"),
        ("subject: s", "no text"),
        ("message: [a, b]", "no text"),
        ("message: '  '", "no text"),
        ("", "no text"),
        ("[" * 3000, "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "no text"),
    ],
)
def test_a_broken_message_is_told_of_once_and_our_text_is_used(broken: str, reason: str) -> None:
    with structlog.testing.capture_logs() as logs:
        found = find_user_message({"usermessage|reserved|Physics": broken}, "reserved", "Physics")

    assert "is ready" in found.message
    assert [(line["log_level"], line["variable"]) for line in logs] == [
        ("warning", "usermessage|reserved|Physics")
    ]
    assert reason in logs[0]["reason"]


def test_values_that_look_like_numbers_or_dates_stay_what_was_written() -> None:
    found = parse("x", "subject: 2026-13-45\nmessage: yes\nshort_message: 007\n")

    assert (found.subject, found.message, found.short_message) == ("2026-13-45", "yes", "007")


def test_an_empty_short_message_counts_as_none() -> None:
    assert parse("x", "message: m\nshort_message: ''\n").short_message is None


@pytest.mark.parametrize(
    "message",
    [
        'Hello [user_firstname],\n\nit\'s 100% "ready": yes\n- one\n- two\n# three',
        "one line: with a colon",
        "trailing  \nspaces \n",
        "  indented\nfirst line",
        "tab\there\nnext",
        "Zoë\n张伟 🎓",
        "<html>\n<b>x</b>\n</html>",
    ],
)
def test_a_message_is_written_so_that_the_same_words_are_read_again(message: str) -> None:
    written = dump_fields(
        {"subject": "[a] b", "message": message, "invalidfields": {"message": ["a"]}}
    )

    fields = parse_fields(written)
    lines = [line.rstrip() for line in fields["message"].strip("\n").split("\n")]
    assert lines == [line.rstrip() for line in message.strip("\n").split("\n")]
    assert fields["invalidfields"] == {"message": ["a"]}
    assert yaml.safe_load(written).keys() == fields.keys()


def test_a_message_is_written_in_the_forms_that_the_web_sites_reader_knows() -> None:
    written = dump_fields(
        {
            "subject": "s",
            "message": "a\n\nb: c" + " word" * 60,
            "invalidfields": {"message": ["x_y"]},
        }
    )

    assert written == (
        "---\nsubject: s\nmessage: |\n  a\n\n  b: c" + " word" * 60 + "\n"
        "invalidfields:\n  message:\n    - x_y\n"
    )
