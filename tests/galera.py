"""A Galera cluster of three private MariaDB servers on the loopback interface."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tests.mariadb import FAST, MariaDB, ServerMissingError, free_port

PROVIDERS = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
)
#: Where tools/need-galera puts what the server runs to copy its data.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
SCRIPTS = CACHE / "vcld-tests" / "galera"
#: The state transfer cannot be made by root; any other user without rights will do.
UNPRIVILEGED = "nobody"
#: A node that is silent for two seconds is put out.
QUICK = "evs.suspect_timeout=PT2S;evs.keepalive_period=PT0.5S;evs.install_timeout=PT5S"


class Node(MariaDB):
    """One server of the cluster."""

    def start(self) -> None:
        scripts = self.folder / "scripts"
        if SCRIPTS.exists():
            # A home folder may be closed to the user that the server runs as.
            shutil.copytree(SCRIPTS, scripts, dirs_exist_ok=True)
        self.environ = {**os.environ, "PATH": f"{_path()}:{scripts}"}
        # At each start: the server makes some files before it gives up being root.
        _give_away(self.folder)
        super().start()


class Galera:
    """``nodes`` are servers like any other; what one commits, the others hold too."""

    def __init__(self, count: int = 3) -> None:
        provider = next((path for path in PROVIDERS if Path(path).exists()), None)
        script = shutil.which("wsrep_sst_rsync", path=f"{_path()}:{SCRIPTS}")
        if provider is None or script is None or shutil.which("rsync") is None:
            raise ServerMissingError("Galera is needed: run tools/need-galera")
        self.nodes: list[MariaDB] = []
        groups = [free_port() for _ in range(count)]
        self._address = "gcomm://" + ",".join(f"127.0.0.1:{port}" for port in groups)
        for group in groups:
            self.nodes.append(
                Node.install(
                    *FAST,
                    *_user(),
                    "--binlog-format=ROW",
                    "--innodb-autoinc-lock-mode=2",
                    "--wsrep-on=ON",
                    f"--wsrep-provider={provider}",
                    "--wsrep-cluster-name=vcld-test",
                    "--wsrep-node-address=127.0.0.1",
                    f"--wsrep-node-incoming-address=127.0.0.1:{group}",
                    "--wsrep-sst-method=rsync",
                    f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
                    f"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};"
                    f"ist.recv_addr=127.0.0.1:{free_port()};gcache.size=32M;{QUICK}",
                )
            )

    def start(self) -> Galera:
        for number, node in enumerate(self.nodes):
            joining = node.options
            node.options = (
                *joining,
                *(("--wsrep-new-cluster",) if number == 0 else ()),
                f"--wsrep-cluster-address={self._address if number else 'gcomm://'}",
            )
            node.start()
            node.options = (*joining, f"--wsrep-cluster-address={self._address}")
        return self

    def size(self, node: int = 0) -> int:
        """How many nodes this one sees, itself included."""
        ((_, value),) = self.nodes[node].query("SHOW STATUS LIKE 'wsrep_cluster_size'")
        return int(str(value))

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


def _user() -> list[str]:
    return [f"--user={UNPRIVILEGED}"] if os.geteuid() == 0 else []


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        owner = pwd.getpwnam(UNPRIVILEGED).pw_uid
        subprocess.run(["chown", "-R", str(owner), str(folder)], check=True, timeout=60)
