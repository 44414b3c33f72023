"""Every error vcld raises on purpose, and the exit codes of its processes.

The message of an error is a sentence for the operator: it names the thing and, where
there is one, the remedy. It never holds a secret.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a vcld process tells its parent or the shell."""

    DONE = 0
    #: The arguments of the command make no sense.
    USAGE = 2
    #: The request ended in a failure that is recorded in the database.
    FAILED = 10
    #: Nothing was done; the same call may work later.
    TRY_LATER = 11
    #: The reservation was changed or taken away while it was being worked on.
    HANDED_BACK = 12
    #: A bug: an exception nobody expected.
    BUG = 70
    #: The database could not be reached.
    UNAVAILABLE = 75
    #: Configuration, permissions or the schema are wrong.
    CONFIG = 78


class VcldError(Exception):
    """Root of our errors. Show the message; do not catch this class to go on."""

    exit_code = ExitCode.FAILED


class UsageError(VcldError):
    """The arguments of a command make no sense. Nothing was done."""

    exit_code = ExitCode.USAGE


class ConfigError(VcldError):
    """The configuration cannot be used. Show every problem and stop before any claim."""

    exit_code = ExitCode.CONFIG

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(VcldError):
    """The database is out of reach. The supervisor goes on trying."""

    exit_code = ExitCode.UNAVAILABLE


class StoreRefusedError(StoreError):
    """The database answers, but refuses a statement: rights, schema or data are wrong."""


class ValueRefusedError(StoreRefusedError):
    """The database refuses a value: a key that exists already, a text too long or the like.

    Trying again cannot help. Fail what wanted to write it.
    """


class TableMissingError(StoreRefusedError):
    """The database lacks a table or a column that a statement names."""

    exit_code = ExitCode.CONFIG


class AccessRefusedError(StoreRefusedError):
    """The server knows no such database, does not let the user in, or not do what it asks."""

    exit_code = ExitCode.CONFIG


class SchemaError(VcldError):
    """The database is not a VCL schema that vcld can run on. Stop and say what is missing."""

    exit_code = ExitCode.CONFIG


class NotFoundError(VcldError):
    """A row that the caller named does not exist."""


class ReservationDataError(VcldError):
    """Rows of one reservation are missing or contradictory. Fail that request only."""


class UnknownModuleError(ReservationDataError):
    """No plugin is registered for a module name. Fail that reservation only."""


class ReservationChangedError(VcldError):
    """The request was changed, deleted or taken over. Not a failure: stop and touch nothing."""

    exit_code = ExitCode.HANDED_BACK


class Blame(enum.Enum):
    """What a failure says about the parts involved; decides who ends up ``failed``."""

    COMPUTER = "computer"
    VMHOST = "VM host"
    IMAGE = "image"
    MANAGEMENT_NODE = "management node"
    NOBODY = "nobody"


class ProvisioningError(VcldError):
    """Something outside failed. A retry may help; ``blame`` says whose fault it is."""

    def __init__(self, message: str, *, blame: Blame = Blame.COMPUTER) -> None:
        super().__init__(message)
        self.blame = blame


class BackendUnavailableError(ProvisioningError):
    """The hypervisor, xCAT or BMC does not answer. Retry; never blame the computer."""

    def __init__(self, message: str, *, blame: Blame = Blame.VMHOST) -> None:
        super().__init__(message, blame=blame)


class LoadTimeoutError(ProvisioningError):
    """A step did not end within its limit."""


class FatalProvisioningError(ProvisioningError):
    """A retry cannot help."""


class AuthenticationError(FatalProvisioningError):
    """Credentials were refused. Do not try again: accounts lock."""


class ImageNotFoundError(FatalProvisioningError):
    """The image is nowhere to be had. The computer is not at fault."""

    def __init__(self, message: str, *, blame: Blame = Blame.IMAGE) -> None:
        super().__init__(message, blame=blame)


class UnsupportedOperationError(FatalProvisioningError):
    """The plugin has no such operation. Take the path for plugins without it."""

    def __init__(self, message: str, *, blame: Blame = Blame.NOBODY) -> None:
        super().__init__(message, blame=blame)


class RemoteError(ProvisioningError):
    """The guest could not be reached or a command on it failed."""


class ConnectionLostError(RemoteError):
    """The connection broke. ``began`` says whether a command had been started on it."""

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


class CommandTimeoutError(RemoteError):
    """A command did not end within its limit; it was told to end."""


class HostKeyChangedError(RemoteError):
    """The computer that answers is not the one we know. Do not go on."""


class WorkerStopped(BaseException):
    """The worker must stop now. A BaseException, so that no plugin can swallow it.

    ``reason`` says why in a clause for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
