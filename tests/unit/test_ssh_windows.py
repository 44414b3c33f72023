"""The PowerShell that a Windows computer would run. No Windows was at hand: NOT RUN there."""

from __future__ import annotations

import base64
import re

import pytest

from tests.samples import make_reservation
from tests.ssh_guests import account
from vcld import plugins
from vcld.errors import RemoteError
from vcld.guest import GUESTS
from vcld.guest.interface import Guest
from vcld.guest.linux.firewall import Opening
from vcld.guest.windows import commands, powershell

#: What PowerShell takes for a single quote.
QUOTES = "'\u2018\u2019\u201a\u201b"
ODD = ["it's", "\u2018quoted\u2019", "$(Stop-Computer)", "`n", '"', ";", "a\nb", "Zoë", "@()", ""]


def unquote(text: str) -> str:
    """What PowerShell makes of a single-quoted text, by its language specification."""
    assert text[0] == "'"
    assert text[-1] == "'"
    inner = text[1:-1]
    pairs = re.findall(f"[{QUOTES}]+", inner)
    assert all(len(pair) % 2 == 0 for pair in pairs)
    return re.sub(rf"([{QUOTES}])\1", r"\1", inner)


@pytest.mark.parametrize("text", ODD)
def test_texts_are_read_back_as_they_were(text: str) -> None:
    assert unquote(powershell.quote(text)) == text


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        powershell.quote("a\0b")


def test_command_line_is_the_same_for_every_script_and_holds_no_data() -> None:
    line = powershell.command()
    encoded = line.rsplit(" ", 1)[1]

    assert "ReadToEnd" in base64.b64decode(encoded).decode("utf-16-le")
    assert line == powershell.command()
    assert len(line) < 8000  # what cmd.exe takes


def test_account_is_made_once_with_its_rights() -> None:
    text = commands.account(account("ada", "it's $secret", root=True))

    assert "$name = 'ada'" in text
    assert "ConvertTo-SecureString 'it''s $secret' -AsPlainText" in text
    assert "Add-LocalGroupMember -SID 'S-1-5-32-544'" in text
    assert "Add-LocalGroupMember -SID 'S-1-5-32-555'" in text
    plain = commands.account(account("bob", None))
    assert "Remove-LocalGroupMember -SID 'S-1-5-32-544'" in plain
    assert "-NoPassword" in plain
    assert "-AsPlainText" not in plain


@pytest.mark.parametrize("name", ["", "a" * 21, "a/b", "a\\b", "a\nb", "x;y", "dot.", " a", "a*"])
def test_fault_30_names_that_windows_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(RemoteError, match="no account on Windows"):
        commands.account(account(name))


def test_rules_name_who_may_come_in_and_replace_the_old_ones_last() -> None:
    text = commands.firewall(
        ["192.0.2.1"], [Opening(3389, "tcp", "198.51.100.7"), Opening(22, "tcp")], ["10.0.0.6"]
    )

    assert "'192.0.2.1', '10.0.0.6'" in text
    assert "-LocalPort 3389 -RemoteAddress '198.51.100.7' -Action Allow" in text
    assert "-LocalPort 22 -RemoteAddress Any -Action Allow" in text
    assert text.index("$old | Remove-NetFirewallRule") > text.rindex("New-NetFirewallRule")
    assert text.endswith("-DefaultInboundAction Block")


def test_accounts_that_are_not_wanted_go_with_their_profiles() -> None:
    text = commands.remove_others(["ada"])

    assert "$stay = @('ada')" in text
    assert "Win32_UserProfile" in text
    assert "$stay = @()" in commands.remove_others([])


def test_tags_and_notices_are_data() -> None:
    assert "'it''s'" in commands.set_tag("vcld_tainted", "it's")
    assert commands.notify("don't").endswith("'don''t'")
    assert commands.write_tags("x", only_if_missing=True).startswith("if (-not (Test-Path")


def test_brackets_and_quotes_of_every_script_are_balanced() -> None:
    texts = [
        commands.account(account()), commands.remove_others(["a"]),
        commands.firewall(["192.0.2.1"], [Opening(22, "tcp")], []), commands.show_connections([22]),
        commands.show_tags(), commands.set_tag("a", "b"), commands.random_administrator_password(),
        commands.find_address(), commands.set_hostname_and_time(["ntp.example.org"]),
        commands.boot_id(), commands.clear_traces(), commands.sysprep(), commands.open_ssh(),
        commands.services(["TermService"], running=True),
    ]  # fmt: skip
    for text in texts:
        bare = re.sub(r"'[^']*'", "", text)
        for opened, closed in ("()", "{}", "[]"):
            assert bare.count(opened) == bare.count(closed), text
        assert bare.count('"') % 2 == 0, text


@pytest.mark.parametrize("text", [commands.show_connections([22]), commands.clear_traces()])
def test_complaints_of_programs_end_no_script(text: str) -> None:
    before, redirections, _ = text.partition("2>$null")

    assert redirections
    assert "$ErrorActionPreference = 'SilentlyContinue'" in before.rpartition("& {")[2]
    assert text.count("2>$null") == text.count("SilentlyContinue';")


def test_module_names_of_the_vcl_seed_resolve() -> None:
    for name in ("os_linux", "os_linux_ubuntu", "os_unix_lab", "os_windows", "os_winxp",
                 "os_win2003", "os_winvista", "os_win2008", "os_win7", "os_win8", "os_win2012",
                 "os_win10", "os_win2016"):  # fmt: skip
        found = plugins.find_class("vcld.guest", GUESTS, name, Guest)  # type: ignore[type-abstract]
        assert issubclass(found, Guest)  # type: ignore[arg-type]
        assert not getattr(found, "__abstractmethods__", None)
    assert make_reservation().image.os_module == "os_linux"
