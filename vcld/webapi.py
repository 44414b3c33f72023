"""Calls to the web site's XML-RPC interface."""

from __future__ import annotations

import http.client
import ssl
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit
from xml.parsers.expat import ExpatError

from vcld.config import Secret, Settings
from vcld.config.redaction import redact
from vcld.errors import (
    AuthenticationError,
    BackendUnavailableError,
    Blame,
    ConfigError,
    FatalProvisioningError,
)

API_VERSION = "2"
_BLAME = Blame.MANAGEMENT_NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """What the web site did for a block time."""

    #: success, warning, error or completed.
    status: str
    allocated: int = 0
    unallocated: int = 0
    errorcode: int | None = None
    errormsg: str = ""
    warningcode: int | None = None
    warningmsg: str = ""


class WebApi:
    """The web site, asked as one of its users. Each call has a connection of its own.

    All calls raise BackendUnavailableError when the site does not answer as it should, and
    FatalProvisioningError when it refuses; both blame the management node.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: Secret,
        *,
        timeout_seconds: float = 30.0,
        verify_tls: bool = True,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: Address of the interface, without a name or password in it.
            username: Such as ``vclsystem@Local``.
            password: Sent with every call.
            timeout_seconds: Limit for connecting and for each wait for the site.
            verify_tls: False trusts any certificate.

        Raises:
            ConfigError: the address, name or password cannot be used.
        """
        parts = _split(url)
        for key, value in (("username", username), ("pass", password.reveal())):
            if not value or not value.isprintable():
                raise ConfigError(f"xmlrpc_{key} is empty or holds a control character")
        self._url = url
        #: The address for logs.
        self.site = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._timeout_seconds = timeout_seconds
        self._context = _tls_context(verify_tls) if parts.scheme == "https" else None
        self._headers: list[tuple[str, str | bytes]] = [
            # As bytes, because http.client takes text for latin-1.
            ("X-User", username.encode()),
            ("X-Pass", password.reveal().encode()),
            ("X-APIVERSION", API_VERSION),
        ]

    @classmethod
    def from_settings(cls, settings: Settings) -> WebApi:
        """The client that the configuration describes.

        Raises:
            ConfigError: keys are missing or wrong.
        """
        if not settings.xmlrpc_url or settings.xmlrpc_pass is None:
            raise ConfigError(
                "the web site cannot be asked: set xmlrpc_url, xmlrpc_username and xmlrpc_pass"
            )
        return cls(
            settings.xmlrpc_url,
            settings.xmlrpc_username,
            settings.xmlrpc_pass,
            timeout_seconds=settings.xmlrpc_timeout_seconds,
        )

    def process_block_time(self, blocktimesid: int) -> BlockResult:
        """Let the site choose computers for a block time and ask for their loading."""
        answer = self._call_for_struct("XMLRPCprocessBlockTime", blocktimesid, 1)
        return BlockResult(
            status=str(answer.get("status", "error")),
            allocated=_number(answer.get("allocated")) or 0,
            unallocated=_number(answer.get("unallocated")) or 0,
            errorcode=_number(answer.get("errorcode")),
            errormsg=str(answer.get("errormsg", "")),
            warningcode=_number(answer.get("warningcode")),
            warningmsg=str(answer.get("warningmsg", "")),
        )

    def auto_capture(self, requestid: int) -> bool:
        """Let the site turn an imaging request into a capture. False when it refuses."""
        answer = self._call_for_struct("XMLRPCautoCapture", requestid)
        return str(answer.get("status")) == "success"

    def check_crypt_secrets(self, reservationid: int) -> bool:
        """Let the site make the secrets that this node needs. False when it cannot."""
        answer = self._call_for_struct("XMLRPCcheckCryptSecrets", reservationid)
        return str(answer.get("status", "error")) != "error"

    def _call_for_struct(self, method: str, *arguments: int) -> dict[str, Any]:
        answer = self._call(method, *arguments)
        if not isinstance(answer, dict):
            raise BackendUnavailableError(
                f"{method} at {self.site} answered something other than a structure",
                blame=_BLAME,
            )
        return answer

    def _call(self, method: str, *arguments: int) -> Any:
        transport = _Transport(self._headers, self._timeout_seconds, self._context)
        proxy = xmlrpc.client.ServerProxy(self._url, transport=transport, allow_none=True)
        try:
            with proxy:
                return getattr(proxy, method)(*arguments)
        except xmlrpc.client.ProtocolError as err:
            self._raise_for_status(method, err)
        except xmlrpc.client.Fault as err:
            text = f"{method} at {self.site} failed with fault {err.faultCode}: {err.faultString}"
            # The fault itself may repeat what was sent.
            raise FatalProvisioningError(redact(text), blame=_BLAME) from None
        except ssl.SSLCertVerificationError as err:
            text = (
                f"the certificate of {self.site} is not trusted: {err.verify_message}; add the"
                " authority that issued it to this machine's certificates"
            )
            raise FatalProvisioningError(text, blame=_BLAME) from err
        except (OSError, http.client.HTTPException) as err:
            reason = str(err) or type(err).__name__
            text = f"{method} could not be sent to {self.site}: {reason}"
            raise BackendUnavailableError(redact(text), blame=_BLAME) from err
        except (xmlrpc.client.Error, ExpatError, ValueError) as err:
            text = f"{method} at {self.site} did not answer in XML-RPC; see the web server's log"
            raise BackendUnavailableError(text, blame=_BLAME) from err

    def _raise_for_status(self, method: str, err: xmlrpc.client.ProtocolError) -> NoReturn:
        text = redact(f"{method} at {self.site} failed with HTTP {err.errcode} {err.errmsg}")
        if err.errcode in {401, 403}:
            text = f"{text}; check xmlrpc_username and xmlrpc_pass"
            raise AuthenticationError(text, blame=_BLAME) from err
        if 400 <= err.errcode < 500:
            raise FatalProvisioningError(f"{text}; check xmlrpc_url", blame=_BLAME) from err
        raise BackendUnavailableError(text, blame=_BLAME) from err


class _Transport(xmlrpc.client.Transport):
    """Connections with a time limit, and calls that are never repeated behind our back."""

    user_agent = "vcld"

    def __init__(
        self,
        headers: Iterable[tuple[str, str | bytes]],
        timeout_seconds: float,
        context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(headers=headers)  # type: ignore[arg-type]
        self._timeout_seconds = timeout_seconds
        self._context = context

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        name, _, _ = self.get_host_info(host)
        connection = (
            http.client.HTTPSConnection(name, timeout=self._timeout_seconds, context=self._context)
            if self._context
            else http.client.HTTPConnection(name, timeout=self._timeout_seconds)
        )
        self._connection = host, connection
        return connection

    def request(self, *arguments: Any, **options: Any) -> Any:
        return self.single_request(*arguments, **options)


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError("xmlrpc_url is not an http or https address")
    if "@" in parts.netloc:
        raise ConfigError(
            "xmlrpc_url holds a name or password; put them into xmlrpc_username and xmlrpc_pass"
        )
    return parts


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _number(value: Any) -> int | None:
    """PHP sends numbers as strings now and then."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
