"""What the seal of a release holds: one changed byte, one more or one less file is refused."""

import base64
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.errors import (
    ModelyardError,
    ReleaseChanged,
    ReleaseMissing,
    ReleaseUntrusted,
    SettingInvalid,
)
from modelyard.runtime import seal, signing_key

FILES = {
    "model.json": b"{}",
    "graph.onnx": bytes(range(256)) * 40,
    "README.md": "影评的情感\n".encode(),
    "tokenizer/vocab.txt": b"a\nb\n",
    "空 .txt": b"",
    ".hidden": b"*\n",
}


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A signed release and the folder of the key that signed it."""
    root = tmp_path_factory.mktemp("seal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_CONFIG", str(root / "keys"))
        for name, content in FILES.items():
            file = root / "finance-news" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        seal.sign(root / "finance-news")
    return root


@pytest.fixture
def release(signed, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELYARD_CONFIG", str(signed / "keys"))
    return Path(shutil.copytree(signed / "finance-news", tmp_path / "elsewhere"))


def refused(release, name):
    """Verify, and give the sentence of the refusal, which must name the file."""
    with pytest.raises(ModelyardError) as caught:
        seal.verify(release)
    assert isinstance(caught.value, ReleaseChanged | ReleaseUntrusted)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


def test_a_signed_release_verifies_under_any_name(release):
    verified = seal.verify(release)
    assert verified.files == len(FILES) + 1  # and the copy of the public key
    assert verified.size_bytes == sum(map(len, FILES.values())) + len(
        (release / "signing-key.pub.pem").read_bytes()
    )
    assert verified.signer == signing_key.own_fingerprint()


@pytest.mark.parametrize("name", sorted([*FILES, "signing-key.pub.pem"]))
def test_one_flipped_byte_in_any_file_is_refused(release, name):
    whole = (release / name).read_bytes()
    draw = random.Random(name)
    for position in sorted({0, len(whole) - 1, *(draw.randrange(len(whole) or 1) for _ in "123")}):
        changed = bytearray(whole or b"\0")
        changed[position] ^= 1 << draw.randrange(8) if whole else 0
        (release / name).write_bytes(changed)
        assert "differs from what was signed" in refused(release, repr(name))
    (release / name).write_bytes(whole)
    seal.verify(release)


def test_one_changed_byte_of_the_signature_is_refused_wherever_it_stands(release):
    file = release / "model.sig"
    whole = file.read_bytes()
    key = signing_key.public_key(signing_key.config_folder() / "signing-key.pub.pem")
    draw = random.Random(7)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << draw.randrange(8)
        with pytest.raises((ReleaseChanged, ReleaseUntrusted)):
            seal._signed_digests(bytes(changed), key, file)
    file.write_bytes(whole[:-1])
    refused(release, "model.sig")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_no_other_signature_is_taken(release, data):
    file = release / "model.sig"
    whole = file.read_bytes()
    key = signing_key.public_key(signing_key.config_folder() / "signing-key.pub.pem")
    at = data.draw(st.integers(0, len(whole)))
    more = data.draw(st.binary(max_size=3) | st.sampled_from([b" ", b"\n", b"\t", b"\\u0041"]))
    less = data.draw(st.integers(0, 3))
    changed = whole[:at] + more + whole[at + less :]
    if changed == whole:
        return
    with pytest.raises((ReleaseChanged, ReleaseUntrusted)):
        seal._signed_digests(changed, key, file)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"dsseEnvelope": 3}', b"{}", b"1" * 9000],
    ids=["empty", "list", "null", "not-utf8", "deep", "number", "object", "digits"],
)
def test_a_signature_that_is_none_is_refused(release, content):
    (release / "model.sig").write_bytes(content)
    refused(release, "model.sig")


def test_the_same_json_in_another_form_is_refused(release):
    bundle = json.loads((release / "model.sig").read_bytes())
    (release / "model.sig").write_text(json.dumps(bundle))
    refused(release, "model.sig")


def test_a_missing_file_is_named(release):
    (release / "graph.onnx").unlink()
    assert "was signed and is missing" in refused(release, "'graph.onnx'")


@pytest.mark.parametrize("name", ["zzz.txt", "a b.bin", "新.txt", "tokenizer/more", ".gitignore"])
def test_an_added_file_is_named(release, name):
    (release / name).write_bytes(b"")
    assert "was added after signing" in refused(release, repr(name))


def test_the_first_file_that_differs_is_named(release):
    (release / "model.json").write_bytes(b"[]")
    (release / "graph.onnx").write_bytes(b"other")
    (release / "added").write_bytes(b"")
    refused(release, "'added'")
    (release / "added").unlink()
    refused(release, "'graph.onnx'")


def test_names_that_a_terminal_would_obey_are_shown_as_text(release):
    (release / "\x1b[2J").write_bytes(b"")
    assert "\x1b" not in refused(release, r"\x1b[2J")


def test_a_name_that_is_not_utf8_is_refused(release):
    os.close(os.open(os.fsencode(release) + b"/\xff", os.O_CREAT))
    refused(release, r"\udcff").encode()  # and can be printed


def test_links_are_refused_even_to_the_same_content(release, tmp_path):
    moved = (release / "graph.onnx").rename(tmp_path / "graph.onnx")
    (release / "graph.onnx").symlink_to(moved)
    assert "is a link" in refused(release, "'graph.onnx'")


def test_a_linked_folder_and_a_linked_signature_are_refused(release, tmp_path):
    (release / "tokenizer").rename(tmp_path / "tokenizer")
    (release / "tokenizer").symlink_to(tmp_path / "tokenizer")
    refused(release, "'tokenizer'")
    (release / "model.sig").rename(tmp_path / "model.sig")
    (release / "model.sig").symlink_to(tmp_path / "model.sig")
    refused(release, "model.sig")
    (release / "model.sig").unlink()
    os.mkfifo(release / "model.sig")  # would hang if it were opened
    refused(release, "model.sig")


def test_folders_pipes_and_sockets_are_refused(release, monkeypatch):
    (release / "graph.onnx").unlink()
    (release / "graph.onnx").mkdir()
    refused(release, "'graph.onnx'")
    (release / "graph.onnx").rmdir()
    os.mkfifo(release / "graph.onnx")  # would hang if it were opened
    refused(release, "'graph.onnx'")
    (release / "graph.onnx").unlink()
    monkeypatch.chdir(release)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("graph.onnx")
        refused(release, "'graph.onnx'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(release):
    (release / "graph.onnx").chmod(0)
    refused(release, "graph.onnx")


def test_a_file_that_fails_to_be_read_is_named(release, monkeypatch):
    def broken(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("modelyard.core.digest.of_file", broken)
    assert "Permission denied" in refused(release, "cannot be read")


def test_no_signature_and_no_release(release, tmp_path):
    (release / "model.sig").unlink()
    with pytest.raises(ReleaseUntrusted, match="has no signature"):
        seal.verify(release)
    (release / "model.json").unlink()
    with pytest.raises(ReleaseMissing, match="holds no release"):
        seal.verify(release)
    with pytest.raises(ReleaseMissing, match="is not there"):
        seal.verify(tmp_path / "none")
    with pytest.raises(ReleaseMissing, match="is a file"):
        seal.verify(release / "graph.onnx")


def test_the_copy_of_the_key_in_the_release_is_not_trusted(release, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "nobody"))
    with pytest.raises(ReleaseUntrusted, match="--public-key FILE"):
        seal.verify(release)
    assert not (tmp_path / "nobody").exists()


def test_another_key_is_refused_and_the_right_one_taken(release, signed, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "other"))
    signing_key.own_key()
    with pytest.raises(ReleaseUntrusted, match="--public-key FILE"):
        seal.verify(release)
    assert seal.verify(release, signed / "keys" / "signing-key.pub.pem").files


def test_a_forged_hint_does_not_help(release, signed, monkeypatch, tmp_path):
    """Signed by another key that says it is ours."""
    ours = signing_key.own_fingerprint()
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "other"))
    (release / "model.sig").unlink()
    theirs = seal.sign(release).signer
    forged = (release / "model.sig").read_text().replace(theirs, ours)
    (release / "model.sig").write_text(forged)
    monkeypatch.setenv("MODELYARD_CONFIG", str(signed / "keys"))
    refused(release, "model.sig")


def test_a_statement_of_another_kind_is_not_a_release(release):
    """Validly signed by our key, but as a list that leaves the graph out."""
    sealed = json.loads((release / "model.sig").read_bytes())
    statement = json.loads(base64.b64decode(sealed["dsseEnvelope"]["payload"]))
    statement["predicate"]["serialization"]["ignore_paths"].append("graph.onnx")
    payload = json.dumps(statement).encode()
    key = signing_key.private_key(signing_key.own_key())
    signature = key.sign(seal._to_be_signed(payload), ec.ECDSA(seal.hashes.SHA256()))
    hint = signing_key.own_fingerprint()
    (release / "model.sig").write_bytes(seal._bundle(hint, payload, signature))
    with pytest.raises(ReleaseUntrusted, match="another kind"):
        seal.verify(release)


def test_the_model_signing_library_verifies_it_too(release):
    from model_signing import verifying

    key = signing_key.config_folder() / "signing-key.pub.pem"
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.verify(release, release / "model.sig")
    (release / "graph.onnx").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"graph\.onnx"):
        config.verify(release, release / "model.sig")


def test_verifying_loads_neither_torch_nor_network_code():
    code = (
        "import sys, modelyard.runtime.seal\n"
        "heavy = {'torch', 'transformers', 'model_signing', 'sigstore', 'requests', 'urllib3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_key_is_made_once_and_for_its_owner_only(monkeypatch, tmp_path):
    monkeypatch.delenv("MODELYARD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = signing_key.own_key()
    assert file == tmp_path / "modelyard" / "signing-key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.read_bytes()
    assert signing_key.own_key().read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "signing-key.pem",
        "signing-key.pub.pem",
    ]


def test_the_key_stands_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("MODELYARD_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert signing_key.config_folder() == tmp_path / ".config" / "modelyard"


def test_threads_that_race_for_a_key_end_with_one(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "keys"))
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: signing_key.own_fingerprint(), range(16)))
    assert len(made) == 1


def test_a_lost_public_key_is_written_again_and_a_foreign_one_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path))
    public = signing_key.own_key().with_name("signing-key.pub.pem")
    mine = public.read_bytes()
    public.unlink()
    signing_key.own_key()
    assert public.read_bytes() == mine
    foreign = signing_key.pem_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    public.write_bytes(foreign)
    with pytest.raises(SettingInvalid, match="not the public half"):
        signing_key.own_key()
    assert public.read_bytes() == foreign


def private_pem(key, password=None):
    way = serialization.BestAvailableEncryption(password) if password else None
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        way or serialization.NoEncryption(),
    )


UNUSABLE_KEYS = {
    "text": b"not a key",
    "empty": b"",
    "rsa": private_pem(rsa.generate_private_key(65537, 2048)),
    "p384": private_pem(ec.generate_private_key(ec.SECP384R1())),
    "password": private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"),
}


@pytest.mark.parametrize("kind", UNUSABLE_KEYS)
def test_an_unusable_private_key_is_said(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path))
    (tmp_path / "signing-key.pem").write_bytes(UNUSABLE_KEYS[kind])
    with pytest.raises(SettingInvalid, match=r"signing-key\.pem is not a private key"):
        signing_key.own_key()


def test_a_folder_for_keys_that_cannot_be_made_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "file" / "keys"))
    with pytest.raises(SettingInvalid, match="set MODELYARD_CONFIG"):
        signing_key.own_key()


@pytest.mark.parametrize("content", [b"", b"text", UNUSABLE_KEYS["p384"]], ids=["", "text", "p384"])
def test_an_unusable_public_key_is_said(release, tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingInvalid, match="is not a public key"):
        seal.verify(release, tmp_path / "key")
    with pytest.raises(SettingInvalid, match="cannot be read"):
        seal.verify(release, tmp_path / "none")
