"""A reader of APEL cloud messages, as strict as the field's own.

What it refuses: fields that version 0.4 does not know, missing ones that a record must have,
text where a number is meant, an end without "completed" or the other way round. Records are
separated by ``%%`` wherever it stands, and lines by whatever ends a line.
"""

from __future__ import annotations

HEADER = "APEL-cloud-message: v0.4"
MANDATORY = ("VMUUID", "SiteName", "StartTime")
NUMBERS = frozenset(
    {"StartTime", "EndTime", "SuspendDuration", "WallDuration", "CpuDuration", "CpuCount",
     "NetworkInbound", "NetworkOutbound", "PublicIPCount", "Memory", "Disk"}
)  # fmt: skip
TEXTS = frozenset(
    {"VMUUID", "SiteName", "CloudComputeService", "MachineName", "LocalUserId", "LocalGroupId",
     "GlobalUserName", "FQAN", "Status", "NetworkType", "BenchmarkType", "StorageRecordId",
     "ImageId", "CloudType"}
)  # fmt: skip
#: The width of the receiver's columns.
LONGEST_TEXT = 255


def read_message(text: str) -> list[dict[str, str]]:
    """The records of a message.

    Raises:
        AssertionError: a receiver would refuse it.
    """
    header, _, rest = text.strip().partition("\n")
    assert header == HEADER
    return [_read_record(part) for part in rest.split("%%") if part.strip()]


def _read_record(text: str) -> dict[str, str]:
    record = {}
    for line in text.strip().splitlines():
        name, colon, value = (part.strip() for part in line.partition(":"))
        assert colon, f"{line!r} has no name"
        assert name in NUMBERS | TEXTS, f"{name!r} is no field"
        assert name not in record, f"{name} stands twice"
        record[name] = value
    for name in MANDATORY:
        assert record.get(name, "").lower() not in {"", "none", "null"}, f"{name} is missing"
    for name, value in record.items():
        if name in NUMBERS:
            assert 0 <= int(value) < 2**31, f"{name}: {value}"
        else:
            assert len(value) <= LONGEST_TEXT, f"{name} is too long"
    assert record["Status"] in {"started", "suspended", "completed"}
    assert ("EndTime" in record) is (record["Status"] == "completed")
    assert int(record.get("EndTime", 2**31)) >= int(record["StartTime"])
    return record
