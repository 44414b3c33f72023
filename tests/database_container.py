"""A database server in a container, through testcontainers, on docker or podman.

``VCLD_TEST_IMAGE`` names the image: a public one such as ``docker.io/library/mysql:8.4``, or
``localhost/vcld-test-mariadb`` (the default with podman) or ``localhost/vcld-test-mysql``,
which are made from Debian's packages where they are not there yet. Where neither DOCKER_HOST
nor docker's own socket is there, podman's service is started for the time of the tests.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy.engine import URL

from tests.mariadb import Server, free_port

#: Images of ours are called so and end with the kind of the server.
OUR_IMAGES = "localhost/vcld-test-"
PUBLIC_IMAGE = "docker.io/library/mariadb:10.11"
BUILDER = Path(__file__).parent / "container" / "build-image"
DOCKER_SOCKET = Path("/var/run/docker.sock")
#: Lets podman work where it runs in a container itself, with few rights.
PODMAN_SETTINGS = """
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class PodmanService:
    """Podman's docker-like interface on a socket of our own."""

    def __init__(self) -> None:
        if shutil.which("podman") is None:
            raise RuntimeError(
                "VCLD_TEST_DATABASE=container needs docker or podman: apt-get install podman runc"
            )
        self.folder = Path(tempfile.mkdtemp(prefix="vcld-podman-"))
        settings = self.folder / "containers.conf"
        runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 10000)
        settings.write_text(PODMAN_SETTINGS.format(files=files) + runtime, encoding="utf-8")
        self.environ = {**os.environ, "CONTAINERS_CONF": str(settings)}
        self.socket = self.folder / "podman.sock"
        self._process = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{self.socket}"],
            env=self.environ,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("podman's service did not start; its reason is printed above")
            time.sleep(0.05)

    def make_image(self, name: str) -> None:
        """Make an image of ours unless it is there."""
        found = subprocess.run(
            ["podman", "image", "exists", name], env=self.environ, timeout=60, check=False
        )
        if found.returncode != 0:
            kind = name.removeprefix(OUR_IMAGES)
            subprocess.run([str(BUILDER), kind], env=self.environ, timeout=900, check=True)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


class DatabaseContainer(Server):
    """A container that can be killed and started again on the same data."""

    restartable = True

    def __init__(self, *, sql_mode: str | None = None) -> None:
        self.port = free_port()
        super().__init__(
            URL.create(
                "mysql+pymysql",
                username="root",
                password=secrets.token_hex(8),
                host="127.0.0.1",
                port=self.port,
            ),
            sql_mode=sql_mode,
        )
        self._service: PodmanService | None = None
        self._container: Any = None

    def start(self) -> None:
        if self._container is None:
            self._create()
        else:
            self._container.get_wrapped_container().start()
        deadline = time.monotonic() + 120
        while not self._answers():
            if time.monotonic() > deadline or self._status() == "exited":
                out, err = self._container.get_logs()
                tail = (out + err).decode(errors="replace")[-2000:]
                raise RuntimeError(f"the server in {self._container.image} did not start: {tail}")
            time.sleep(0.1)

    def _create(self) -> None:
        if "DOCKER_HOST" not in os.environ and not DOCKER_SOCKET.exists():
            self._service = PodmanService()
            os.environ["DOCKER_HOST"] = f"unix://{self._service.socket}"
        default = f"{OUR_IMAGES}mariadb" if self._service else PUBLIC_IMAGE
        image = os.environ.get("VCLD_TEST_IMAGE") or default
        if self._service and image.startswith(OUR_IMAGES):
            self._service.make_image(image)
        # The container that cleans up after us cannot be had everywhere.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        # It reads the environment when it is imported.
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        password = str(self.address.password)
        offset = time.strftime("%z")
        self._container = (
            DockerContainer(image)
            .with_bind_ports(3306, self.port)
            .with_envs(MARIADB_ROOT_PASSWORD=password, MYSQL_ROOT_PASSWORD=password)
            # VCL needs the database and the management node to agree on local time.
            .with_command([f"--default-time-zone={offset[:3]}:{offset[3:]}"])
        )
        self._container.start()

    def _answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except (OSError, pymysql.err.Error):
            return False
        return True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        container = self._container.get_wrapped_container()
        container.kill(signal=number.name)
        container.wait(timeout=60)

    def revive(self) -> None:
        status = self._status()
        if status == "paused":
            self._container.get_wrapped_container().unpause()
        elif status != "running":
            self.start()

    def _status(self) -> str:
        self._container.reload()
        return str(self._container.status)

    def remove(self) -> None:
        if self._container is not None:
            self._container.stop()
        if self._service is not None:
            self._service.stop()
            os.environ.pop("DOCKER_HOST", None)
