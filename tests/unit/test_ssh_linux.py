"""What is decided about a Linux computer without asking it: quoting, rules, reading of answers."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import make_node, make_reservation
from tests.ssh_guests import SSH, WEB
from vcld.errors import RemoteError
from vcld.guest.linux import addresses, firewall, presence, tags
from vcld.guest.linux.firewall import Opening, Policy
from vcld.guest.linux.presence import Socket
from vcld.guest.linux.script import Facts, Script, parse, run
from vcld.remote.connection import CommandResult

POLICY = Policy(
    openings=(Opening(22, "tcp", "198.51.100.7"), Opening(3389, "tcp"), Opening(22, "tcp", "2001:db8::7")),
    members=("10.0.0.6",),
    nodes=("192.0.2.1",),
)  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_script_hands_every_text_to_its_function_unchanged(words: list[str]) -> None:
    text = Script().call("show", *words).text()
    body = text[text.index("main() {") :]
    shell = "fact() { :; }\nshow() { for word; do printf '%s\\0' \"$word\"; done; }\n" + body

    done = subprocess.run(["dash"], input=shell.encode(), capture_output=True, check=True)

    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)


def test_script_refuses_what_a_shell_cannot_keep() -> None:
    with pytest.raises(ValueError, match="NUL"):
        Script().call("show", "a\0b")


def test_only_marked_lines_are_facts() -> None:
    facts = parse("noise\nvcld:public=198.51.100.5\nvcld:tag=a=b\nvcld:tag=c\n vcld:no=1\n")

    assert facts.find("public") == "198.51.100.5"
    assert facts.all("tag") == ["a=b", "c"]
    assert facts.find("no") is None


def test_what_root_of_a_computer_may_have_written_floods_and_changes_no_terminal() -> None:
    said = f"vcld:error=\x1b[2J{'x' * 9999}\n" + "vcld:warning=\x07 look\n" * 999
    remote, log = Mock(), Mock()
    remote.run.return_value = CommandResult(1, said)
    remote.endpoint.name = "vm1"

    with pytest.raises(RemoteError) as caught:
        run(remote, Script(), log)

    assert str(caught.value) == f"vm1:  [2J{'x' * 496}"
    assert log.warning.call_count == 20
    assert log.warning.call_args.kwargs["text"] == "  look"


def test_rules_of_all_tools_say_the_same() -> None:
    nft, v4, v6, zone = firewall.renderings(POLICY)

    assert "ip saddr 198.51.100.7 tcp dport 22 accept" in nft
    assert "ip6 saddr 2001:db8::7 tcp dport 22 accept" in nft
    assert nft.index("tcp dport 22 drop") < nft.index("established")
    assert "-s 198.51.100.7 -p tcp --dport 22 -j ACCEPT" in v4
    assert "2001:db8" not in v4
    assert "-s 2001:db8::7 -p tcp --dport 22 -j ACCEPT" in v6
    assert "-p tcp --dport 3389 -j ACCEPT" in v6
    for text in (nft, v4, zone):
        assert "10.0.0.6" in text
        assert "192.0.2.1" in text
        assert "@NODE4@" in text
    root = ET.fromstring(zone)
    assert root.get("target") == "DROP"
    assert {port.get("port") for port in root.iter("port")} == {"22", "3389"}


def test_image_trusts_no_node() -> None:
    image = Policy(openings=(firewall.ANY_SSH,), trusts_node=False)

    assert not any("@NODE" in text for text in firewall.renderings(image))


def test_openings_leave_out_disabled_methods_and_refuse_what_is_no_address() -> None:
    assert firewall.openings_for([SSH, WEB], "2001:DB8::1") == (
        Opening(22, "tcp", "2001:db8::1"),
        Opening(8080, "tcp", "2001:db8::1"),
    )
    with pytest.raises(ValueError, match="touch"):
        firewall.openings_for([SSH], "1.2.3.4; touch /tmp/trap")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '0 36 198.51.100.5:22 198.51.100.7:50000 users:(("sshd",pid=8,fd=4),("sshd",pid=9,fd=4))',
            Socket(22, "198.51.100.7", (("sshd", 8), ("sshd", 9))),
        ),
        ("0 0 [::ffff:198.51.100.5]:22 [::ffff:198.51.100.7]:1", Socket(22, "198.51.100.7")),
        ("0 0 [2001:db8::5]:22 [2001:db8::7]:1", Socket(22, "2001:db8::7")),
        ("0 0 [fe80::1%eth0]:22 [fe80::2%eth0]:1", Socket(22, "fe80::2")),
        ("0 0 198.51.100.5:22 198.51.100.7:5 812/sshd: ada", Socket(22, "198.51.100.7", (("sshd:", 812),))),
        ("nonsense", None),
        ("a b c d e", None),
    ],
)  # fmt: skip
def test_lines_of_ss_and_netstat_are_read(line: str, expected: Socket | None) -> None:
    assert presence.parse_socket(line) == expected


def test_user_of_another_service_counts_from_elsewhere_only_when_logged_in() -> None:
    socket = ("socket", "0 0 198.51.100.5:8080 203.0.113.9:50000")

    def look(*facts: tuple[str, str], remote_ip: str = "198.51.100.7") -> object:
        return presence.find_user(
            Facts(facts), [SSH, WEB], login="ada", remote_ip=remote_ip, is_ignored=lambda _: False
        )

    assert look(socket) is None
    assert look(socket, ("who", "bob pts/0")) is None
    assert look(socket, ("who", "ada pts/0 2026-01-01 (203.0.113.9)")) is not None
    assert look(socket, remote_ip="203.0.113.9") is not None


def test_connection_that_nobody_has_accepted_yet_is_no_user() -> None:
    """It waits in the kernel for a busy sshd: no process holds it."""
    ours = ("socket", '0 0 10.0.0.5:22 10.0.0.1:4 users:(("sshd",pid=7,fd=4))')
    waiting = ("socket", "0 0 198.51.100.5:22 198.51.100.7:50000")
    web = ("socket", '0 0 198.51.100.5:8080 198.51.100.7:50000 users:(("httpd",pid=9,fd=4))')

    def look(*facts: tuple[str, str]) -> object:
        return presence.find_user(
            Facts(facts), [SSH, WEB], login="ada", remote_ip="198.51.100.7",
            is_ignored=lambda address: address == "10.0.0.1",
        )  # fmt: skip

    assert look(ours, waiting) is None
    assert look(ours, waiting, web) is not None


def test_ignored_addresses_may_be_networks_and_nonsense_is_left_out() -> None:
    ignored = presence.parse_networks("192.0.2.0/24; nonsense, 2001:db8::1")

    assert ignored("192.0.2.77")
    assert ignored("2001:db8::1")
    assert not ignored("198.51.100.7")
    assert not presence.parse_networks(None)("192.0.2.1")


def test_tags_of_other_tools_are_read() -> None:
    found = tags.parse_tags(
        ["image-v3", "ImageRevision_ID = 14", "vcld_post_load=success (2026-01-01 10:00:00)",
         "vcld_tainted=a user (ada) came (2026-01-01 11:00:00)"]
    )  # fmt: skip

    assert (found.imagerevision_id, found.post_load) == (14, True)
    assert found.tainted == "a user (ada) came"
    assert not tags.parse_tags(["vcld_post_load="]).post_load
    assert tags.base_text(make_reservation()).splitlines()[0] == "vmwarelinux-base9-v3"


def test_networks_of_fixed_addresses_are_read_or_refused() -> None:
    good = "---\nrouter: 198.51.100.1\nnetmask: 255.255.255.192\ndns:\n - 192.0.2.53\n"
    assert addresses.fixed_network("198.51.100.9", good) == (
        "198.51.100.9", 26, "198.51.100.1", "192.0.2.53",
    )  # fmt: skip
    for bad in (None, "", "[]", "{", "netmask: x"):
        with pytest.raises(RemoteError):
            addresses.fixed_network("198.51.100.9", bad)


def test_shares_and_time_servers_take_only_what_they_can_be() -> None:
    reservation = make_reservation()
    variables = {
        "nfsmount|3": "nfs:/home/[user_login_id],/mnt/home; bad; a:/b,c; nfs:/x y,/z",
        "timesource|global": "ntp1.example.org, $(touch /tmp/trap);ntp2.example.org",
    }
    assert addresses.shares(reservation, variables.get) == [("nfs:/home/mmuster", "/mnt/home")]
    assert addresses.time_servers(make_node(), variables.get) == [
        "ntp1.example.org", "ntp2.example.org",
    ]  # fmt: skip
