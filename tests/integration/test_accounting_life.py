"""What the accounting says of lives through the real daemon."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, inspect
from sqlalchemy.engine import make_url

from tests.accounts import Accounts, installed
from tests.daemon import Daemons, eventually
from tests.mariadb import Server
from tests.site import NEW_REVISION, Site
from vcld.accounting.codes import LcmState, Reason, VmState
from vcld.schema import models as m

RUNNING = (VmState.ACTIVE, LcmState.RUNNING)
DONE = (VmState.DONE, LcmState.LCM_INIT)


def times(stay: Any) -> list[int]:
    """The times of a stay that are set, in the order in which they must come."""
    columns = (stay.stime, stay.pstime, stay.petime, stay.rstime, stay.retime, stay.estime,
               stay.eetime, stay.etime)  # fmt: skip
    return [at for at in columns if at]


def ready(site: Site, daemons: Daemons, computer: int = 1, **facts: Any) -> tuple[int, int]:
    """A request whose computer is reserved, and its reservation."""
    request = site.ask("new", computer, **facts)
    eventually(lambda: site.pair(request) == "pending/reserved")
    return request, site.reservations(request)[0]


def used(site: Site, daemons: Daemons, computer: int = 1, **facts: Any) -> tuple[int, int]:
    """A request whose user is connected."""
    request, vm = ready(site, daemons, computer, **facts)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved")
    return request, vm


def test_vm_is_accounted_from_its_load_to_its_reclaim(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemons.start(accounting_interval=600)  # nothing is measured meanwhile

    request, vm = used(site, daemons)

    assert accounts.state(vm) == RUNNING
    stay = accounts.stays(vm)[0]
    assert (stay.host_name, stay.hid, stay.vm_mad) == ("vm1.example.org", 1, "simulator")
    assert stay.etime == stay.retime == 0
    assert stay.rstime >= stay.petime >= stay.pstime >= stay.stime > 0
    row = accounts.vm(vm)
    assert row.name == "The first on vm1"
    assert (row.memory, row.cpu) == (4096 * 1024, 200)
    assert f"<REQUEST_ID>{request}</REQUEST_ID>" in row.template
    users = {user.oid: user.user_name for user in accounts.rows("user_pool")}
    assert users[row.uid] == "ada@Local"

    site.end(request)

    eventually(lambda: accounts.state(vm) == DONE)
    assert site.pair(request) == "gone"
    stay = accounts.stays(vm)[0]
    assert stay.reason == Reason.USER
    assert times(stay) == sorted(times(stay))
    assert len(times(stay)) == 8
    assert accounts.vm(vm).etime == stay.etime
    eventually(lambda: len(accounts.rows("vm_pool")) == 2)
    reload = max(row.oid for row in accounts.rows("vm_pool"))
    eventually(lambda: accounts.state(reload) == DONE)
    assert accounts.vm(reload).uid != row.uid
    assert [host.oid for host in accounts.rows("host_pool")] == [1]


def test_without_tables_nothing_is_recorded(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()

    used(site, daemons)

    assert not daemon.events("accounting was refused; 'vcld accounting check' tells what is amiss")


def test_failed_load_has_no_running_time(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    site.write_script(rules=[{"step": "machinebooted", "error": "LoadTimeoutError"}])
    daemons.start()

    request = site.ask("new", 1)
    vm = site.reservations(request)[0]

    eventually(lambda: accounts.state(vm) == (VmState.FAILED, LcmState.LCM_INIT))
    (stay,) = accounts.stays(vm)
    assert stay.reason == Reason.ERROR
    assert stay.rstime == stay.retime == 0
    assert stay.pstime > 0
    assert stay.petime > 0
    assert stay.etime > 0


def test_load_that_fails_once_its_system_runs_has_no_running_time_either(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    site.write_script(rules=[{"step": "new:reserve", "error": "LoadTimeoutError"}])
    daemons.start()

    request = site.ask("new", 1)
    vm = site.reservations(request)[0]

    eventually(lambda: accounts.state(vm) == (VmState.FAILED, LcmState.LCM_INIT))
    (stay,) = accounts.stays(vm)
    assert "loadimagecomplete" in site.steps(request)
    assert (stay.reason, stay.rstime, stay.retime) == (Reason.ERROR, 0, 0)
    assert 0 < stay.petime <= stay.etime


def test_reinstall_is_a_second_stay(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    daemons.start()
    request, vm = used(site, daemons)

    site.set_state(request, "reinstall")

    eventually(lambda: len(accounts.stays(vm)) == 2 and accounts.state(vm) == RUNNING)
    first, second = accounts.stays(vm)
    assert first.reason == Reason.STOP_RESUME
    assert first.etime == first.retime > 0
    assert first.etime <= second.stime
    assert second.etime == 0
    assert accounts.vm(vm).last_seq == 1


def test_vm_that_moved_to_another_host_has_a_stay_on_each(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    with site.engine.begin() as c:
        c.execute(insert(m.VMProfile).values(
            id=7, profilename="esx", imageid=2, datastorepath="ds1"))  # fmt: skip
        for vmhost, computer in ((70, 9), (71, 8)):
            c.execute(insert(m.VMHost).values(id=vmhost, computerid=computer, vmprofileid=7))
    site.execute("UPDATE computer SET vmhostid = 70 WHERE id = 1")
    daemons.start()
    request, vm = used(site, daemons)
    site.execute("UPDATE computer SET vmhostid = 71 WHERE id = 1")

    site.set_state(request, "reinstall", "inuse")

    eventually(lambda: [stay.hid for stay in accounts.stays(vm)] == [9, 8])
    eventually(lambda: accounts.state(vm) == RUNNING)
    first, second = accounts.stays(vm)
    assert (first.reason, second.host_name) == (Reason.STOP_RESUME, "vm8.example.org")
    assert 0 < first.retime <= first.etime <= second.stime


def test_checkpoint_stops_and_resumes(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    daemons.start()
    request, vm = used(site, daemons)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "checkpoint")

    eventually(lambda: site.pair(request) == "inuse/reserved")
    first, second = accounts.stays(vm)
    assert first.reason == Reason.STOP_RESUME
    assert first.retime <= first.estime <= first.eetime
    assert second.rstime > 0
    assert second.pstime == 0
    assert accounts.state(vm) == RUNNING


def test_failed_capture_suspends_the_vm(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    daemons.start()
    request, vm = used(site, daemons)
    site.write_script(rules=[{"step": "capture", "error": "LoadTimeoutError", "message": "stuck"}])
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "maintenance/image")
    assert accounts.state(vm) == (VmState.SUSPENDED, LcmState.LCM_INIT)
    (stay,) = accounts.stays(vm)
    assert stay.reason == Reason.ERROR
    assert stay.etime == stay.eetime > 0


def test_absence_of_the_user_is_a_cancellation(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    site.variable("acknowledgetimeout", 1)
    daemons.start()

    request = site.ask("new", 1)
    vm = site.reservations(request)[0]

    eventually(lambda: site.pair(request) == "complete/timeout")
    assert accounts.state(vm) == DONE
    assert [stay.reason for stay in accounts.stays(vm)] == [Reason.CANCEL]


def test_cluster_has_a_vm_for_each_reservation(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemons.start()

    request = site.ask("new", 1, 2)
    vms = site.reservations(request)

    eventually(lambda: all(accounts.state(vm) == RUNNING for vm in vms))
    for vm in vms:
        assert f"<CLUSTER_PARENT>{vms[0]}</CLUSTER_PARENT>" in accounts.vm(vm).template
    eventually(lambda: site.pair(request) == "pending/reserved")
    site.end(request)
    eventually(lambda: all(accounts.state(vm) == DONE for vm in vms))
    assert [len(accounts.stays(vm)) for vm in vms] == [1, 1]


def test_failed_cluster_ends_all_its_vms(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    site.write_script(
        rules=[{"step": "machinebooted", "computer": "vm2", "error": "LoadTimeoutError"}]
    )
    daemons.start()

    request = site.ask("new", 1, 2)
    vms = site.reservations(request)

    failed = (VmState.FAILED, LcmState.LCM_INIT)
    eventually(lambda: [accounts.state(vm) for vm in vms] == [failed, failed])
    assert [accounts.stays(vm)[0].reason for vm in vms] == [Reason.ERROR, Reason.ERROR]


def test_dead_workers_load_is_a_stay_of_its_own(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    site.write_script(rules=[{"step": "transfervm", "times": 1, "signal": "KILL"}])
    daemons.start()

    _, vm = ready(site, daemons)

    first, second = accounts.stays(vm)
    assert first.reason == Reason.ERROR
    assert first.rstime == 0
    assert second.rstime > 0
    assert second.etime == 0


def test_vm_older_than_its_accounting_is_taken_in_as_it_is(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemon = daemons.start()
    request, vm = used(site, daemons)
    with site.engine.begin() as c:
        c.execute(accounts.tables.history.delete())
        c.execute(accounts.tables.vm_pool.delete())

    site.end(request)

    eventually(lambda: accounts.state(vm) == DONE, daemon.describe)
    (stay,) = accounts.stays(vm)
    assert (stay.seq, stay.rstime) == (0, 0)
    assert stay.estime > 0


def test_operators_cancellation_is_told_as_such(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemon = daemons.start()
    request, vm = used(site, daemons)

    assert daemon.command("cancel", str(request)).returncode == 0

    eventually(lambda: accounts.state(vm) == DONE)
    assert [stay.reason for stay in accounts.stays(vm)] == [Reason.CANCEL]


def test_accounts_in_another_schema_are_written_likewise(
    site: Site, daemons: Daemons, mariadb: Server
) -> None:
    schema = str(make_url(mariadb.create_database("accounts_elsewhere")).database)
    try:
        with installed(site.engine, schema) as elsewhere:
            daemons.start(accounting_database=schema)

            _, vm = used(site, daemons)

            assert elsewhere.state(vm) == RUNNING
            assert "history" not in inspect(site.engine).get_table_names()
    finally:
        mariadb.drop_database("accounts_elsewhere")


def test_removed_request_ends_its_vm(site: Site, daemons: Daemons, accounts: Accounts) -> None:
    daemons.start()
    request, vm = ready(site, daemons)

    site.delete(request)

    eventually(lambda: accounts.state(vm) == DONE)
    assert [stay.reason for stay in accounts.stays(vm)] == [Reason.CANCEL]


def test_reload_in_advance_waits_without_a_stay(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemons.start()

    request = site.ask("new", 1, start=30 * 60)
    vm = site.reservations(request)[0]

    eventually(lambda: accounts.state(vm) == (VmState.PENDING, 0) and accounts.stays(vm))
    eventually(lambda: accounts.stays(vm)[0].etime > 0)
    assert accounts.vm(vm).last_seq == 0
    assert site.scalar(f"SELECT preload FROM request WHERE id = {request}") == 1


@settings(
    max_examples=3, deadline=None, phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    deaths=st.lists(
        st.sampled_from(["new:*", "transfervm", "startvm", "machinebooted", "reserved:*",
                         "reclaim:*", "inuse:*", "image:*"]),
        min_size=1, max_size=4, unique=True,
    ),
    errors=st.lists(st.sampled_from(["startload", "machinebooted", "capture", "sanitize"]), max_size=2),
    wishes=st.lists(st.sampled_from(["deleted", "reinstall", "image", "checkpoint", "reboothard"]),
                    min_size=4, max_size=4),
)  # fmt: skip
def test_random_lives_and_deaths_hold_the_rules(
    site: Site, daemons: Daemons, accounts: Accounts,
    deaths: list[str], errors: list[str], wishes: list[str],
) -> None:  # fmt: skip
    rules: list[dict[str, object]] = [
        {"step": step, "probability": 0.15, "times": 3, "signal": "KILL"} for step in deaths
    ]
    rules += [{"step": step, "probability": 0.3, "error": "LoadTimeoutError"} for step in errors]
    site.write_script(rules=rules)
    site.execute("DELETE FROM request")
    site.execute("UPDATE computer SET stateid = (SELECT id FROM state WHERE name = 'available')")
    daemon = daemons.start(name=f"vcld{time.monotonic_ns()}")
    requests = [site.ask("new", *computers) for computers in ((1,), (2, 3), (4,), (5,))]
    for wish, request in zip(wishes, requests, strict=True):
        site.connect(request)
        with contextlib.suppress(AssertionError):
            eventually(lambda r=request: site.pair(r) == "inuse/reserved", limit_seconds=6)  # type: ignore[misc]
            site.set_state(request, wish)
    time.sleep(2)
    assert accounts.breaches() == []
    site.write_script(rules=[])
    for request in requests:
        if site.pair(request) != "gone":
            site.set_state(request, "deleted", "inuse")

    ended = {VmState.DONE, VmState.FAILED}
    eventually(lambda: {row.state for row in accounts.rows("vm_pool")} <= ended, daemon.describe)
    assert accounts.breaches() == []
    daemon.stop()


def test_worker_that_dies_after_a_checkpoint_opens_no_second_stay(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemons.start()
    request, vm = used(site, daemons)
    site.write_script(rules=[{"step": "reserved:grant-access", "times": 1, "signal": "KILL"}])
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "checkpoint")

    eventually(lambda: site.pair(request) == "inuse/reserved")
    first, second = accounts.stays(vm)
    assert first.etime > 0
    assert (second.etime, accounts.state(vm)) == (0, RUNNING)
    assert accounts.breaches() == []


def test_session_that_goes_on_after_its_end_had_begun_is_counted_to_the_real_end(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    """Its user has it extended while it is being taken back, or an operator sets it back."""
    daemon = daemons.start()
    request, vm = used(site, daemons)
    site.write_script(rules=[{"step": "reclaim:start", "hang": True}])
    site.set_state(request, "timeout", "inuse")
    eventually(lambda: "timeout" in site.steps(request) or daemon.workers())
    eventually(lambda: accounts.state(vm) == (VmState.ACTIVE, LcmState.EPILOG))

    site.set_state(request, "inuse", "inuse")
    site.execute("UPDATE reservation SET lastcheck = NOW() - INTERVAL 1 HOUR")

    eventually(lambda: accounts.state(vm) == RUNNING, daemon.describe)
    first, second = accounts.stays(vm)
    assert (first.retime, first.eetime) == (first.estime, first.etime)
    assert second.rstime == second.stime >= first.etime
    assert (second.estime, second.etime) == (0, 0)
    assert accounts.breaches() == []


def test_session_that_an_operator_begins_in_mid_load_is_counted(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    site.write_script(rules=[{"step": "startvm", "hang": True}])
    daemon = daemons.start()
    request = site.ask("new", 1)
    (vm,) = site.reservations(request)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)

    site.set_state(request, "inuse", "inuse")
    site.execute("UPDATE reservation SET lastcheck = NOW() - INTERVAL 1 HOUR")

    eventually(lambda: accounts.state(vm) == RUNNING, daemon.describe)
    first, second = accounts.stays(vm)
    assert (first.rstime, first.etime > 0) == (0, True)
    assert second.rstime > 0
    assert accounts.breaches() == []
