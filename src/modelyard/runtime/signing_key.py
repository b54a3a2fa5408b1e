"""The user's signing key: EC P-256, made at first need, and read again ever after."""

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.core.errors import SettingInvalid

PRIVATE_KEY = "signing-key.pem"
PUBLIC_KEY = "signing-key.pub.pem"
NO_KEY = "the key that the first run makes"


def config_folder() -> Path:
    """Where the user's keys are: $MODELYARD_CONFIG, or modelyard/ in the XDG configuration."""
    if given := os.environ.get("MODELYARD_CONFIG"):
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "modelyard"


def own_key() -> Path:
    """The user's private key (PEM), made at first need with the public one beside it.

    Two processes that make it at once end with the same key. Raises SettingInvalid.
    """
    file = config_folder() / PRIVATE_KEY
    beside = file.with_name(PUBLIC_KEY)
    try:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _place(file, _new_private_pem())
        public = pem_of(private_key(file).public_key())
        if not beside.exists():
            _place(beside, public)
        agree = beside.read_bytes() == public
    except OSError as error:
        raise SettingInvalid(
            f"The signing key {file} cannot be made or read: {error.strerror}; set "
            "MODELYARD_CONFIG to a folder of your own that can be written to."
        ) from None
    if not agree:
        raise SettingInvalid(f"{beside} is not the public half of {file}; move one of them away.")
    return file


def _new_private_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _place(file: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all; the first writer wins."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        draft.write_bytes(content)
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def own_fingerprint() -> str:
    """The fingerprint of the user's key, which is made where there is none."""
    return fingerprint(private_key(own_key()).public_key())


def known_fingerprint() -> str:
    """The fingerprint of the user's key, or NO_KEY; makes nothing."""
    return own_fingerprint() if (config_folder() / PRIVATE_KEY).exists() else NO_KEY


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key in PEM form, as a signature names its signer."""
    return hashlib.sha256(pem_of(key)).hexdigest()


def pem_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key in PEM form."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file; raises SettingInvalid."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (TypeError, UnsupportedAlgorithm, ValueError):
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise SettingInvalid(
        f"{file} is not a private key that can sign (EC P-256, PEM, no password); put such a key "
        "there, or move the file away and a new key is made."
    )


def public_key(file: Path) -> ec.EllipticCurvePublicKey:
    """The public key in a file; raises SettingInvalid."""
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise SettingInvalid(f"The public key {file} cannot be read: {error.strerror}.") from None
    except (UnsupportedAlgorithm, ValueError):
        key = None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise SettingInvalid(
        f"{file} is not a public key that signs releases (EC P-256, PEM); ask the signer for "
        f"their {PUBLIC_KEY}."
    )
