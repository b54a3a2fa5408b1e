"""Trees: grown from any losses, the same as a graph, chosen where they are better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelyard
from modelyard import inputs, targets
from modelyard.cli.main import main
from modelyard.core.artefacts import Model
from modelyard.core.errors import SettingInvalid
from modelyard.core.project import Project
from modelyard.models import forest, trees
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.graph import Graph

CLASS = targets.find("class")


def arrays_of(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "category.codes": rng.integers(0, 40, (rows, 2)),
        "number.values": rng.normal(size=(rows, 4)).astype(np.float32),
    }


def class_lesson(rows: int = 300, labels: int = 2) -> trees.Lesson:
    arrays = arrays_of(rows)
    truth = (arrays["number.values"][:, 0] * 2 + (arrays["category.codes"][:, 0] == 7)).round()
    state = {"labels": [str(n) for n in range(labels)], "counts": [1] * labels}
    return trees.Lesson(
        arrays,
        torch.from_numpy(truth.astype(np.int64) % labels),
        labels,
        lambda outputs, truth: CLASS.losses(outputs, truth, state, {}),
    )


def as_encoded(arrays: dict[str, Any]) -> Encoded:
    rows = len(arrays["number.values"])
    return Encoded(arrays, np.arange(rows), np.ones(rows, dtype=np.int64))


def grown(lesson: trees.Lesson, rounds: int = 12) -> forest.Forest:
    boosting = trees.Boosting(lesson, seed=1)
    for _ in range(rounds):
        boosting.step()
    return trees.forest_of([boosting])


@pytest.mark.parametrize("labels", [2, 3])
def test_graph_network_and_training_give_the_same(labels: int, tmp_path: Path) -> None:
    lesson = class_lesson(labels=labels)
    boosting = trees.Boosting(lesson, seed=1)
    for _ in range(12):
        boosting.step()
    made = trees.forest_of([boosting])
    forest.export(made, lesson.arrays, tmp_path / "graph.onnx")
    graph = Graph(tmp_path / "graph.onnx")
    own = made(**{name: torch.from_numpy(array) for name, array in lesson.arrays.items()})
    np.testing.assert_allclose(own, boosting.outputs, atol=1e-5)
    np.testing.assert_allclose(graph.outputs(as_encoded(lesson.arrays)), own, atol=1e-5)
    others = arrays_of(500, seed=5)
    others["category.codes"] += 30  # codes that no row had
    told = made(**{name: torch.from_numpy(array) for name, array in others.items()})
    np.testing.assert_allclose(graph.outputs(as_encoded(others)), told, atol=1e-5)


def test_a_value_next_to_a_threshold_goes_the_same_way_everywhere(tmp_path: Path) -> None:
    low, high = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    lesson = class_lesson(60)
    values = np.zeros((60, 4), dtype=np.float32)
    values[:, 0] = np.where(np.arange(60) % 2, low, high)
    lesson.arrays["number.values"][:] = values
    lesson.truth[:] = torch.arange(60) % 2
    made = grown(lesson)
    forest.export(made, lesson.arrays, tmp_path / "graph.onnx")
    outputs = Graph(tmp_path / "graph.onnx").outputs(as_encoded(lesson.arrays))
    assert (outputs.argmax(axis=1) == np.arange(60) % 2).all()


def test_forests_are_saved_and_read_again(tmp_path: Path) -> None:
    made = grown(class_lesson())
    forest.save(made, tmp_path)
    again = forest.load(tmp_path)
    assert again.names == made.names
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_same_seed_gives_the_same_trees() -> None:
    first, second = (grown(class_lesson()).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    "losses",
    [
        lambda outputs, truth: (outputs[:, 0] - truth) ** 2,
        lambda outputs, truth: (outputs[:, 0] - truth).abs(),
    ],
    ids=["curved", "of straight lines"],
)
def test_any_losses_of_rows_are_followed(losses: Any) -> None:
    arrays = arrays_of(400)
    truth = torch.from_numpy(np.sign(arrays["number.values"][:, 1]))
    lesson = trees.Lesson(arrays, truth, 1, losses)
    boosting = trees.Boosting(lesson, seed=1)
    before = float(losses(boosting.outputs, truth).mean())
    for _ in range(60):
        boosting.step()
    assert float(losses(boosting.outputs, truth).mean()) < 0.3 * before


def test_weights_of_classes_move_the_base() -> None:
    lesson = class_lesson()
    truth = (torch.arange(300) % 10 == 0).long()
    state = {"labels": ["0", "1"], "counts": [270, 30]}

    def base(option: str) -> float:
        given = trees.Lesson(
            lesson.arrays,
            truth,
            2,
            lambda outputs, truth: CLASS.losses(outputs, truth, state, {"class_weights": option}),
        )
        [outputs] = trees.Boosting(given, seed=1).base.tolist()
        return outputs[1] - outputs[0]

    assert base("none") == pytest.approx(np.log(30 / 270), abs=1e-3)
    assert base("balanced") == pytest.approx(0, abs=1e-3)


def test_a_budget_cuts_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(trees.time, "perf_counter", lambda: float(next(clock)))
    made = trees.fit(class_lesson(), seed=1, seconds=60)
    assert made.is_cut and 1 <= made.rounds < 40


def project_of(folder: Path, rows: list[dict[str, Any]], kinds: dict[str, str], more: str) -> Path:
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    named = "\n".join(f'{name} = "{kind}"' for name, kind in kinds.items())
    (folder / "modelyard.toml").write_text(
        f'name = "table"\n[data]\nrows = "rows.jsonl"\n[inputs]\n{named}\n'
        f'[target]\ncolumn = "answer"\n{more}',
        encoding="utf-8",
    )
    return folder


def corners(rows: int = 300) -> list[dict[str, Any]]:
    """Rows whose answer hangs on many corners, which trees find and a short training does not."""
    rng = np.random.default_rng(0)
    places, is_wrong = rng.integers(0, 4, (rows, 2)), rng.random(rows) < 0.1
    return [
        {"a": float(a), "b": float(b), "answer": "yes" if (a + b + wrong) % 2 else "no"}
        for (a, b), wrong in zip(places.tolist(), is_wrong.tolist(), strict=True)
    ]


def slopes(rows: int = 200) -> list[dict[str, Any]]:
    """Rows whose answer is the sign of a sum of many columns."""
    values = np.random.default_rng(0).normal(size=(rows, 12))
    return [
        {**{f"c{n}": v for n, v in enumerate(row)}, "answer": "yes" if sum(row) > 0 else "no"}
        for row in values.tolist()
    ]


@pytest.mark.parametrize(("made", "better"), [(corners, "trees"), (slopes, "network")])
def test_a_plan_and_a_run_take_what_is_better_and_say_by_how_much(
    made: Any, better: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = made()
    kinds = {name: "number" for name in rows[0] if name != "answer"}
    train = "[train]\nepochs = 15\n[accept]\nauc = '>= 0.5'\n"
    folder = project_of(tmp_path, rows, kinds, train)
    assert main(["plan", str(folder), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["learner"]
    assert planned["learner"] == better and planned["rows"] == len(rows)
    assert planned["losses"][better] == min(planned["losses"].values())
    release = modelyard.run(folder)
    told = json.loads((release.folder / "training.json").read_text(encoding="utf-8"))
    assert told["decisions"]["learner"]["learner"] == better
    assert "held out in their turn" in told["decisions"]["learner"]["why"]
    assert (release.folder / forest.WEIGHTS).is_file() == (better == "trees")
    card = (release.folder / "README.md").read_text(encoding="utf-8")
    assert ("Boosted trees" in card) == (better == "trees")


def test_trees_stay_fp32_and_say_why(tmp_path: Path) -> None:
    folder = project_of(
        tmp_path, corners(), {"a": "number", "b": "number"}, '[backbone]\ntable = "trees"\n'
    )
    model = Model(modelyard.run(folder).folder)
    told = model.read_json("compress.json")
    assert told["choice"] == "fp32" and "trees" in told["why"]
    assert told["rungs"][0]["agreement"] == 1 and told["rungs"][0]["largest_difference"] < 1e-4


def test_trees_over_a_text_are_refused_in_one_sentence() -> None:
    from modelyard.stages.learner import refuse_trees

    project = Project.model_validate(
        {
            "name": "mixed",
            "data": {"rows": "rows.csv"},
            "inputs": {"note": "text", "age": "number"},
            "target": {"column": "answer"},
            "backbone": {"table": "trees"},
        }
    )
    with pytest.raises(SettingInvalid, match=r"note \(text\), age \(number\)"):
        refuse_trees(project)


def test_every_kind_that_is_taken_together_gives_arrays_that_trees_read() -> None:
    for kind in (k for k in inputs.KINDS if inputs.find(k).together):
        found = inputs.find(kind)
        state = found.learn([found.example()] * 5, {}, Path(), "rows")
        encoded = found.encoder(state, Path())([found.example()] * 2)
        assert all(np.ndim(array) == 2 for array in encoded.arrays.values())
