"""The steps of every handler, read from the code, and requests that pass them."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.daemon import eventually
from tests.site import IMAGE, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, Site

STATES = Path(__file__).parents[1] / "vcld" / "states"


def step_names(folder: Path = STATES) -> list[str]:
    """Every step of every handler, or of another folder's work: ``work.step("…")`` in the code."""
    names = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "step"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                names.add(str(node.args[0].value))
    return sorted(names)


#: Handlers that find a loaded computer.
LOADED = ("inuse", "reclaim", "image", "makeproduction", "new:post-load")


def set_up(site: Site, step: str) -> None:
    """What must be so before the daemon starts."""
    if step in {"inuse:end", "inuse:finish"}:
        site.variable("general_end_notice_first", 1)
        site.variable("general_end_notice_second", 1)


def prepare(site: Site, step: str, computer: int = 1) -> None:
    """Let the running daemon make what an earlier request would have left."""
    if not step.startswith(LOADED):
        return
    loaded = site.ask("reload", computer)
    eventually(lambda: site.pair(loaded) == "gone")
    if step.startswith("inuse"):
        site.set_computer(computer, "inuse")
    with site.world.change(f"vm{computer}") as machine:
        machine.post_load = step != "new:post-load"
        machine.open_to = "*" if step.startswith("inuse") else machine.open_to
    if step == "reclaim:unload":
        site.execute(
            "UPDATE computer SET predictivemoduleid ="
            f" (SELECT id FROM module WHERE name = 'predictive_level_2') WHERE id = {computer}"
        )


def drive(site: Site, step: str, computer: int = 1) -> int:
    """Make a request whose handler passes the step, as far as it can without the daemon."""
    handler, _, name = step.partition(":")
    if handler == "inuse" and name in {"end", "finish"}:
        return site.ask("inuse", computer, seconds=2)
    if handler == "inuse" and name in {"reboot", "accounts"}:
        return site.ask("rebootsoft" if name == "reboot" else "servermodified", computer)
    if handler == "inuse":
        request = site.ask("inuse", computer)
        site.execute("UPDATE reservation SET lastcheck = NOW() - INTERVAL 1 HOUR")
        return request
    if handler == "reclaim":
        last = "reserved" if name in {"tags", "sanitize"} else "inuse"
        return site.ask("deleted", computer, laststate=last)
    if handler == "image":
        state = "checkpoint" if name in {"power-on", "reserve"} else "image"
        image, revision = (IMAGE, NEW_REVISION) if computer == 1 else (OTHER_IMAGE, OTHER_REVISION)
        return site.ask(state, computer, laststate="inuse", image=image, revision=revision)
    if handler == "makeproduction":
        return site.ask("makeproduction", computer, laststate="inuse", revision=NEW_REVISION)
    if step == "new:maintenance":
        return site.ask("tomaintenance", computer)
    if step == "new:fixed-address":
        request = site.ask("new", computer, start=90000, seconds=180000)
        site.execute(
            "INSERT INTO serverrequest (name, requestid, fixedIP)"
            f" VALUES ('server', {request}, '192.0.2.{computer}')"
        )
        site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")
        return request
    if step == "new:children" or step == "reserved:cluster":
        return site.ask("new", computer, computer + 4)
    return site.ask("new", computer)
