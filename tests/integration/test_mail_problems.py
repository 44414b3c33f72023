"""Administrators hear of what goes wrong, by mail, as VCL's do (specification §1.4)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon import Daemons, eventually
from tests.post_office import PostOffice
from tests.site import Site


@pytest.fixture
def office(site: Site) -> Iterator[PostOffice]:
    site.execute("UPDATE managementnode SET sysadminEmailAddress = 'root@example.org'")
    with PostOffice.open() as post_office:
        yield post_office


def problems(office: PostOffice) -> list[str]:
    subjects = (str(office.mail(n)["Subject"]).strip() for n in range(len(office.envelopes)))
    return [subject for subject in subjects if subject.startswith("PROBLEM")]


def test_failed_load_is_mailed_with_its_reason_and_history(
    site: Site, daemons: Daemons, office: PostOffice
) -> None:
    rule = {"step": "startvm", "error": "LoadTimeoutError", "message": "no answer after power-on"}
    site.write_script(rules=[rule])
    daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=office.port)

    request = site.ask("new", 1)

    eventually(lambda: problems(office), daemon.describe)
    (subject,) = problems(office)
    assert f"node1|{request}:" in subject
    assert "|new|new:load|vm1|simulator-first-v1|ada" in subject
    body = str(office.mail().get_content())
    assert "no answer after power-on" in body
    assert "transfervm: copying the image" in body


def test_session_in_trouble_is_mailed_once(
    site: Site, daemons: Daemons, office: PostOffice
) -> None:
    site.write_script(rules=[{"step": "inuse:accounts", "error": "ProvisioningError"}])
    daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=office.port)
    site.set_computer(1, "inuse")
    request = site.ask("servermodified", 1, laststate="inuse")
    eventually(lambda: site.pair(request) == "inuse/servermodified", daemon.describe)
    eventually(lambda: problems(office), daemon.describe)

    site.set_state(request, "servermodified", "inuse")

    eventually(lambda: len(daemon.events("work ended", request_id=request)) == 2, daemon.describe)
    eventually(lambda: not daemon.workers(), daemon.describe)
    assert len(problems(office)) == 1


def test_request_whose_workers_died_too_often_is_mailed(
    site: Site, daemons: Daemons, office: PostOffice
) -> None:
    site.write_script(rules=[{"step": "new:load", "signal": "KILL"}])
    daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=office.port, max_attempts=1)

    request = site.ask("new", 1)

    eventually(lambda: problems(office), daemon.describe)
    (subject,) = problems(office)
    assert f"node1|{request}:" in subject
    assert "was killed by SIGKILL" in str(office.mail().get_content())
    assert daemon.stop() == 0


def test_request_with_broken_rows_is_mailed(
    site: Site, daemons: Daemons, office: PostOffice
) -> None:
    request = site.ask("new", 1)
    with site.engine.begin() as c:
        c.exec_driver_sql("SET foreign_key_checks = 0")
        c.exec_driver_sql("UPDATE reservation SET imagerevisionid = 999")

    daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=office.port)

    eventually(lambda: problems(office), daemon.describe)
    assert problems(office) == [f"PROBLEM -- node1|{request}|new"]
    assert "the image revision 999 has no row" in str(office.mail().get_content())
