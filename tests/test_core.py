"""Core's small rooms: errors, events, digests, stages."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core import digest, errors, events
from modelyard.core.artefacts import Dataset, Model, Report
from modelyard.core.events import Events
from modelyard.core.project import Project
from modelyard.core.stages import Stage, stage, unmet
from modelyard.core.store import Draft

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def tree(root: type[errors.ModelyardError]) -> Iterator[type[errors.ModelyardError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def ours(classes: Iterator[type[errors.ModelyardError]]) -> list[type[errors.ModelyardError]]:
    return [each for each in classes if each.__module__ == errors.__name__]


ERRORS = ours(tree(errors.ModelyardError))
EVENTS = [
    each
    for _, each in inspect.getmembers(events, inspect.isclass)
    if issubclass(each, events.Event) and each is not events.Event
]


def test_each_error_has_its_own_code_and_stands_in_the_drawing() -> None:
    assert len({each.code for each in ERRORS}) == len(ERRORS)
    for each in ERRORS:
        assert each.__name__ in str(errors.__doc__)
        kebab = re.sub(r"(?<!^)(?=[A-Z])", "-", each.__name__).lower()
        assert each.code == kebab.removeprefix("modelyard-")


@pytest.mark.parametrize("error", ERRORS)
def test_bad_input_ends_with_2_and_all_else_with_1(error: type[errors.ModelyardError]) -> None:
    assert error.exit_status == (2 if issubclass(error, errors.BadInput) else 1)


def test_a_project_files_problems_are_counted_and_listed() -> None:
    error = errors.ProjectFileInvalid("a.toml", ["line 1: x", "line 2: y"])
    assert str(error) == "a.toml has 2 problems:\n  line 1: x\n  line 2: y"
    assert str(errors.ProjectFileInvalid("a.toml", ["x"])).startswith("a.toml has 1 problem:")


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_one_flat_json_object(event: type[events.Event]) -> None:
    fields = inspect.signature(event).parameters
    made = event(**dict.fromkeys(fields, "x"))
    shown = json.loads(json.dumps(made.to_json()))
    assert shown == {"event": event.event, **dict.fromkeys(fields, "x")}
    assert event.event != events.Event.event


@given(st.dictionaries(st.text(), JSON), st.randoms())
def test_order_of_keys_does_not_change_a_digest(value: dict[str, object], random: object) -> None:
    keys = list(value)
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert digest.of_json({key: value[key] for key in keys}) == digest.of_json(value)


@given(JSON, JSON)
def test_other_values_have_other_digests(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest.of_json(one) == digest.of_json(other)) == same


def test_a_folders_digests_name_every_file_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "财报.txt").write_bytes(b"x")
    (tmp_path / "z").write_bytes(b"")
    files = digest.of_folder(tmp_path)
    assert list(files) == ["a/b/财报.txt", "z"]
    assert files["z"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.of_folder(tmp_path, ["z"]) == {"z": files["z"]}
    assert digest.of_folder(tmp_path, []) == {}


@stage("first", version="1", reads=("data",), gives=Dataset)
def first(project: Project, draft: Draft, events: Events) -> None:
    """Take nothing."""


@stage("second", version="2", reads=("train",), gives=Model, causes=lambda _: {"weights": "w"})
def second(project: Project, dataset: Dataset, draft: Draft, events: Events) -> None:
    """Take rows."""


@pytest.fixture
def project() -> Project:
    rows = {"rows": "a.csv"}
    tables = {"name": "x", "data": rows, "inputs": {"s": "text"}, "target": {"column": "y"}}
    return Project.model_validate(tables)


def test_a_stage_declares_what_it_takes_by_its_signature() -> None:
    assert isinstance(second, Stage)
    assert first.takes == {}
    assert second.takes == {"dataset": Dataset}


def test_what_a_plan_lacks_is_found_before_anything_runs() -> None:
    assert unmet([first, second]) == []
    assert unmet([second, first]) == ["second takes a Dataset, which no stage before gives"]

    @stage("third", version="1", reads=(), gives=Report)
    def third(model: Model, dataset: Dataset) -> None: ...

    assert len(unmet([third])) == 2


def test_a_key_changes_with_each_cause_and_with_nothing_else(project: Project) -> None:
    causes = second.causes_of(project, {"dataset": "d1"})
    assert causes["project"] == project.part("train")
    assert causes["outside"] == {"weights": "w"}
    other_rows = project.model_copy(update={"data": None})
    assert second.key(second.causes_of(other_rows, {"dataset": "d1"})) == second.key(causes)
    other_train = project.model_copy(
        update={"train": project.train.model_copy(update={"epochs": 9})}
    )
    for changed in (
        second.causes_of(project, {"dataset": "d2"}),
        second.causes_of(other_train, {"dataset": "d1"}),
        {**causes, "version": "3"},
        {**causes, "stage": "first"},
        {**causes, "outside": {"weights": "v"}},
    ):
        assert second.key(changed) != second.key(causes)
