"""Secrets do not show, however a text spells them."""

from __future__ import annotations

import html
import json
import shlex
from urllib.parse import quote, quote_plus

import pytest

from vcld.config import Secret
from vcld.config.redaction import redact, register

AWKWARD = "gr\u00fcn'\"<&>\\ 7#%+/="


@pytest.fixture(autouse=True)
def secrets() -> None:
    for value in (AWKWARD, "zwiebel", "zwiebel-suppe", "ab"):
        register(value)


@pytest.mark.parametrize(
    "spelled",
    [
        AWKWARD,
        json.dumps(AWKWARD),
        json.dumps(AWKWARD, ensure_ascii=False),
        repr(AWKWARD),
        repr(AWKWARD.encode())[1:],
        AWKWARD.replace("'", "'\\''"),
        html.escape(AWKWARD),
        quote(AWKWARD, safe=""),
        quote_plus(AWKWARD),
        shlex.quote(AWKWARD),
    ],
)
def test_secret_is_hidden_in_every_spelling(spelled: str) -> None:
    assert redact(f"before {spelled} after") in {
        f"before {left}***{right} after" for left, right in [("", ""), ("'", "'"), ('"', '"')]
    }


def test_secret_is_hidden_in_a_representation_whose_quotes_another_word_decides() -> None:
    register("o'zwiebel")

    assert "zwiebel" not in redact(repr({"x": "o'zwiebel"}))
    assert "zwiebel" not in redact(repr("a \" and o'zwiebel"))


def test_secret_that_begins_like_another_is_hidden_whole() -> None:
    assert redact("zwiebel-suppe, zwiebel") == "***, ***"


def test_text_of_two_letters_is_too_common_to_hide() -> None:
    assert redact("about") == "about"


def test_private_key_is_hidden_even_if_it_is_cut_off() -> None:
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"

    assert redact(f"a {begin}\nb3Bl\nbnNz\n{end} z") == "a *** z"
    assert redact(f"a {begin}\nb3Bl\n") == "a ***"


def test_password_in_a_url_is_hidden_although_nobody_registered_it() -> None:
    assert (
        redact("cannot reach https://root:pa55@esx1.example.org/sdk at 12:30, see http://a.b/c")
        == "cannot reach https://root:***@esx1.example.org/sdk at 12:30, see http://a.b/c"
    )


def test_secret_shows_as_stars_in_every_way_of_printing() -> None:
    secret = Secret("open sesame")

    shown = [str(secret), repr(secret), f"{secret}", f"{[secret]}"]

    assert shown == ["***", "***", "***", "[***]"]
    assert secret.reveal() == "open sesame"
