"""The flow: what stands is not made again, and a plan says what would run and why."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.core import flow
from modelyard.core.artefacts import Dataset, Model, Release, Report
from modelyard.core.errors import RequirementFailed
from modelyard.core.events import Event, Events, Noted, silent
from modelyard.core.project import Project
from modelyard.core.stages import Stage, stage
from modelyard.core.store import Draft, Store

OUTSIDE = {"rows": "r1"}
HOLDS = {"accuracy": True}


def outside(project: Project) -> Mapping[str, str]:
    return dict(OUTSIDE)


@stage("prepare", version="1", reads=("data",), gives=Dataset, causes=outside)
def prepare(project: Project, draft: Draft, events: Events) -> None:
    (draft.out / "train.parquet").write_text("the same rows")


@stage("train", version="1", reads=("train",), gives=Model)
def train(project: Project, dataset: Dataset, draft: Draft, events: Events) -> None:
    step = draft.kept / "step"
    events(Noted("from the start" if not step.exists() else "from a checkpoint"))
    step.write_text("1")
    if project.train.seed == 13:
        raise KeyboardInterrupt
    text = dataset.part("train").read_text() + str(project.train.epochs)
    (draft.out / "weights").write_text(text)
    draft.record["rows_per_s"] = 5.0


@stage("audit", version="1", reads=("accept",), gives=Report)
def audit(project: Project, model: Model, draft: Draft, events: Events) -> None:
    limit = {"name": "accuracy", "limit": ">= 0.9", "value": 0.812345}
    verdict = [limit | {"holds": HOLDS["accuracy"]}]
    text = '{"verdict": ' + str(verdict).replace("'", '"').replace("False", "false") + "}"
    (draft.out / "report.json").write_text(text.replace("True", "true"))


@stage("release", version="1", reads=("release",), gives=Release)
def release(project: Project, model: Model, report: Report, draft: Draft, events: Events) -> None:
    (draft.out / "model.json").write_text((model.folder / "weights").read_text())


STAGES: list[Stage] = [prepare, train, audit, release]


@pytest.fixture(autouse=True)
def as_at_first() -> None:
    OUTSIDE["rows"] = "r1"
    HOLDS["accuracy"] = True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def project() -> Project:
    tables: dict[str, Any] = {
        "name": "x",
        "data": {"rows": "a.csv"},
        "inputs": {"s": "text"},
        "target": {"column": "y"},
        "train": {"epochs": 3},
    }
    return Project.model_validate(tables)


def with_train(project: Project, **changed: object) -> Project:
    return project.model_copy(update={"train": project.train.model_copy(update=changed)})


def run(project: Project, store: Store, stages: list[Stage] = STAGES) -> list[str]:
    """Run, and tell each event as `kind stage`."""
    told: list[Event] = []
    flow.run(project, stages, store, told.append)
    return [f"{each.event} {getattr(each, 'stage', '')}".strip() for each in told]


def whys(project: Project, store: Store) -> list[str]:
    return [step.why for step in flow.plan(project, STAGES, store)]


def test_a_first_run_makes_everything_in_order(project: Project, store: Store) -> None:
    assert whys(project, store) == [
        "not made yet",
        "prepare runs first",
        "train runs first",
        "train runs first",
    ]
    told = run(project, store)
    assert [each for each in told if each.startswith("stage-done")] == [
        f"stage-done {each.name}" for each in STAGES
    ]
    made = flow.run(project, STAGES, store, silent)
    assert isinstance(made["release"], Release)
    assert (made["release"].folder / "model.json").read_text() == "the same rows3"
    assert made["train"].manifest is not None
    assert made["train"].manifest.record["rows_per_s"] == 5.0
    assert "python" in made["train"].manifest.record["versions"]


def test_a_second_run_runs_nothing(project: Project, store: Store) -> None:
    run(project, store)
    assert run(project, store) == [f"stage-skipped {each.name}" for each in STAGES]
    assert whys(project, store) == ["made already"] * 4


def test_a_changed_key_reruns_what_reads_it_and_what_comes_after(
    project: Project, store: Store
) -> None:
    run(project, store)
    changed = with_train(project, epochs=5)
    assert whys(changed, store) == [
        "made already",
        "changed: train.epochs",
        "train runs first",
        "train runs first",
    ]
    assert run(changed, store)[0] == "stage-skipped prepare"
    assert whys(project, store) == ["made already"] * 4, "going back costs nothing"


def test_equal_content_stops_the_reruns(project: Project, store: Store) -> None:
    run(project, store)
    OUTSIDE["rows"] = "r2"
    assert whys(project, store)[:2] == ["changed: rows", "prepare runs first"]
    told = run(project, store)
    assert "stage-done prepare" in told
    assert told[-3:] == [f"stage-skipped {name}" for name in ("train", "audit", "release")]


def test_a_new_version_of_a_stage_runs_again(project: Project, store: Store) -> None:
    run(project, store)
    newer = [prepare, replace(train, version="2"), audit, release]
    assert [step.why for step in flow.plan(project, newer, store)][1] == "changed: version"
    assert "stage-started train" in run(project, store, newer)


def test_a_requirement_that_fails_leaves_a_report_and_no_release(
    project: Project, store: Store
) -> None:
    HOLDS["accuracy"] = False
    for _ in range(2):  # the second time the report stands already
        with pytest.raises(RequirementFailed, match=r"accuracy is 0\.8123, wanted >= 0\.9") as no:
            run(project, store)
    report = Path(str(no.value).rpartition(": ")[2])
    assert report.parent.is_dir()
    assert store.latest("audit") is not None
    assert store.latest("release") is None


def test_a_stage_that_was_stopped_goes_on_from_what_it_kept(project: Project, store: Store) -> None:
    told: list[Event] = []
    stopped = with_train(project, seed=13)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            flow.run(stopped, STAGES, store, told.append)
    notes = [each.text for each in told if isinstance(each, Noted)]
    assert notes == ["from the start", "from a checkpoint"]
    assert store.latest("train") is None


def _damage(store: Store) -> None:
    manifest = store.latest("train")
    assert manifest is not None
    (store.folder(manifest) / "weights").unlink()


def _forget(store: Store) -> None:
    for file in (store.root / "made" / "train").iterdir():
        file.unlink()


@pytest.mark.parametrize("lose", [_damage, _forget])
def test_what_was_lost_is_made_again_and_the_rest_stands(
    project: Project, store: Store, lose: Callable[[Store], None]
) -> None:
    run(project, store)
    lose(store)
    assert whys(project, store)[1] == "not made yet"
    told = run(project, store)
    assert "stage-done train" in told
    assert told[-2:] == ["stage-skipped audit", "stage-skipped release"]


@pytest.mark.parametrize("name", ["train", "release"])
def test_what_was_changed_in_place_is_made_again_before_it_is_used(
    project: Project, store: Store, name: str
) -> None:
    run(project, store)
    manifest = store.latest(name)
    assert manifest is not None
    [file] = [store.folder(manifest) / each for each in manifest.files]
    whole = file.read_bytes()
    file.write_bytes(b"X" + whole[1:])
    told = run(project, store)
    assert f"stage-done {name}" in told and "warned" in told
    assert len([each for each in told if each.startswith("stage-skipped")]) == len(STAGES) - 1
    assert file.read_bytes() == whole
    assert run(project, store) == [f"stage-skipped {each.name}" for each in STAGES]


def test_a_stage_that_refuses_its_input_leaves_no_draft(project: Project, store: Store) -> None:
    refused = replace(train, run=_refuse)
    with pytest.raises(RequirementFailed, match="no"):
        flow.run(project, [prepare, refused], store, silent)
    assert not [each for each in (store.root / "drafts").iterdir() if each.is_dir()]


def _refuse(**_: Any) -> None:
    raise RequirementFailed("no")


def test_the_latest_of_a_stage_is_that_of_the_last_run(project: Project, store: Store) -> None:
    weights = []
    for epochs in (3, 5, 3):
        run(with_train(project, epochs=epochs), store)
        latest = store.latest("train")
        assert latest is not None
        weights.append((store.folder(latest) / "weights").read_text())
    assert weights == ["the same rows3", "the same rows5", "the same rows3"]
