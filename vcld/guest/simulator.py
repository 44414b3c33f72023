"""The guest of the simulator: accounts, access and users that exist in files only."""

from __future__ import annotations

from collections.abc import Sequence

from vcld.errors import Blame, RemoteError
from vcld.guest.interface import EndState, Guest, ImageTags, Tools, UserConnection
from vcld.guest.simulated_world import Machine, World, now
from vcld.snapshot import Account, ConnectMethod, Reservation


class SimulatorGuest(Guest):
    """Does to a file what a real guest does to a computer."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        super().__init__(reservation, tools)
        self.world = World(tools.settings.simulator_config)
        self.name = reservation.computer.shortname

    def on_step(self, step: str) -> None:
        self.world.pass_step(step, self.reservation, self.tools.cancellation)

    def is_responding(self) -> bool:
        machine = self.world.machine(self.name)
        return machine.power == "on" and machine.imagerevision_id is not None

    def tags(self) -> ImageTags:
        machine = self._answering()
        return ImageTags(
            imagerevision_id=machine.imagerevision_id,
            post_load=machine.post_load,
            tainted=machine.tainted,
        )

    def tag_post_load(self) -> None:
        self._answering()
        with self.world.change(self.name) as machine:
            machine.post_load = True

    def tag_tainted(self, reason: str) -> None:
        self._answering()
        with self.world.change(self.name) as machine:
            machine.tainted = reason

    def post_load(self) -> str | None:
        self.on_step("guest:post-load")
        self._answering()
        with self.world.change(self.name) as machine:
            machine.open_to = None
            machine.connected_from = None
            machine.accounts = []
        return self.reservation.computer.IPaddress or None

    def reserve(self, accounts: Sequence[Account]) -> str | None:
        self.on_step("guest:reserve")
        self.sync_accounts(accounts)
        return self.reservation.computer.IPaddress or None

    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        self.on_step("guest:grant-access")
        self._answering()
        with self.world.change(self.name) as machine:
            machine.open_to = "*"
            machine.opened_at = now()

    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        self._answering()
        with self.world.change(self.name) as machine:
            machine.open_to = remote_ip or "*"

    def find_connection(
        self, remote_ip: str | None, methods: Sequence[ConnectMethod]
    ) -> UserConnection | None:
        self.on_step("guest:find-connection")
        machine = self._answering()
        visit = self.world.visit(self.reservation)
        since = now() - machine.opened_at
        address = visit.address or remote_ip
        comes = visit.connects_after is not None and since >= visit.connects_after
        gone = visit.leaves_after is not None and since >= visit.leaves_after
        allowed = machine.open_to == "*" or (address and machine.open_to == address)
        connected = address if comes and not gone and allowed else None
        if connected != machine.connected_from:
            with self.world.change(self.name) as changed:
                changed.connected_from = connected
        return UserConnection(connected) if connected else None

    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        self.on_step("guest:accounts")
        self._answering()
        with self.world.change(self.name) as machine:
            machine.accounts = sorted(account.user.login for account in accounts)

    def sanitize(self, accounts: Sequence[Account]) -> None:
        self.on_step("guest:sanitize")
        machine = self._answering()
        if machine.connected_from:
            raise RemoteError("a user is still connected", blame=Blame.NOBODY)
        with self.world.change(self.name) as machine:
            machine.accounts = []
            machine.open_to = None

    def reboot(self, *, hard: bool) -> None:
        self.on_step("guest:reboot")
        with self.world.change(self.name) as machine:
            machine.power = "on"
            machine.connected_from = None

    def shutdown(self) -> None:
        self.on_step("guest:shutdown")
        with self.world.change(self.name) as machine:
            machine.power = "off"

    def pre_capture(self, end_state: EndState) -> None:
        self.on_step("guest:pre-capture")
        with self.world.change(self.name) as machine:
            machine.accounts = []
            machine.open_to = None
            machine.power = end_state.value

    def set_fixed_ip(self, address: str) -> None:
        self.on_step("guest:fixed-address")

    def notify_console(self, text: str) -> None:
        self._answering()
        with self.world.change(self.name) as machine:
            machine.notices.append(text)

    def _answering(self) -> Machine:
        machine = self.world.machine(self.name)
        if machine.power != "on":
            raise RemoteError(f"{self.name} does not answer: it is {machine.power}")
        return machine
