"""The guest of the simulator: accounts, access and users that exist in files only."""

from __future__ import annotations

from collections.abc import Sequence

from vcld import clock
from vcld.errors import Blame, RemoteError
from vcld.guest.interface import EndState, Guest, ImageTags, Tools, UserConnection
from vcld.guest.simulated_steps import pass_step
from vcld.guest.simulated_world import ANYBODY, SimulatedAccount, SimulatedComputer, World
from vcld.snapshot import Account, ConnectMethod, Reservation


class SimulatorGuest(Guest):
    """Does to a file what a real guest does to a computer.

    Every method but ``is_responding`` passes a step, ``guest:`` and its name, at which the
    script may delay it or let it fail.
    """

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        super().__init__(reservation, tools)
        self.world = World(tools.settings.simulator_config)
        self.name = reservation.computer.node_name

    def on_step(self, step: str) -> None:
        pass_step(self.world, step, self.reservation, self.tools.cancellation)

    def is_responding(self) -> bool:
        return self.world.computer(self.name).is_answering

    def tags(self) -> ImageTags:
        self.on_step("guest:tags")
        computer = self._answering()
        return ImageTags(
            imagerevision_id=computer.imagerevision_id,
            post_load=computer.post_load,
            tainted=computer.tainted,
        )

    def tag_post_load(self) -> None:
        self._answering()
        with self.world.change(self.name) as computer:
            computer.post_load = True

    def tag_tainted(self, reason: str) -> None:
        self._answering()
        with self.world.change(self.name) as computer:
            if reason not in computer.tainted.split(","):
                computer.tainted = ",".join(filter(None, (computer.tainted, reason)))

    def check_status(self) -> str | None:
        self.on_step("guest:check-status")
        return None

    def pre_reload(self) -> None:
        self.on_step("guest:pre-reload")

    def post_load(self) -> str | None:
        self.on_step("guest:post-load")
        self._answering()
        with self.world.change(self.name) as computer:
            computer.close()
            computer.users = {}
        return self._find_address()

    def reserve(self, accounts: Sequence[Account]) -> str | None:
        self.on_step("guest:reserve")
        self._set_accounts(accounts)
        return self._find_address()

    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        self.on_step("guest:grant-access")
        self._answering()
        with self.world.change(self.name) as computer:
            if computer.open_to is None:
                computer.opened_at = clock.epoch()
            computer.open_to, computer.open_ports = ANYBODY, _ports(methods)

    def post_reserve(self) -> bool:
        self.on_step("guest:post-reserve")
        return self.world.script.has_post_reserve_script(self.name)

    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        self.on_step("guest:restrict-access")
        self._answering()
        with self.world.change(self.name) as computer:
            if computer.open_to is None:
                computer.opened_at = clock.epoch()
            computer.open_to, computer.open_ports = remote_ip or ANYBODY, _ports(methods)
            computer.connected = {
                login: address
                for login, address in computer.connected.items()
                if computer.lets_in(login, address)
            }

    def post_initial_connection(self) -> None:
        self.on_step("guest:post-initial-connection")

    def find_connection(
        self, remote_ip: str | None, methods: Sequence[ConnectMethod]
    ) -> UserConnection | None:
        del methods  # a connection ends with its port
        self.on_step("guest:find-connection")
        computer = self._answering()
        if self._connections(computer, remote_ip) != computer.connected:
            with self.world.change(self.name) as computer:
                computer.connected = self._connections(computer, remote_ip)
        addresses = computer.connected
        owner = self.reservation.request.user.login
        found = addresses.get(owner) or next(iter(addresses.values()), None)
        return UserConnection(found) if found else None

    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        self.on_step("guest:sync-accounts")
        self._set_accounts(accounts)

    def sanitize(self, accounts: Sequence[Account]) -> None:
        del accounts  # all go
        self.on_step("guest:sanitize")
        self._answering()
        with self.world.change(self.name) as computer:
            present = self._connections(computer, None)
            if present.keys() & computer.connected.keys():
                raise RemoteError(f"a user is connected to {self.name}", blame=Blame.NOBODY)
            computer.close()
            computer.users, computer.cluster, computer.steered = {}, [], False

    def reboot(self, *, hard: bool) -> None:
        self.on_step("guest:hard-reboot" if hard else "guest:reboot")
        with self.world.change(self.name) as computer:
            computer.set_power("off")
            computer.set_power("on")
        self._answering()

    def shutdown(self) -> None:
        self.on_step("guest:shutdown")
        self.world.set_power(self.name, "off")

    def pre_capture(self, end_state: EndState) -> None:
        self.on_step("guest:pre-capture")
        revision = self.reservation.imagerevision.id
        with self.world.change(self.name) as computer:
            # The tags are written before the computer goes off: a repeated call finds it so.
            done = computer.imagerevision_id == revision and not computer.users
            if not (computer.is_answering or (done and computer.power == end_state.value)):
                raise self._no_answer(computer)
            computer.close()
            computer.users, computer.cluster, computer.notices = {}, [], []
            computer.imagerevision_id, computer.post_load, computer.tainted = revision, False, ""
            computer.set_power(end_state.value)

    def post_reservation(self) -> None:
        self.on_step("guest:post-reservation")

    def post_capture(self) -> None:
        self.on_step("guest:post-capture")

    def update_cluster(self) -> None:
        self.on_step("guest:update-cluster")
        self._answering()
        with self.world.change(self.name) as computer:
            siblings = self.reservation.siblings
            computer.cluster = [s.privateIPaddress or s.IPaddress for s in siblings]

    def set_fixed_ip(self, address: str) -> None:
        self.on_step("guest:set-fixed-ip")
        self._answering()
        with self.world.change(self.name) as computer:
            computer.public_ip = address

    def notify_console(self, text: str) -> None:
        self.on_step("guest:notify-console")
        self._answering()
        with self.world.change(self.name) as computer:
            computer.notices.append(text)

    def _answering(self) -> SimulatedComputer:
        computer = self.world.computer(self.name)
        if not computer.is_answering:
            raise self._no_answer(computer)
        return computer

    def _no_answer(self, computer: SimulatedComputer) -> RemoteError:
        why = f"it is {computer.power}"
        if computer.power == "on":
            why = "it holds nothing" if computer.reachable else "nothing reaches it"
        return RemoteError(f"{self.name} does not answer: {why}")

    def _set_accounts(self, accounts: Sequence[Account]) -> None:
        self._answering()
        with self.world.change(self.name) as computer:
            wanted = {account.user.login: account for account in accounts}
            computer.users = {
                login: _account(computer.users.get(login), account)
                for login, account in wanted.items()
            }
            computer.connected = {
                login: address for login, address in computer.connected.items() if login in wanted
            }

    def _find_address(self) -> str | None:
        """Take the public address that the script gives the computer, or else the database's."""
        found = self.world.script.find_address(self.name)
        with self.world.change(self.name) as computer:
            known = computer.public_ip or self.reservation.computer.IPaddress
            computer.public_ip = found or known
        return found

    def _connections(self, computer: SimulatedComputer, remote_ip: str | None) -> dict[str, str]:
        """Who is connected now, by what the script says of the reservation's user."""
        if computer.steered:
            return computer.connected
        login = self.reservation.request.user.login
        visit = self.world.script.find_visit(self.reservation)
        address = visit.address or remote_ip or computer.connected.get(login)
        present = visit.is_present(clock.epoch() - computer.opened_at)
        others = {name: ip for name, ip in computer.connected.items() if name != login}
        if present and address and computer.lets_in(login, address):
            return {**others, login: address}
        return others


def _account(known: SimulatedAccount | None, account: Account) -> SimulatedAccount:
    """The account as wanted; one that is so already stays as it is."""
    made = SimulatedAccount.make(account)
    if known is None:
        return made
    same_password = known.accepts(account.password) if account.password else not known.password_hash
    facts = (known.uid, known.root_access, known.public_keys)
    same = same_password and facts == (made.uid, made.root_access, made.public_keys)
    return known if same else made


def _ports(methods: Sequence[ConnectMethod]) -> list[str]:
    return sorted(
        {
            f"{protocol}:{port}"
            for method in methods
            if not method.disabled
            for port, protocol in method.ports
        }
    )
