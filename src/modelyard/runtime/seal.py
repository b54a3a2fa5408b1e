"""The seal of a release: OpenSSF Model Signing with a key, made and verified offline.

`sign` goes through the model-signing library, and its tools verify what it makes. `verify` is
stricter than the library, which takes any JSON that means the same and loads a second's worth of
network code: here one changed byte is refused wherever it stands, and nothing but `cryptography`
is imported, so that serving starts fast.

The signature is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists the
SHA-256 of every file (https://github.com/secure-systems-lab/dsse, in-toto attestation v1).
"""

import base64
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.core import digest
from modelyard.core.errors import ReleaseChanged, ReleaseMissing, ReleaseUntrusted
from modelyard.runtime.signing_key import (
    PUBLIC_KEY,
    config_folder,
    fingerprint,
    own_key,
    pem_of,
    private_key,
    public_key,
)

SIGNATURE = "model.sig"
MOST_SIGNATURE_BYTES = 16_000_000
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://model_signing/signature/v1.0",
}
SERIALIZATION = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [SIGNATURE],
}
AGAIN = "get the release again from where it was made"


@dataclass(frozen=True)
class Verified:
    """A release whose every byte is as it was signed; `signer` is the key's fingerprint."""

    folder: Path
    signer: str
    public_key: Path
    files: int
    size_bytes: int


def verify(folder: Path, key_file: Path | None = None) -> Verified:
    """Check that `folder` is what the holder of a key signed, to the byte.

    `key_file` is the signer's public key, by default the user's own; the copy in the folder is
    never trusted. Raises ReleaseMissing, ReleaseUntrusted, SettingInvalid, and ReleaseChanged
    with the first file that differs.

    It says what the folder was while it was read. Who may write to the folder can still change
    it before it is loaded, so keep a release where only its owner writes.
    """
    _must_look_like_release(folder)
    trusted = key_file or _own_public_key(folder)
    key = public_key(trusted)
    try:
        signed = _signed_digests(_signature_bytes(folder), key, trusted)
        sizes = dict(_sizes(folder))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            digests = pool.map(digest.of_file, (folder / name for name in sizes))
            found = dict(zip(sizes, digests, strict=True))
    except OSError as error:
        raise ReleaseChanged(
            f"{error.filename} cannot be read ({error.strerror}), so it cannot be checked against "
            f"what was signed; mend that, or {AGAIN}."
        ) from None
    _must_agree(folder, signed, found)
    return Verified(folder, fingerprint(key), trusted, len(sizes), sum(sizes.values()))


def _must_look_like_release(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file, and a release is a folder" if folder.exists() else "is not there"
        raise ReleaseMissing(f"{folder} {what}; `modelyard show` prints where releases are.")
    if os.path.lexists(folder / SIGNATURE):
        return
    if not (folder / "model.json").is_file():
        raise ReleaseMissing(
            f"{folder} holds no release: it has neither {SIGNATURE} nor model.json; "
            "`modelyard show` prints where releases are."
        )
    raise ReleaseUntrusted(
        f"{folder} has no signature ({SIGNATURE}), so nobody vouches for it; {AGAIN}, or make "
        "one with `modelyard run`."
    )


def _own_public_key(folder: Path) -> Path:
    file = config_folder() / PUBLIC_KEY
    if file.is_file():
        return file
    raise ReleaseUntrusted(
        f"There is no key to check {folder} against: none was given and you have none of your own "
        f"({file}); give the signer's public key with --public-key FILE."
    )


def _sizes(folder: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """Name and bytes of each file but the signature; anything that is no file is refused."""
    entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
    for entry in entries:
        name = f"{below}{entry.name}"
        if entry.is_file(follow_symlinks=False):
            if name != SIGNATURE:
                yield name, entry.stat(follow_symlinks=False).st_size
        elif entry.is_dir(follow_symlinks=False) and any(Path(entry).iterdir()):
            yield from _sizes(folder, f"{name}/")
        else:
            what = "a link" if entry.is_symlink() else "an empty folder or no regular file"
            raise ReleaseChanged(
                f"{name!r} in {folder} is {what}, and a release has only files; {AGAIN}."
            )


def _must_agree(folder: Path, signed: dict[str, str], found: dict[str, str]) -> None:
    for name in sorted(signed.keys() | found.keys()):
        if problem := _difference(signed.get(name), found.get(name)):
            raise ReleaseChanged(f"{name!r} in {folder} {problem}; {AGAIN}.")


def _difference(signed: str | None, found: str | None) -> str | None:
    if signed is None:
        return "was added after signing"
    if found is None:
        return "was signed and is missing"
    if signed != found:
        return f"differs from what was signed: SHA-256 {found[:12]}…, signed {signed[:12]}…"
    return None


def _signature_bytes(folder: Path) -> bytes:
    file = folder / SIGNATURE
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_SIGNATURE_BYTES:
        raise _signature_changed()
    return file.read_bytes()


def _signature_changed() -> ReleaseChanged:
    return ReleaseChanged(f"{SIGNATURE!r} differs from what was written on signing; {AGAIN}.")


def _signed_digests(
    sealed: bytes, key: ec.EllipticCurvePublicKey, key_file: Path
) -> dict[str, str]:
    """File name to SHA-256, from a signature whose every byte is accounted for."""
    try:
        hint, payload, signature = _parts(sealed)
    except (IndexError, KeyError, RecursionError, TypeError, ValueError):
        raise _signature_changed() from None
    if _bundle(hint, payload, signature) != sealed:
        raise _signature_changed()  # white space, slack bits of base64, fields that nobody reads
    if hint != fingerprint(key):
        raise ReleaseUntrusted(
            f"The release was signed by the key {hint[:12]!r}…, not by {fingerprint(key)[:12]}… "
            f"({key_file}); if you trust that signer, give their key with --public-key FILE."
        )
    try:
        key.verify(signature, _to_be_signed(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _signature_changed() from None
    return _listed(json.loads(payload))


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    """Signer's fingerprint, signed statement and signature in a Sigstore bundle."""
    bundle = json.loads(sealed)
    envelope = bundle["dsseEnvelope"]
    return (
        str(bundle["verificationMaterial"]["publicKey"]["hint"]),
        base64.b64decode(envelope["payload"]),
        base64.b64decode(envelope["signatures"][0]["sig"]),
    )


def _bundle(hint: str, payload: bytes, signature: bytes) -> bytes:
    """The one way in which a signature is written."""
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def _to_be_signed(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def _listed(statement: dict[str, Any]) -> dict[str, str]:
    kind = {name: statement.get(name) for name in STATEMENT}
    predicate = statement.get("predicate", {})
    if kind != STATEMENT or predicate.get("serialization") != SERIALIZATION:
        raise ReleaseUntrusted(
            "The signature is of another kind than a release has (a SHA-256 for each file, and "
            f"nothing left out but {SIGNATURE}); make the release with `modelyard run`."
        )
    return {each["name"]: each["digest"] for each in predicate["resources"]}


def sign(folder: Path) -> Verified:
    """Sign every file in `folder` with the user's key, and verify what came of it."""
    from model_signing import hashing, signing  # a second's import, and serving never signs

    key_file = own_key()
    (folder / PUBLIC_KEY).write_bytes(pem_of(private_key(key_file).public_key()))
    every_file = hashing.Config()  # type: ignore[no-untyped-call]
    every_file.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    signer = signing.Config()  # type: ignore[no-untyped-call]
    signer.use_elliptic_key_signer(private_key=key_file).set_hashing_config(every_file)
    signer.sign(folder, folder / SIGNATURE)
    made = _parts((folder / SIGNATURE).read_bytes())
    (folder / SIGNATURE).write_bytes(_bundle(*made))
    return verify(folder, key_file.with_name(PUBLIC_KEY))
