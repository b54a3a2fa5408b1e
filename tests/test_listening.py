"""How clients reach a service: TLS by file, and proxies whose word is taken."""

import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import JSONResponse
from tests.service_host import commanded, serving, serving_app, signed, write_release

from modelyard.cli.main import main
from modelyard.core.errors import SettingInvalid
from modelyard.ledger import customers, usage
from modelyard.ledger.database import opened
from modelyard.ledger.revisions import ready
from modelyard.service.server import Listening, configuration

PREDICT = "/v1/models/tiny/predict"
ROWS = {"rows": [{"text": "a good film"}]}
LOCAL = "127.0.0.1"
PROXY = "127.0.0.2"
LONGEST_S = 20
AT_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed(write_release(tmp_path_factory.mktemp("listening") / "release"))


def test_connections_beyond_what_the_system_allows_leave_the_worker_alive(release: Path) -> None:
    with serving(release) as (parent, url), ExitStack() as stack:
        worker, address = psutil.Process(parent.pid), (LOCAL, int(url.rpartition(":")[2]))
        allowed = worker.num_fds() + 20
        worker.rlimit(psutil.RLIMIT_NOFILE, (allowed, allowed))
        for _ in range(100):
            stack.enter_context(socket.create_connection(address, LONGEST_S)).sendall(b"GET / ")
        with pytest.raises(httpx.TransportError):  # at once, and not after a wait
            httpx.get(f"{url}/livez", trust_env=False, timeout=LONGEST_S)
        assert worker.cpu_percent(0.2) < 50
        stack.close()
        ends = time.monotonic() + LONGEST_S
        while not lives(url):
            assert time.monotonic() < ends


def lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


# TLS


@dataclass
class Files:
    """PEM files of a certificate for this machine."""

    certificate: Path
    key: Path
    locked_key: Path
    """The same key behind a password."""
    both: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certified(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Those of somebody else."""
    return certified(tmp_path_factory.mktemp("other"))


def certified(folder: Path) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, LOCAL)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOCAL))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"a word")
    plain = key.private_bytes(pem, form, serialization.NoEncryption())
    told = certificate.public_bytes(pem)
    contents = {
        "certificate.pem": told,
        "key.pem": plain,
        "locked.pem": key.private_bytes(pem, form, locked),
        "both.pem": plain + told,
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return Files(*(folder / file for file in contents))


@dataclass
class Secure:
    """A metered service over TLS, and a key of a customer."""

    url: str
    key: str
    ledger: str
    trust: ssl.SSLContext

    def ask(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(verify=self.trust, trust_env=False) as client:
            return client.post(self.url + PREDICT, json=ROWS, headers=headers).status_code


def customer_of(ledger: str) -> str:
    """The key of a customer in a new ledger."""
    engine = ready(opened(ledger))
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, made = customers.add_key(engine, "shop", project="web")
    engine.dispose()
    return made.text


@pytest.fixture(scope="module")
def secure(
    release: Path, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secure]:
    ledger = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite3'}"
    key = customer_of(ledger)
    words = ("--database", ledger, "--certificate", str(files.certificate))
    with commanded(*words, "--private-key", str(files.key), str(release)) as (parent, url):
        yield Secure(url, key, ledger, ssl.create_default_context(cafile=files.certificate))
        parent.terminate()
        assert parent.wait(LONGEST_S) == 0
        assert parent.stderr is not None and parent.stderr.read() == ""


def test_a_key_is_asked_and_counted_over_tls(secure: Secure) -> None:
    assert secure.url.startswith("https://")
    engine = opened(secure.ledger)
    before = counted(secure.ledger)
    assert secure.ask() == 200
    assert Secure(secure.url, "my_x", secure.ledger, secure.trust).ask() == 401
    assert counted(secure.ledger) == before + 1
    assert not usage.differences(engine)
    engine.dispose()


def counted(ledger: str) -> int:
    engine = opened(ledger)
    rows = usage.used(engine, usage.Period(0, 2**40), ())
    engine.dispose()
    return rows[0]["requests"] if rows else 0


def test_a_client_that_does_not_know_the_certificate_refuses(secure: Secure) -> None:
    stranger = Secure(secure.url, secure.key, secure.ledger, ssl.create_default_context())
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.ask()
    assert secure.ask() == 200


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01"])
def test_what_is_no_tls_holds_nobody_up(secure: Secure, said: bytes) -> None:
    port = int(secure.url.rpartition(":")[2])
    with socket.create_connection((LOCAL, port), LONGEST_S) as connection:
        connection.sendall(said)
        if said.startswith(b"GET"):  # is turned away at once; of the others more could come
            with suppress(ConnectionResetError):
                assert b"200" not in connection.recv(1000)
        assert secure.ask() == 200


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence with which `modelyard serve` refuses words."""
    assert main(["serve", "--dev", "--port", "0", *words]) == 2
    told = capsys.readouterr()
    assert not told.out and told.err.count("\n") <= 3 and "Traceback" not in told.err, told
    return " ".join(told.err.split())


@pytest.mark.parametrize("name", ["another", "missing", "no PEM", "certificate", "locked"])
def test_a_key_that_does_not_fit_is_refused_in_a_sentence(
    name: str, release: Path, files: Files, others: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    key = {
        "another": others.key,
        "missing": files.key.with_name("none.pem"),
        "no PEM": release / "model.onnx",
        "certificate": files.certificate,
        "locked": files.locked_key,
    }[name]
    words = ("--certificate", str(files.certificate), "--private-key", str(key))
    told = refused(capsys, *words, str(release))
    assert str(key) in told and "without a password" in told


def test_a_certificate_is_needed_beside_a_key(
    release: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "both" in refused(capsys, "--private-key", str(files.key), str(release))
    alone = refused(capsys, "--certificate", str(files.certificate), str(release))
    assert "None" not in alone


def test_one_file_may_hold_both(files: Files) -> None:
    settings = configuration(echo, Listening(certificate=files.both))
    assert settings.ssl is not None and settings.ssl.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_nobody_is_asked_for_the_password_of_a_key(release: Path, files: Files) -> None:
    words = [sys.executable, "-m", "modelyard", "serve", "--dev", "--port", "0", str(release)]
    words += ["--certificate", str(files.certificate), "--private-key", str(files.locked_key)]
    at_terminal = [sys.executable, "-c", AT_TERMINAL, *words]
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    done = subprocess.run(at_terminal, stdin=nothing, stdout=pipe, timeout=LONGEST_S, check=False)
    assert done.returncode == 2 and b"pass phrase" not in done.stdout


# Proxies


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An app that says who asks, and how."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    asks = Request(scope)
    assert asks.client
    await JSONResponse([asks.client.host, asks.url.scheme])(scope, receive, send)


def seen(url: str, by: str, *forwarded: str, scheme: str = "https") -> tuple[str, str]:
    """Who the service thinks asks, of a request that comes from an address and tells of others."""
    headers = [("X-Forwarded-For", each) for each in forwarded]
    headers += [("X-Forwarded-Proto", scheme), ("Forwarded", "for=203.0.113.9;proto=https")]
    transport = httpx.HTTPTransport(local_address=by)
    with httpx.Client(transport=transport, headers=headers) as client:
        host, found = client.get(url).json()
    return host, found


@pytest.mark.parametrize("proxies", [(PROXY,), ("10.0.0.0/8", "127.0.0.2/31")])
def test_a_proxy_is_believed_and_nobody_else(proxies: tuple[str, ...]) -> None:
    with serving_app(echo, Listening(proxies=proxies)) as url:
        assert seen(url, PROXY, "203.0.113.7") == ("203.0.113.7", "https")
        assert seen(url, LOCAL, "203.0.113.7") == (LOCAL, "http")


def test_of_what_a_client_says_it_is_nothing_is_believed() -> None:
    with serving_app(echo, Listening(proxies=(PROXY,))) as url:
        assert seen(url, PROXY, "198.51.100.1, 203.0.113.7")[0] == "203.0.113.7"
        assert seen(url, PROXY, "198.51.100.1", "203.0.113.7")[0] == "203.0.113.7"
        assert seen(url, PROXY, f"198.51.100.1, 203.0.113.7, {PROXY}")[0] == "203.0.113.7"
        assert seen(url, PROXY, "203.0.113.7", scheme="gopher") == ("203.0.113.7", "http")
        assert seen(url, PROXY) == (PROXY, "https")


def test_without_a_proxy_nobody_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with serving_app(echo, Listening()) as url:
        assert seen(url, LOCAL, "203.0.113.7") == (LOCAL, "http")


@pytest.mark.parametrize("proxy", ["*", "proxy.internal", "10.0.0.5/8", "10.0.0.1,10.0.0.2", ""])
def test_a_proxy_is_an_address(proxy: str) -> None:
    with pytest.raises(SettingInvalid, match="--proxy takes an address or a network"):
        configuration(echo, Listening(proxies=(proxy,)))
