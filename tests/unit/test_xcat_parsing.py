"""What xCAT prints, as its man pages and its users' reports show it."""

from __future__ import annotations

import pytest

from tests.fake_xcat.commands import UNDISPATCHED
from vcld.programs import Output
from vcld.provisioning.interface import PowerState
from vcld.provisioning.xcat import parsing
from vcld.provisioning.xcat.parsing import Answers


def printed(out: str = "", err: str = "", code: int = 0) -> Output:
    return Output(command="x", code=code, out=out, err=err)


def answers(out: str, *nodes: str, err: str = "") -> Answers:
    return parsing.parse_answers(printed(out, err), nodes)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("gpu007: on", PowerState.ON),
        ("gpu007: off", PowerState.OFF),
        ("gpu007: on (Chassis)", PowerState.ON),
        ("gpu007: 503 Service Unavailable", "503 Service Unavailable"),
        ("gpu007: [mn]: Error: ERROR: timeout", "timeout"),
        ("gpu007: Error: 504 Gateway Timeout", "504 Gateway Timeout"),
        ("gpu007: [sn1]: on", PowerState.ON),
        ("gpu007: on\ngpu007: [mn]: Warning: the firmware is old", PowerState.ON),
        ("gpu007: Warning: old", "rpower says nothing of gpu007"),
        ("gpu007:", "an empty answer"),
        ("other: on", "rpower says nothing of gpu007"),
    ],
)
def test_power_states(line: str, state: object) -> None:
    assert parsing.parse_power(answers(line, "gpu007"), "gpu007") == state


@pytest.mark.parametrize(
    ("text", "is_timeout"),
    [
        ("timeout", True), ("Timed out", True), ("504 Gateway Timeout", True),
        ("503 Service Unavailable", True),
        ("[500] Login to BMC failed: 500 Can't connect to 10.0.0.9:443 (No route to host).", True),
        ("BMC did not respond. Validate BMC configuration and retry the command.", True),
        ("[401] Login to BMC failed: Invalid username or password.", False), ("Invalid password", False), ("Unsupported", False),
    ],
)  # fmt: skip
def test_errors_that_are_timeouts_of_a_controller(text: str, is_timeout: bool) -> None:
    assert parsing.is_timeout(text) is is_timeout


def test_a_range_with_errors_for_some_nodes() -> None:
    found = answers("n1: on\nn3: off\n", "n1", "n2", "n3", err="n2: [sn1]: Error: ERROR: timeout\n")
    states = [parsing.parse_power(found, node) for node in ("n1", "n2", "n3")]
    assert states == [PowerState.ON, "timeout", PowerState.OFF]


def test_errors_may_come_on_standard_output_with_code_0() -> None:
    assert answers("n1: Error: no", "n1").errors == {"n1": "no"}


def test_nodes_that_xcat_does_not_know() -> None:
    text = "Error: Invalid nodes and/or groups in noderange: n2,n9\n"
    assert answers(text, "n1", "n2").unknown == {"n2"}
    text = "Error: Could not find an object named 'n1' of type 'node'.\n"
    assert answers(text, "n1").unknown == {"n1"}


def test_the_later_of_two_lines_holds() -> None:
    assert answers("n1: netboot a\nn1: netboot b", "n1").last("n1") == "netboot b"


def test_definitions_with_values_that_hold_marks_and_nothing() -> None:
    text = "n1: mac=02:00:00:00:00:01!*NOIP*\nn1: kcmdline=a=b c:d\nn1: status=\n"
    assert parsing.parse_definitions(answers(text, "n1")) == {
        "n1": {"mac": "02:00:00:00:00:01!*NOIP*", "kcmdline": "a=b c:d", "status": ""}
    }


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("n1: install rhels8-x86_64-compute", None),
        ("n1: on reset", None),
        ("n1: Network", None),
        ("rubbish", "no line about it came"),
        ("n1: Error: Unable to find requested path", "Unable to find requested path"),
        ("n1: 504 Gateway Timeout", "504 Gateway Timeout"),
        ("n1: boot\nError: The n1 can not be resolved", "The n1 can not be resolved"),
        ("n1: boot\nError: The n11 can not be resolved", None),
        ("n1: Warning: no serialport", "no line about it came"),
        (
            "Error: Cannot find the OS image x on the osimage table.",
            "Cannot find the OS image x on the osimage table.",
        ),
    ],
)
def test_what_an_action_says(out: str, problem: str | None) -> None:
    assert parsing.parse_action(answers(out, "n1"), "n1") == problem


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("1 object definitions have been created or modified.", None),
        ("rubbish", "it does not say that anything was changed"),
        ("Error: Could not find an object named 'n1' of type 'node'.",
         "Could not find an object named 'n1' of type 'node'."),
    ],
)  # fmt: skip
def test_what_a_change_of_a_definition_says(out: str, problem: str | None) -> None:
    assert parsing.parse_change(answers(out, "n1"), "n1") == problem


@pytest.mark.parametrize(
    ("out", "err", "is_away"),
    [
        ("Unable to open socket connection to xcatd daemon on localhost:3001.\n", "", True),
        ("", "Connection failure: SSL connect attempt failed at Client.pm line 281.\n", True),
        ("", "ERROR/WARNING: communication with the xCAT server seems to have been ended"
         " prematurely\n", True),
        ("n1: on\n", "", False),
        ("n1: on\n", f"{UNDISPATCHED}\n.\n", False),
    ],
)  # fmt: skip
def test_a_daemon_that_is_away(out: str, err: str, is_away: bool) -> None:
    assert (parsing.find_absence(printed(out, err)) is not None) is is_away


def test_a_table() -> None:
    text = '#key,value,comments,disable\n"master","10.0.0.1",,\n"domain","a,b",,\n'
    rows = parsing.parse_table(printed(text))
    assert [(row["key"], row["value"]) for row in rows] == [
        ("master", "10.0.0.1"),
        ("domain", "a,b"),
    ]


def test_columns_as_the_page_of_nodestat_shows_them() -> None:
    found = answers("node1   sshd\nnode5   noping(Shutting down)\n", "node1", "node5")
    assert [found.last(node) for node in ("node1", "node5")] == ["sshd", "noping(Shutting down)"]


@pytest.mark.parametrize(
    "line",
    [UNDISPATCHED, UNDISPATCHED.removeprefix("Error: "), UNDISPATCHED.replace("Error", "n2", 1)],
)
def test_a_service_node_that_is_away_concerns_its_own_nodes_only(line: str) -> None:
    """XCAT's issue 3235 and pull request 6452."""
    found = answers("n1: install a-b-c\n", "n1", "n2", err=f"{line}\n.\n")
    assert parsing.parse_action(found, "n1") is None
    assert not found.is_left_out("n1")
    assert found.is_left_out("n2")
    assert str(parsing.parse_action(found, "n2")).startswith("Unable to dispatch hierarchical")
    assert str(parsing.parse_power(found, "n2")).startswith("Unable to dispatch hierarchical")


def test_an_error_of_the_whole_is_of_no_node() -> None:
    found = answers("Error: Permission denied for request\n", "n1")
    assert found.refusal == "Permission denied for request"
    assert answers("Error: Invalid nodes and/or groups in noderange: n1\n", "n1").refusal is None


def test_an_error_of_the_whole_that_names_the_node_is_its_own() -> None:
    """As rinstall's source reads it from nodeset."""
    found = answers("Error: The n1 can not be resolved.\n", "n1", "n11")
    assert not found.is_left_out("n1")
    assert found.is_left_out("n11")


def test_a_table_after_a_warning() -> None:
    assert parsing.parse_table(printed('Warning: old\n#key,value\n"a","b"\n')) == [
        {"key": "a", "value": "b"}
    ]


def test_rubbish_is_no_answer() -> None:
    found = answers("\ufffd\ufffd rubbish \n: :\n=\n", "n1")
    assert (found.lines, found.errors, found.general) == ({}, {}, ())
