"""Images that only another management node has: fetched from real OpenSSH servers."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import FIRST, SECOND, EsxiSite, daemon_keys, make_site
from tests.site import REVISION
from tests.ssh_hosts import Host, Network
from tests.steps import step_names
from vcld.provisioning import esxi
from vcld.provisioning.esxi.marker import Marker

daemons = esxi_fixtures.daemons
STEPS = [step for step in step_names(Path(esxi.__file__).parent) if step.startswith("retrieve:")]
NODES = ("node1.example.org", "node2.example.org", "node3.example.org")
ROOT = "/var/vcl/vmware_images"
DISK = json.dumps({"imagerevision_id": REVISION, "disk": FIRST}).ljust(9 << 20)


@pytest.fixture(params=["local", "datastore"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the repository is."""
    return str(request.param)


@pytest.fixture
def nodes() -> tuple[str, ...]:
    return NODES[:2]


@pytest.fixture
def site(
    place: str, nodes: tuple[str, ...], database: Engine, tmp_path: Path
) -> Iterator[EsxiSite]:
    """Node 1 has no image; the others share theirs with it."""
    made = make_site(database, tmp_path, "esx", nodes=nodes)
    made.let_every_node_manage_all()
    shutil.rmtree(made.repository / FIRST)
    shutil.rmtree(made.repository / SECOND)
    if place == "local":
        archive = made.folder / "archive"
        made.execute(f"UPDATE vmprofile SET repositorypath = '{archive}'")
    made.execute(
        "UPDATE managementnode SET imagelibenable = 1, imagelibgroupid ="
        " (SELECT id FROM resourcegroup WHERE name = 'all of type managementnode')"
    )
    yield made
    made.stop()


@pytest.fixture
def partner(site: EsxiSite, ssh_network: Network) -> Host:
    """Node 2, which has the image."""
    host = ssh_network.host("partner")
    fill(host)
    known_as(site, 2, host)
    return host


def known_as(site: EsxiSite, node: int, host: Host, **columns: Any) -> None:
    """Let a management node be a host, as the rows tell of it."""
    facts = {
        "IPaddress": host.private,
        "sshport": 22,
        "imagelibuser": "root",
        "installpath": "/var/vcl",
        **columns,
    }
    with site.engine.begin() as c:
        texts = ", ".join(f"{name} = %s" for name in facts)
        c.exec_driver_sql(
            f"UPDATE managementnode SET {texts} WHERE id = {node}", tuple(facts.values())
        )
        key = str(host.network.node_key)
        c.exec_driver_sql("UPDATE managementnode SET imagelibkey = %s WHERE id = 1", (key,))


def fill(host: Host, *, whole: bool = True) -> None:
    """Put the image, or half of its disk, where a Perl daemon would have put it."""
    folder = f"{ROOT}/{FIRST}"
    extent = f'RW {len(DISK) // 512} VMFS "{FIRST}-flat.vmdk"'
    size = len(DISK) if whole else len(DISK) // 2
    host.sh(
        f"mkdir -p {folder} && printf '%-{size}s' {shlex.quote(DISK.rstrip())}"
        f" > {folder}/{FIRST}-flat.vmdk"
        f" && printf '%s\\n' '# Disk DescriptorFile' {shlex.quote(extent)}"
        f" > {folder}/{FIRST}.vmdk"
        f" && echo 'guestOS = \"ubuntu-64\"' > {folder}/{FIRST}.vmx.reference"
    )


@pytest.fixture
def daemon(site: EsxiSite, partner: Host, daemons: Daemons) -> Daemon:
    return daemons.start(**daemon_keys(site))


def stored(site: EsxiSite) -> Path:
    """The repository's folder, on this machine or behind the host's datastore."""
    archive = site.folder / "archive"
    if "/archive" in str(
        site.scalar("SELECT repositorypath FROM vmprofile WHERE profilename = 'vcsim'")
    ):
        archive.mkdir(exist_ok=True)
        return archive
    return site.repository


def failed(site: EsxiSite, daemon: Daemon, request: int) -> str:
    ended = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe, 60)
    assert ended[0]["next_state"] == "failed", daemon.describe()
    assert site.computer(1) == "available"
    assert list(stored(site).iterdir()) == []
    assert site.machines() == {}
    return str(ended[0]["reason"])


def test_image_is_fetched_and_loaded(site: EsxiSite, daemon: Daemon, partner: Host) -> None:
    request = site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe, 60)

    assert site.world.computer("vm1").imagerevision_id == REVISION
    found = stored(site) / FIRST
    assert [path.name for path in stored(site).iterdir()] == [FIRST]
    names = {f"{FIRST}.vmdk", f"{FIRST}-flat.vmdk", f"{FIRST}.vmx.reference"}
    assert {path.name for path in found.iterdir()} == names
    assert (found / f"{FIRST}-flat.vmdk").read_text() == DISK
    assert site.machines()[f"vm1_{FIRST}"].guest_id == "ubuntu64Guest"
    texts = [text for name, text in site.load_log(request) if name == "copyfrompartnerMN"]
    assert texts[0].startswith(f"copying {FIRST} from node2.example.org, ")
    known = Path(f"{partner.network.node_key}.known_hosts").read_text()
    assert known.startswith(f"{partner.private} ssh-ed25519 ")
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def test_marker_of_a_partner_holds_where_a_disk_is_listed_as_one_file(
    site: EsxiSite, daemon: Daemon, partner: Host
) -> None:
    """Real hosts list disks so; the partner's marker names the files that it has."""
    folder = f"{ROOT}/{FIRST}"
    listed = partner.sh(f"cd {folder} && stat -c '%n %s' *").split()
    sizes = dict(zip(listed[::2], map(int, listed[1::2]), strict=True))
    text = Marker(image=FIRST, files=sizes).to_text()
    partner.sh(f"printf %s {shlex.quote(text)} > {folder}/vcld-image.json")
    site.vcsim.list_whole_disks()

    for computer in (1, 2):
        request = site.ask("reload", computer)
        eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)  # noqa: B023
        assert f"vm{computer}_{FIRST}" in site.machines(), daemon.describe()


def test_two_computers_that_lack_an_image_fetch_it_once(site: EsxiSite, daemon: Daemon) -> None:
    requests = [site.ask("reload", number) for number in (1, 2, 3)]

    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe, 60)

    assert len(daemon.events("image fetched")) == 1
    assert [site.computer(number) for number in (1, 2, 3)] == ["available"] * 3


@pytest.mark.parametrize("step", STEPS)
def test_fetching_whose_worker_is_killed_at_a_step_is_done_over(
    site: EsxiSite, daemon: Daemon, step: str
) -> None:
    site.write_script(rules=[{"step": step, "times": 1, "signal": "KILL"}])
    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)

    assert len(daemon.events("worker died, its work is repeated")) == 1
    assert site.computer(1) == "available"
    assert [path.name for path in stored(site).iterdir()] == [FIRST]


class TestOnThisMachine:
    """What does not depend on where the repository is."""

    @pytest.fixture
    def place(self) -> str:
        return "local"

    @pytest.fixture
    def nodes(self, request: pytest.FixtureRequest) -> tuple[str, ...]:
        return NODES if "still_receiving" in request.node.name else NODES[:2]

    def test_partner_that_is_still_receiving_is_not_copied_from(
        self, site: EsxiSite, partner: Host, ssh_network: Network, daemons: Daemons
    ) -> None:
        fill(partner, whole=False)
        # What came before makes it the largest all the same.
        partner.sh(f"truncate -s {len(DISK)} {ROOT}/{FIRST}/{FIRST}.old")
        other = ssh_network.host("other")
        fill(other)
        known_as(site, 3, other)
        daemon = daemons.start(**daemon_keys(site))
        request = site.ask("reload", 1)

        eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)

        (fetched,) = daemon.events("image fetched")
        assert fetched["partner"] == "node3.example.org"
        (told,) = daemon.events("a partner's image is not whole")
        assert f"{FIRST}-flat.vmdk is only" in told["reason"]

    def test_only_partner_with_half_an_image_fails_the_request(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        fill(partner, whole=False)

        text = failed(site, daemon, site.ask("reload", 1))

        assert "is not whole there" in text

    def test_file_that_came_otherwise_than_it_was_sent_is_thrown_away(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        """The partner's sums are those of other contents."""
        partner.sh(
            "printf '#!/bin/sh\nshift\nfor f; do echo \"0000  $f\"; done\n'"
            " > /usr/local/bin/sha256sum && chmod 755 /usr/local/bin/sha256sum"
            " && ln -sf /usr/local/bin/sha256sum /usr/bin/sha256sum"
        )

        text = failed(site, daemon, site.ask("reload", 1))

        assert "did not arrive as it was sent" in text

    def test_refused_key_is_named(self, site: EsxiSite, daemon: Daemon, partner: Host) -> None:
        known_as(site, 2, partner, imagelibuser="nobody")

        text = failed(site, daemon, site.ask("reload", 1))

        assert f"nobody@{partner.private} refuses the key {partner.network.node_key}" in text

    def test_partner_with_another_host_key_is_not_trusted(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        first = site.ask("reload", 1)
        eventually(lambda: site.pair(first) == "gone", daemon.describe, 60)
        shutil.rmtree(stored(site) / FIRST)
        shutil.rmtree(site.masters / FIRST)
        partner.change_key()
        site.set_computer(1, "reload")
        request = site.ask("reload", 1)

        ended = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)

        assert "shows another host key than before" in ended[0]["reason"]
        assert f"remove its line from {partner.network.node_key}.known_hosts" in ended[0]["reason"]

    @pytest.mark.parametrize(
        "columns",
        [
            {"imagelibuser": "`touch TRAP`"},
            {"imagelibuser": "-oProxyCommand=false"},
            {"installpath": "/var/$(touch TRAP); touch TRAP"},
            {"installpath": "/var/-e `touch TRAP`\n"},
        ],
        ids=["user", "option", "folder", "newline"],
    )
    def test_rows_never_become_options_or_words_of_a_shell(
        self, site: EsxiSite, daemon: Daemon, partner: Host, columns: dict[str, str]
    ) -> None:
        trap = Path(f"/tmp/t{secrets.token_hex(2)}")
        facts = {name: text.replace("TRAP", str(trap)) for name, text in columns.items()}
        known_as(site, 2, partner, **facts)

        failed(site, daemon, site.ask("reload", 1))

        assert not trap.exists()
        assert partner.sh(f"ls {trap}", check=False) == ""

    @pytest.mark.parametrize("name", ["../../etc/x", "-rf", "a*b", "$(touch x)", ".hidden"])
    def test_image_with_a_name_that_could_mean_something_else_is_refused(
        self, site: EsxiSite, daemon: Daemon, name: str
    ) -> None:
        with site.engine.begin() as c:
            query = "UPDATE imagerevision SET imagename = %s WHERE id = %s"
            c.exec_driver_sql(query, (name, REVISION))

        text = failed(site, daemon, site.ask("reload", 1))

        assert text == f"{name!r} cannot be the name of an image"

    def test_deleted_request_ends_the_fetching_within_seconds(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        partner.sh(
            "printf '#!/bin/sh\nsleep 600\n' > /usr/local/bin/sha256sum"
            " && chmod 755 /usr/local/bin/sha256sum"
            " && ln -sf /usr/local/bin/sha256sum /usr/bin/sha256sum"
        )
        request = site.ask("new", 1)
        eventually(lambda: any(stored(site).glob("*.vcld-*")), daemon.describe, 60)

        site.end(request)

        eventually(lambda: site.computer(1) == "available", daemon.describe, 10)
        eventually(lambda: list(stored(site).iterdir()) == [], daemon.describe, 10)

    def test_node_without_partners_says_so(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        site.execute("UPDATE managementnode SET imagelibenable = 0 WHERE id = 1")

        text = failed(site, daemon, site.ask("reload", 1))

        assert f"no management node shares {FIRST} with this one" in text

    def test_profile_without_a_repository_has_nowhere_to_fetch_to(
        self, site: EsxiSite, daemon: Daemon, partner: Host
    ) -> None:
        site.execute("UPDATE vmprofile SET repositorypath = NULL")

        text = failed(site, daemon, site.ask("reload", 1))

        assert "has no repositorypath to fetch it to" in text


def test_deleted_request_ends_a_copy_within_seconds_and_leaves_nothing(
    site: EsxiSite, daemon: Daemon, partner: Host
) -> None:
    """Fault 54, wherever the repository is."""
    partner.sh(
        "mv /usr/bin/cat /usr/bin/cat.real && printf '#!/bin/sh\\nsleep 600\\n' > /usr/bin/cat"
        " && chmod 755 /usr/bin/cat"
    )
    request = site.ask("new", 1)
    eventually(lambda: any(stored(site).glob("*.vcld-*")), daemon.describe, 60)
    eventually(lambda: site.load_log(request)[-1][0] == "copyfrompartnerMN", daemon.describe, 60)
    # The load that follows has nobody to ask.
    site.execute("UPDATE managementnode SET imagelibenable = 0 WHERE id = 1")

    site.end(request)

    eventually(lambda: daemon.events("work handed back"), daemon.describe, 10)
    eventually(lambda: list(stored(site).iterdir()) == [], daemon.describe, 10)
