"""etc/vcld.conf and the table of keys say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vcld import config
from vcld.config.keys import Kind

ETC = Path(__file__).parents[2] / "etc"
#: VCL daemon specification §1.1.
VCL_KEYS = (
    "fqdn processname log pidfile server database lockerwrtuser wrtpass enable_mysql_ssl"
    " mysql_ssl_cert xmlrpc_url xmlrpc_username xmlrpc_pass returnpath defaulthelpemail"
    " windows_root_password jabber jabserver jabuser jabpass jabport jabresource verbose"
)


def entries() -> dict[str, tuple[str, str]]:
    """Key → (comment in one line, default), as the file has them."""
    text = (ETC / "vcld.conf").read_text(encoding="utf-8")
    found = re.findall(r"\n\n((?:# .*\n)+)#(\w+)=(.*)", text)
    return {
        name: (comment.replace("\n# ", " ")[2:].strip(), value) for comment, name, value in found
    }


def test_file_holds_every_key_once_in_the_order_of_the_table() -> None:
    text = (ETC / "vcld.conf").read_text(encoding="utf-8")

    assert re.findall(r"^#?(\w+)=", text, re.MULTILINE) == list(config.keys())


@pytest.mark.parametrize("name", config.keys())
def test_key_in_the_file_is_commented_out_with_its_meaning_and_default(name: str) -> None:
    key = config.keys()[name]

    assert entries()[name] == (key.describe(), key.default_text)


@pytest.mark.parametrize("name", VCL_KEYS.split())
def test_every_key_of_vcl_is_known(name: str) -> None:
    assert config.keys()[name].name == name


def test_every_duration_says_its_unit_and_what_zero_means_where_it_may_be_zero() -> None:
    for key in config.keys().values():
        if key.kind is Kind.NUMBER:
            assert key.unit == "seconds"
            assert key.field == f"{key.name}_seconds"
            assert bool(key.zero) is (key.minimum == 0), key.name


def test_file_as_it_is_needs_only_the_two_keys_that_have_no_default(tmp_path: Path) -> None:
    path = tmp_path / "vcld.conf"
    text = (ETC / "vcld.conf").read_text(encoding="utf-8")
    path.write_text(
        text.replace("#fqdn=", "fqdn=n1.example.org").replace("#lockerwrtuser=", "lockerwrtuser=v")
    )

    settings = config.load(path, {})

    assert settings.warnings == ()


def test_file_with_every_default_taken_in_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "vcld.conf"
    needed = {"fqdn": "n1.example.org", "lockerwrtuser": "v"}
    path.write_text(
        "".join(f"{name}={needed.get(name, value)}\n" for name, (_, value) in entries().items())
    )

    settings = config.load(path, {})

    for key in config.keys().values():
        if key.name not in needed:
            assert getattr(settings, key.field) == key.default, key.name


def test_file_holds_no_password() -> None:
    for name, (_, default) in entries().items():
        if config.keys()[name].kind is Kind.SECRET:
            assert default == ""
