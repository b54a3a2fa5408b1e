"""The store's law: an artefact is whole or absent, whoever is killed and whoever races."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.core import digest
from modelyard.core.artefacts import Manifest
from modelyard.core.store import Draft, Store

KEY = "k" * 64
WRITER = """
import os, signal, sys
from pathlib import Path
from modelyard.core import store as room
from modelyard.core.store import Store

store, key, text, stop = Store(Path(sys.argv[1])), sys.argv[2], sys.argv[3], sys.argv[4]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if stop == "placing":
    Store._place = die
if stop == "manifest":
    room._write_whole = die
if stop == "renaming":
    Path.rename = die
with store.draft("train", key) as draft:
    (draft.kept / "step").write_text("7")
    (draft.out / "deep").mkdir()
    (draft.out / "deep" / "weights").write_text(text)
    if stop == "writing":
        die()
    if stop == "waiting":
        print("drafting", flush=True)
        sys.stdin.readline()
    if store.manifest("train", key) is None:
        print(store.publish(draft, "train", "1", key, {"why": text}).digest)
"""

Publish = Callable[..., Manifest]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def made(store: Store, text: str = "w", key: str = KEY, stage: str = "train") -> Manifest:
    with store.draft(stage, key) as draft:
        fill(draft, text)
        draft.record["seconds"] = 1.5
        return store.publish(draft, stage, "1", key, {"why": text})


def fill(draft: Draft, text: str) -> None:
    (draft.out / "deep").mkdir()
    (draft.out / "deep" / "weights").write_text(text)


def writer(store: Store, key: str = KEY, text: str = "w", stop: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(store.root), key, text, stop]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def test_what_was_published_is_found_by_its_causes(store: Store) -> None:
    manifest = made(store)
    found = store.manifest("train", KEY)
    assert found == manifest
    assert found.record == {"seconds": 1.5}
    assert found.causes == {"why": "w"}
    assert found.files == digest.of_folder(store.folder(found))
    assert (store.folder(found) / "deep" / "weights").read_text() == "w"
    assert store.manifest("train", "0" * 64) is None
    assert store.manifest("audit", KEY) is None


def test_what_was_measured_is_in_no_digest(store: Store) -> None:
    one, other = made(store), made(store, key="0" * 64)
    assert one.digest == other.digest
    assert store.folder(one) == store.folder(other)


def test_other_content_has_another_folder_and_the_old_one_stays(store: Store) -> None:
    one, other = made(store, "a", "1" * 64), made(store, "b", "2" * 64)
    assert (store.folder(one) / "deep" / "weights").read_text() == "a"
    assert (store.folder(other) / "deep" / "weights").read_text() == "b"


def test_latest_is_what_was_published_last(store: Store) -> None:
    assert store.latest("train") is None
    for age, text in ((30, "old"), (10, "new"), (20, "middle")):
        key = text.ljust(64, "0")
        made(store, text, key)
        file = store.root / "made" / "train" / f"{key}.json"
        os.utime(file, (1e9 - age, 1e9 - age))
    latest = store.latest("train")
    assert latest is not None
    assert latest.causes == {"why": "new"}


@pytest.mark.parametrize("stop", ["writing", "placing", "renaming", "manifest"])
def test_a_killed_writer_leaves_nothing_to_read_and_the_next_goes_on(
    store: Store, stop: str
) -> None:
    killed = writer(store, stop=stop)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert store.manifest("train", KEY) is None
    assert store.latest("train") is None
    with store.draft("train", KEY) as draft:
        assert (draft.kept / "step").read_text() == "7"
        assert list(draft.out.iterdir()) == []
    assert made(store) == store.manifest("train", KEY)


def test_a_publisher_that_raises_leaves_nothing_to_read(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.draft("train", KEY) as draft:
        fill(draft, str(1 / 0))
    assert store.manifest("train", KEY) is None


def test_kept_goes_when_the_artefact_stands(store: Store) -> None:
    with store.draft("train", KEY) as draft:
        (draft.kept / "step").write_text("7")
        fill(draft, "w")
        store.publish(draft, "train", "1", KEY, {})
    with store.draft("train", KEY) as draft:
        assert list(draft.kept.iterdir()) == []


def test_two_racing_runs_end_as_one(store: Store) -> None:
    first = writer(store, stop="waiting")
    assert first.stdout is not None
    assert first.stdout.readline() == "drafting\n"
    second = writer(store, text="other")  # waits for the draft, then finds it made
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=0.5)
    first.communicate("go on\n")
    said, errors = second.communicate()
    assert (second.returncode, said, errors) == (0, "", "")
    manifest = store.manifest("train", KEY)
    assert manifest is not None
    assert manifest.causes == {"why": "w"}


def test_one_content_from_several_causes_at_once_is_one_folder(store: Store) -> None:
    racing = [writer(store, key=str(n) * 64) for n in range(4)]
    ended = [each.communicate() for each in racing]
    assert [each.returncode for each in racing] == [0] * 4, ended
    assert len({said for said, _ in ended}) == 1
    assert len(list((store.root / "objects").iterdir())) == 1
    assert all(store.manifest("train", str(n) * 64) for n in range(4))


def _shorten(file: Path) -> None:
    file.write_text("")


@pytest.mark.parametrize("damage", [Path.unlink, _shorten])
def test_a_damaged_artefact_counts_as_absent_and_is_made_again(
    store: Store, damage: Callable[[Path], None]
) -> None:
    manifest = made(store)
    damage(store.folder(manifest) / "deep" / "weights")
    assert store.manifest("train", KEY) is None
    assert store.latest("train") is None
    assert made(store).digest == manifest.digest
    assert (store.folder(manifest) / "deep" / "weights").read_text() == "w"
    assert len(list((store.root / "objects").glob("*.damaged-*"))) == 1


def test_a_file_that_was_changed_in_place_is_put_right_when_made_again(store: Store) -> None:
    manifest = made(store)
    (store.folder(manifest) / "deep" / "weights").write_text("x")
    assert made(store, key="0" * 64).digest == manifest.digest
    assert (store.folder(manifest) / "deep" / "weights").read_text() == "w"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "train"}'])
def test_a_manifest_that_cannot_be_read_counts_as_absent(store: Store, text: str) -> None:
    made(store)
    (store.root / "made" / "train" / f"{KEY}.json").write_text(text)
    assert store.manifest("train", KEY) is None
    assert made(store) == store.manifest("train", KEY)
