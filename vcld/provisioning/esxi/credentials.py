"""The password of a VM host profile, in the three ways that VCL stores it.

Plain; ``encryptedpasswd``, in hex, for the RSA key whose file ``rsakey`` names; or, with a
``secretid``, AES in CBC mode, whose key is in ``cryptsecret``, encrypted for this node's own RSA
key (provisioning specification §1.4).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from vcld.config import Settings
from vcld.errors import Blame, FatalProvisioningError
from vcld.snapshot import VMProfile

BLOCK_BYTES = 16
#: What ``vcld.store.secrets.find_for`` answers: a secret's AES key, encrypted for a node, by the
#: secret's id and the node's name.
FindSecret = Callable[[int, str], str | None]
_SHA1 = hashes.SHA1()  # noqa: S303 - what VCL encrypts with: the default of OAEP


def password_of(profile: VMProfile, settings: Settings, find_secret: FindSecret) -> str:
    """The password, for use; it goes nowhere else.

    Raises:
        FatalProvisioningError: there is none, or it cannot be decrypted; says which key lacks.
    """
    try:
        if profile.password and profile.secretid:
            return _by_secret(profile, profile.secretid, settings, find_secret)
        if profile.encryptedpasswd and profile.rsakey:
            key = _private_key(Path(profile.rsakey))
            return _open(key, binascii.unhexlify(profile.encryptedpasswd)).decode()
    except (ValueError, UnicodeDecodeError) as err:
        raise _unusable(profile, "it does not fit the key it was encrypted for") from err
    if not profile.password:
        raise _unusable(profile, "there is none")
    return profile.password


def _by_secret(
    profile: VMProfile, secretid: int, settings: Settings, find_secret: FindSecret
) -> str:
    fqdn = settings.fqdn
    stored = find_secret(secretid, fqdn)
    if stored is None:
        raise _unusable(profile, f"the web site has not encrypted it for {fqdn} yet")
    path = Path(settings.crypt_key or f"/root/.vcl/{fqdn}.key")
    aes = _open(_private_key(path), base64.b64decode(stored))
    sealed = base64.b64decode(profile.password or "")
    cipher = Cipher(algorithms.AES(aes), modes.CBC(sealed[:BLOCK_BYTES])).decryptor()
    padded = cipher.update(sealed[BLOCK_BYTES:]) + cipher.finalize()
    unpadder = padding.PKCS7(BLOCK_BYTES * 8).unpadder()
    return (unpadder.update(padded) + unpadder.finalize()).decode()


def _open(key: rsa.RSAPrivateKey, sealed: bytes) -> bytes:
    mask = rsa_padding.MGF1(algorithm=_SHA1)
    return key.decrypt(sealed, rsa_padding.OAEP(mgf=mask, algorithm=_SHA1, label=None))


def _private_key(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as err:
        raise FatalProvisioningError(
            f"the private key {path} for passwords of VM hosts cannot be read: {err.strerror}",
            blame=Blame.MANAGEMENT_NODE,
        ) from err
    if not isinstance(key, rsa.RSAPrivateKey):
        raise FatalProvisioningError(f"{path} is no RSA key", blame=Blame.MANAGEMENT_NODE)
    return key


def _unusable(profile: VMProfile, why: str) -> FatalProvisioningError:
    return FatalProvisioningError(
        f"the password of VM host profile {profile.profilename!r} cannot be used: {why}",
        blame=Blame.MANAGEMENT_NODE,
    )
