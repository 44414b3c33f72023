"""What etc/vcld.service allows is what the daemon needs."""

from __future__ import annotations

from pathlib import Path

from vcld.config.reader import DEFAULT_PATH
from vcld.provisioning.partner import DEFAULT_KEY

UNIT = Path(__file__).parents[2] / "etc" / "vcld.service"


def settings(name: str) -> list[str]:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def test_host_keys_can_be_kept_beside_the_usual_private_keys() -> None:
    """ProtectSystem=full leaves /etc read-only, and a key that cannot be kept fails the load."""
    assert settings("ProtectSystem") == ["full"]
    writable = [path.removeprefix("-") for path in settings("ReadWritePaths")]
    assert str(Path(DEFAULT_KEY).parent) in writable


def test_configuration_of_the_unit_is_the_commands_default() -> None:
    (start,) = settings("ExecStart")
    assert start.endswith(f"run --config {DEFAULT_PATH}")
