"""The target match: rows read, pairs learned, candidates ranked, added and removed."""

import json
import random
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from tests.tiny import BAD, GOOD, OTHER, TINY_TRAINING

import modelyard
from modelyard.cli.main import main
from modelyard.core.artefacts import ColumnState, Dataset, Model, ModelSpec
from modelyard.core.errors import (
    ColumnMissing,
    ReleaseChanged,
    RowsMissing,
    RowsUnreadable,
    SettingInvalid,
    TooFewClasses,
)
from modelyard.core.events import Decided, Event, Noted, Progress, StageDone, silent
from modelyard.core.project import Serve
from modelyard.data.candidates import Catalogue, read
from modelyard.doors import open_release, refuse_early, release_info
from modelyard.models import loop
from modelyard.models.bm25 import BM25
from modelyard.runtime import runtime as runtime_module
from modelyard.runtime.index import Index, Pool, unit
from modelyard.service.app import create_app
from modelyard.stages import candidates as stages_candidates
from modelyard.stages.candidates import Pairing, Plain
from modelyard.targets.match import TARGET, named

Row = dict[str, Any]


@dataclass(frozen=True)
class Pieces:
    """Rows of numbers (B, 3) as a network's pieces, one each."""

    values: Any

    @property
    def row_of(self) -> Any:
        return np.arange(len(self.values))

    @property
    def lengths(self) -> Any:
        return np.ones(len(self.values), dtype=np.int64)

    @property
    def rows(self) -> int:
        return len(self.values)

    def collate(self, indices: Any) -> dict[str, Any]:
        return {"input": self.values[indices]}


WORDS = [*GOOD, *BAD]
TRAINING = TINY_TRAINING | {"epochs": 20, "patience": 0, "learning_rate": 2e-3, "batch_rows": 24}


# Values of rows


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a1", ["a1"]),
        (17, ["17"]),
        (["a1", "a2", "a1"], ["a1", "a2"]),
        (("a2", "a1"), ["a2", "a1"]),
        ({"a2", "a1"}, ["a1", "a2"]),
        (np.array(["a2", "a1"]), ["a2", "a1"]),
        (np.array([2, 1]), ["2", "1"]),
        ('["a1", 2]', ["a1", "2"]),
        ("[1] See the first footnote.", ["[1] See the first footnote."]),
        ("  A text. ", ["A text."]),
    ],
)
def test_a_row_names_its_candidates(value: Any, names: list[str]) -> None:
    assert named(value) == names


@pytest.mark.parametrize(
    "value",
    [[], "[]", "  ", [None], [["a"]], {"a": 1}, b"a", ["\ud800"], [("a",)], np.ones((2, 2)), set()],
)
def test_a_row_that_names_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"holds|names"):
        named(value)


def test_rows_that_all_have_one_candidate_cannot_be_learned_from() -> None:
    with pytest.raises(TooFewClasses, match="all rows have the same one"):
        TARGET.check([{"right": ["a"], "pool": None, "seen": None}] * 5)


def test_a_candidate_without_an_id_has_the_same_one_each_time() -> None:
    first, second = Catalogue(), Catalogue()
    assert first.id_of("Yes.") == second.id_of("Yes.") != first.id_of("No.")
    assert first.kept([{"right": [first.id_of("Yes.")], "pool": None, "seen": None}]) == {
        first.id_of("Yes."): "Yes."
    }


@pytest.mark.parametrize(
    ("lines", "error", "told"),
    [
        (['{"id": "a"}'], ColumnMissing, "no column 'text'"),
        (['{"id": "a", "text": " "}'], RowsUnreadable, "has no text"),
        (["nonsense"], RowsUnreadable, "row 1"),
    ],
)
def test_a_file_of_candidates_is_refused(
    tmp_path: Path, lines: list[str], error: type[Exception], told: str
) -> None:
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(error, match=told):
        read(tmp_path / "c.jsonl")


# Losses and measures


def test_a_rows_loss_is_that_of_its_candidate_among_those_beside_it() -> None:
    import torch

    torch.manual_seed(0)
    vectors = torch.randn(3, 3, 4)
    truth = torch.tensor([[5, 0, 0, -1], [6, 1, 1, 0], [7, 2, 2, -1]])
    found = TARGET.losses(vectors.flatten(1), truth, {"width": 4}, {})
    query, wrong, own = (unit(vectors[:, side].numpy()) for side in range(3))
    scores = np.concatenate([query @ own.T, query @ wrong.T], 1) / 0.05
    scores[1, 0] = -np.inf  # candidate 0 is right for the second row too
    logs = np.log(np.exp(scores).sum(1)) - scores[[0, 1, 2], [0, 1, 2]]
    assert found.tolist() == pytest.approx(logs.tolist(), rel=1e-4)


def test_a_score_says_how_likely_a_candidate_is_and_not_how_much_likelier_than_elsewhere() -> None:
    import torch

    vectors = torch.ones(2, 2, 4).flatten(1)
    often, rare = (float(np.log(share)) for share in (0.9, 0.1))
    options = {"log_shares": torch.tensor([often, rare])}
    found = TARGET.losses(vectors, torch.tensor([[-1, 0, 0], [-1, 1, 1]]), {"width": 4}, options)
    assert found.tolist() == pytest.approx([-np.log(0.1), -np.log(0.9)], rel=1e-4)


def test_rows_with_the_same_candidate_are_no_wrong_answers_to_each_other() -> None:
    import torch

    torch.manual_seed(0)
    vectors = torch.randn(2, 1, 4).repeat(1, 2, 1).flatten(1)
    vectors[1] = vectors[0]
    same = TARGET.losses(vectors, torch.tensor([[-1, 7, 7], [-1, 7, 7]]), {"width": 4}, {})
    assert same.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_rows_loss_beside_all_is_that_of_each_right_one_among_the_wrong_ones() -> None:
    import torch

    torch.manual_seed(0)
    rows, candidates = (torch.nn.functional.normalize(torch.randn(n, 4)) for n in (2, 5))
    standing = torch.tensor([[1, 0, 0, 2, 0], [0, 1, 1, 2, 2]])
    scores = (rows @ candidates.T / 0.05).exp()
    among = [scores[0, [1, 2, 4]].sum(), scores[1, 0]]
    own = [[scores[0, 0]], [scores[1, 1], scores[1, 2]]]
    wanted = [
        sum(float((1 + wrong / each).log()) for each in right)
        for wrong, right in zip(among, own, strict=True)
    ]
    found = TARGET.losses_of_all(rows, candidates, standing)
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_gradients_are_those_of_rows_and_candidates_in_one_piece(workers: int) -> None:
    import torch

    from modelyard.models.shared import parts_of, read
    from modelyard.models.workers import side_by_side

    torch.manual_seed(0)
    network = torch.nn.Linear(3, 4)
    pieces = Pieces(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32))
    moved = list(network.parameters())
    whole = network(torch.from_numpy(pieces.values))
    wanted = torch.autograd.grad((whole**3).sum(), moved)
    with side_by_side(workers) as each:
        beside = read(network.forward, pieces, parts_of(pieces, workers), each, (7, 0))
        (beside.leaf**3).sum().backward()
        slopes = each(lambda n: beside.slopes(n, moved), range(len(beside.parts)))
    assert len(beside.parts) == workers
    for number, own in enumerate(wanted):
        torch.testing.assert_close(sum(some[number] for some in slopes), own)


def _answer(*ids: str) -> Row:
    return {"candidates": [{"id": each, "text": "", "score": 0.5} for each in ids]}


def test_measures_are_those_of_the_first_ten() -> None:
    truth = [
        {"right": ["a"], "pool": None, "seen": None},
        {"right": ["b", "c"], "pool": None, "seen": None},
    ]
    found = {m.name: m for m in TARGET.score(truth, [_answer("a", "x"), _answer("x", "c", "b")])}
    assert found["recall_at_1"].value == 0.5
    assert found["recall_at_10"].value == 1.0
    assert found["mrr_at_10"].value == 0.75
    gains = 1 / np.log2([2, 3, 4])
    assert found["ndcg_at_10"].value == pytest.approx(
        (1 + (gains[1] + gains[2]) / (gains[0] + gains[1])) / 2
    )
    for measure in found.values():
        assert measure.low <= measure.value <= measure.high
        assert measure.rows == 2


def test_bm25_is_that_of_the_paper() -> None:
    texts = ["the cat", "the dog barks", "a cat and a cat"]
    lengths, mean = np.array([2, 3, 5]), 10 / 3
    counts = np.array([1, 0, 2])
    rare = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    wanted = rare * counts * 2.2 / (counts + 1.2 * (0.25 + 0.75 * lengths / mean))
    assert BM25(texts).scores(["cat"])[0] == pytest.approx(wanted, rel=1e-6)
    assert BM25(["保险", "银行"]).scores(["保"])[0].argmax() == 0


def _bought(folder: Path, households: int) -> Plain:
    """Households of two kinds, each of which buys three goods of its own, of seven."""
    kinds = [n % 2 for n in range(households)]
    truths = [{"right": [f"g{3 * kind + n % 3}"], "pool": None, "seen": None}
              for n, kind in enumerate(kinds)]  # fmt: skip
    table = {"income": [10.0 + 50 * kind for kind in kinds], "bought": truths}
    pq.write_table(pa.table(table), folder / "train.parquet")
    ids = [f"g{n}" for n in range(7)]
    pq.write_table(pa.table({"id": ids, "text": ids}), folder / "candidates.parquet")
    np.save(folder / "untrained.npy", np.eye(7, dtype=np.float16))
    spec = ModelSpec(
        inputs=[ColumnState(column="income", kind="number", state={})],
        target=ColumnState(column="bought", kind="match", state={"width": 7}),
    )
    (folder / "model.json").write_text(spec.model_dump_json(), encoding="utf-8")
    return Plain(Dataset(folder), Model(folder), lambda group: folder, silent)


def test_plain_ways_to_rank_go_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _bought(tmp_path, 60)
    asked = [{"income": 10.0 + 50 * (n % 2)} for n in range(7)]
    pools = [Pool(without=[f"g{n}"]) for n in range(7)]
    whole = plain.factorised(asked, pools)
    for number, ids in enumerate(whole.ids):
        own = {f"g{3 * (number % 2) + n}" for n in range(3)} - {f"g{number}"}
        assert set(ids[: len(own)]) == own and f"g{number}" not in ids
    monkeypatch.setattr(stages_candidates, "SOME_ROWS", 3)
    parts = plain.factorised(asked, pools)
    assert parts.ids == whole.ids
    assert np.concatenate(parts.scores) == pytest.approx(np.concatenate(whole.scores), abs=1e-6)
    assert plain.recurs and plain.most_frequent([Pool()]).ids[0][-1] == "g6"


def test_a_wrong_candidate_is_drawn_from_all_that_are_wrong() -> None:
    ids = [f"c{n}" for n in range(300)]
    known = SimpleNamespace(candidates=SimpleNamespace(ids=ids))
    rng = np.random.default_rng(0)

    def drawn(fair: list[int], times: int) -> set[int]:
        wrong: Any = Pairing._wrong
        return {wrong(known, None, 0, fair, rng) for _ in range(times)}

    assert drawn(list(range(0, 300, 2)), 3000) == set(range(1, 300, 2))
    assert drawn([n for n in range(300) if n != 7], 20) == {7}
    assert drawn(list(range(300)), 5) == {0}  # nothing is wrong: the row's own


# The index


def _index(rows: int = 50) -> Index:
    vectors = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    return Index([f"c{n}" for n in range(rows)], [f"text {n}" for n in range(rows)], unit(vectors))


def test_search_is_exact_and_ranks_within_a_pool() -> None:
    index = _index()
    queries = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    order = np.argsort(-(unit(queries) @ index.vectors.T), axis=1)
    assert index.search(queries, 5).ids == [[f"c{n}" for n in own[:5]] for own in order]
    pool = Pool(["c3", "c9", "unknown", "c1"])
    found = index.search(queries, 5, [pool, Pool(), Pool([]), pool])
    assert set(found.ids[0]) == {"c1", "c3", "c9"}
    assert list(found.scores[0]) == sorted(found.scores[0], reverse=True)
    assert len(found.ids[1]) == 5
    assert found.ids[2] == []
    seen = Pool(["c3", "c9", "c1"], without=["c9", "gone"])
    assert set(index.search(queries[:1], 5, [seen]).ids[0]) == {"c1", "c3"}


def test_a_candidate_that_has_no_id_is_left_out_by_its_text() -> None:
    texts = ["Yes, it does.", "No."]
    index = Index([Catalogue().id_of(text) for text in texts], texts, np.eye(2, dtype=np.float32))
    pools = [Pool(without=["Yes, it does."]), Pool(only=texts, without=["No."])]
    assert index.search(np.ones((2, 2), np.float32), 5, pools).texts == [["No."], texts[:1]]


def test_what_a_row_has_seen_moves_its_vector() -> None:
    index = _index()
    weights = np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32)
    moved = replace(index, history=weights)
    queries = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    seen = ["c3", "c9", "unknown", "c1"]
    found = moved.search(queries, 50, [Pool(without=seen), Pool()])
    own = queries[0] + index.vectors[[3, 9, 1]].sum(0) / np.sqrt(3) @ weights
    plain = index.search(np.stack([own, queries[1]]), 50, [Pool(without=seen), Pool()])
    assert found.ids == plain.ids and len(found.ids[0]) == 47
    assert moved.without(["c1"]).history is moved.beside(_index(1)).history is weights


def test_candidates_are_added_replaced_removed_and_kept_in_files(tmp_path: Path) -> None:
    index = _index(3).without(["c1"])
    changed = index.beside(Index(["c2", "new"], ["other", "New."], np.eye(2, 8, dtype=np.float32)))
    assert changed.ids == ["c0", "c2", "new"]
    assert changed.texts == ["text 0", "other", "New."]
    changed.save(tmp_path)
    again = Index.load(tmp_path)
    assert again is not None
    assert (again.ids, again.texts) == (changed.ids, changed.texts)
    assert again.vectors == pytest.approx(changed.vectors, abs=1e-3)
    assert Index.load(tmp_path / "nowhere") is None


# Through the doors


def _candidates() -> list[Row]:
    """Each pair of words as a candidate, each word by a form of its own."""
    return [
        {"id": f"{a}-{b}", "text": f"the {a} and {b} film"}
        for n, a in enumerate(WORDS)
        for b in WORDS[n + 1 :]
    ]


def _rows(count: int) -> list[Row]:
    rng, known, rows = random.Random(0), _candidates(), []
    for number in range(count):
        pair = rng.choice(known)
        words = [*pair["id"].split("-"), *rng.choices(OTHER, k=rng.randint(0, 4))]
        rng.shuffle(words)
        pool = [pair["id"], *(each["id"] for each in rng.sample(known, 8))]
        part = "test" if number < 60 else "validation" if number < 100 else "train"
        question = f"{' '.join(words)} ({number})"
        rows.append({"question": question, "answer": pair["id"], "part": part})
        if part == "test":
            rows[-1]["pool"] = pool
        if number % 2:
            rows[-1]["had"] = [each["id"] for each in rng.sample(known, 5)] + pool[:2]
    return [
        *rows,
        {"question": rows[-1]["question"], "answer": [known[0]["id"]], "part": "train"},
        {"question": "an unknown answer", "answer": "nobody-knows", "part": "train"},
    ]


def _project(folder: Path, backbone: Path, more: str = "") -> Path:
    for name, lines in (("rows", _rows(400)), ("candidates", _candidates())):
        text = "\n".join(map(json.dumps, lines))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    training = "\n".join(f"{name} = {json.dumps(value)}" for name, value in TRAINING.items())
    (folder / "modelyard.toml").write_text(
        'name = "faq"\n[data]\nrows = "rows.jsonl"\nsplit = { given = "part" }\n'
        '[inputs]\nquestion = "text"\n[target]\ncolumn = "answer"\nkind = "match"\n'
        'candidates = "candidates.jsonl"\npool = "pool"\nseen = "had"\n'
        f'[backbone]\ntext = "{backbone}"\n'
        f"[train]\n{training}\n{more}",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def made(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = _project(tmp_path_factory.mktemp("match"), tiny_backbone)
    return folder, modelyard.run(folder).folder


def test_rows_that_ask_the_same_become_one_with_all_candidates(made: tuple[Path, Path]) -> None:
    [dataset] = (made[0] / ".modelyard" / "objects").glob("prepare-*")
    rows = pq.read_table(dataset / "train.parquet").to_pylist()
    several = [row["answer"]["right"] for row in rows if len(row["answer"]["right"]) > 1]
    assert several == [[_rows(400)[399]["answer"], _candidates()[0]["id"]]]
    refused = (dataset / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = {each["kind"]: each["reason"] for each in map(json.loads, refused)}
    assert set(kinds) == {"joined", "wrong target"}
    assert "'nobody-knows', which is not among the candidates" in kinds["wrong target"]


def test_the_report_ranks_within_pools_beside_bm25_and_the_backbone(
    made: tuple[Path, Path],
) -> None:
    report = json.loads((made[1] / "report.json").read_text(encoding="utf-8"))
    own = {each["name"]: each["value"] for each in report["measures"]}
    assert own["recall_at_1"] >= 0.6
    assert own["recall_at_1"] <= own["mrr_at_10"] <= own["recall_at_10"]
    assert [each["name"] for each in report["baselines"]] == [
        *("most frequent candidates", "BM25", "untrained backbone")
    ]
    for baseline in report["baselines"]:
        assert baseline["difference"]["rows"] == 60
    untrained = report["baselines"][2]["measures"][0]
    assert own["recall_at_1"] > untrained["value"]
    assert 7 <= report["ranking"]["pool"] <= 9
    page = (made[1] / "report.html").read_text(encoding="utf-8")
    assert "How far down the right one stands" in page
    [audit] = (made[0] / ".modelyard" / "objects").glob("audit-*")
    for row in pq.read_table(audit / "predictions.parquet").to_pylist():
        truth = json.loads(row["truth"])
        ids = [each["id"] for each in json.loads(row["candidates"])]
        assert set(ids) == set(truth["pool"]) - set(truth["seen"] or ())
        assert set(truth["right"]) <= set(ids)


def test_what_a_row_has_seen_is_no_answer_to_it(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, release = made
    question = {"question": "clever warm story"}
    runtime = modelyard.load(release)
    best, *others = [each["id"] for each in runtime.predict([question])[0]["candidates"]]
    weights = np.load(release / "history.npy")
    assert (
        np.abs(weights - 0.1 * np.eye(len(weights))).max() > 0.01
    )  # it began as that, and learned
    asked = [
        {**question, "had": [best, "no longer for sale"]},
        {**question, "had": None},
        {**question, "had": []},
    ]
    held = [{**question, "had": kind([best])} for kind in (tuple, set, np.array)]
    for row in runtime.predict(held):
        assert best not in [each["id"] for each in row["candidates"]]
    found = [[each["id"] for each in row["candidates"]] for row in runtime.predict(asked)]
    assert best not in found[0] and len(found[0]) == 10
    scores = [[c["score"] for c in row["candidates"]] for row in runtime.predict(asked)]
    assert scores[0][:9] != scores[1][1:]  # what has been seen moves the others as well
    assert found[1] == found[2] == [best, *others]
    (tmp_path / "rows.csv").write_text(
        f"question,had\nclever warm story,{best}\n", encoding="utf-8"
    )
    assert main(["predict", str(release), str(tmp_path / "rows.csv")]) == 0
    written = (tmp_path / "rows.predictions.csv").read_text(encoding="utf-8")
    assert f'{{""id"": ""{found[0][0]}""' in written
    lines = [{**question, "had": [{}]}, {**question, "had": "[]"}]
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert main(["predict", str(release), str(tmp_path / "bad.jsonl")]) in (0, 1)
    told = (tmp_path / "bad.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    bad, none = map(json.loads, told)
    assert "column 'had'" in bad["error"] and bad["candidates"] is None
    assert none["candidates"][0]["id"] == best
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        reply = client.post("/v1/models/faq/predict", json={"rows": asked}).json()
        told = [[each["id"] for each in row["candidates"]] for row in reply["predictions"]]
        refused = client.post("/v1/models/faq/predict", json={"rows": [{**question, "had": [{}]}]})
        tensors = [_bytes("question", [row["question"] for row in asked]),
                   _bytes("had", [json.dumps([best]), None, ""])]  # fmt: skip
        reply = client.post("/v2/models/faq/infer", json={"inputs": tensors}).json()
        by_tensor = [[c["id"] for c in json.loads(row)] for row in reply["outputs"][0]["data"]]
        taken = client.get("/v2/models/faq").json()["inputs"]
        twice = client.post("/v2/models/faq/infer", json={"inputs": [tensors[0], *tensors]})
    assert told == by_tensor == found
    assert [(each["name"], each.get("parameters")) for each in taken] == [
        ("question", None),
        ("had", {"optional": True}),
    ]
    assert twice.status_code == 400 and "and maybe ['had'], each once" in twice.json()["error"]
    assert refused.status_code == 422 and "column 'had'" in refused.json()["detail"]


@pytest.mark.parametrize(("batch_rows", "pairs"), [(4, True), (24, False)])
def test_rows_stand_beside_all_candidates_only_where_that_costs_less_than_pairs(
    tiny_backbone: Path, tmp_path: Path, batch_rows: int, pairs: bool
) -> None:
    project = _project(tmp_path, tiny_backbone)
    events: list[Event] = []
    settings = [f"train.batch_rows={batch_rows}", "train.epochs=1"]
    release = modelyard.run(project, settings, events.append).folder
    decided = {event.what for event in events if isinstance(event, Decided)}
    assert ("pairs" in decided, "candidates" in decided) == (pairs, not pairs)
    assert (release / "history.npy").exists() is not pairs


@pytest.mark.parametrize("batch_rows", [4, 24])
def test_low_rank_matrices_and_no_validation_rows(
    tiny_backbone: Path, tmp_path: Path, batch_rows: int
) -> None:
    project = _project(tmp_path, tiny_backbone)
    rows = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    rows = rows.replace('"part": "validation"', '"part": "train"')
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    settings = ["train.method=lora", f"train.batch_rows={batch_rows}", "train.epochs=2"]
    release = modelyard.run(project, settings).folder
    assert modelyard.load(release).predict([{"question": "clever warm story"}])


def test_a_column_that_goes_in_and_is_seen_is_one_column(made: tuple[Path, Path]) -> None:
    runtime = modelyard.load(made[1])
    state = {**runtime.spec.target.state, "seen": "question"}
    target = runtime.spec.target.model_copy(update={"state": state})
    other = replace(runtime, spec=runtime.spec.model_copy(update={"target": target}))
    assert [each.name for each in release_info(made[1], other).columns] == ["question"]


def _bytes(name: str, values: list[Any]) -> Row:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}


def test_what_rows_have_seen_is_read_beside_the_service_loop(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_by: list[str] = []
    plain = runtime_module.names_in

    def read_in(value: Any) -> list[str]:
        read_by.append(threading.current_thread().name)
        return plain(value)

    monkeypatch.setattr(runtime_module, "names_in", read_in)
    runtime = modelyard.load(made[1])
    rows = [{"question": "clever warm story", "had": ["fine-dull"]}]
    with TestClient(create_app(runtime, release_info(made[1], runtime), Serve())) as client:
        assert client.post("/v1/models/faq/predict", json={"rows": rows}).status_code == 200
    assert [name.partition("_")[0] for name in read_by] == ["encode"]


def test_a_release_has_its_index_and_tells_nothing_of_its_rows(made: tuple[Path, Path]) -> None:
    names = {path.name for path in made[1].iterdir()}
    assert {"index.npy", "candidates.jsonl", "graph.onnx"} <= names
    assert not {"seen.npy", "untrained.npy"} & names
    assert 'AutoModel.from_pretrained("FOLDER")' in (made[1] / "README.md").read_text("utf-8")


def test_the_same_vectors_come_from_transformers(made: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    text = "the fine and dull film"
    runtime = modelyard.load(made[1])
    tokens = AutoTokenizer.from_pretrained(made[1])([text], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(made[1])(**tokens).last_hidden_state
    theirs = unit(states.mean(1).numpy())
    assert float((theirs * runtime.vectors([text])).sum()) > 0.99  # 8 bits against 32


def test_candidates_are_added_and_removed_without_training(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, release = made
    question = {"question": "clever warm story"}
    first = modelyard.load(release).predict([question])[0]["candidates"][0]
    (tmp_path / "add.jsonl").write_text(
        json.dumps({"id": "new", "text": question["question"]}), encoding="utf-8"
    )
    (tmp_path / "remove.csv").write_text(f"id\n{first['id']}\n", encoding="utf-8")
    out = tmp_path / "more"
    words = ["candidates", str(release), "--add", str(tmp_path / "add.jsonl")]
    assert main([*words, "--remove", str(tmp_path / "remove.csv"), "--out", str(out)]) == 0
    assert f"{len(_candidates()):,} candidates" in capsys.readouterr().out
    runtime = modelyard.load(release, candidates=out)
    found = runtime.predict([question])[0]["candidates"]
    assert found[0] == {
        "id": "new",
        "text": question["question"],
        "score": pytest.approx(1, abs=1e-3),
    }
    assert first["id"] not in [each["id"] for each in found]
    assert main([*words, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        reply = client.post("/v1/models/faq/predict", json={"rows": [question]}).json()
        asked = {"inputs": [{"name": "question", "datatype": "BYTES", "shape": [1],
                             "data": [question["question"]]}]}  # fmt: skip
        [tensor] = client.post("/v2/models/faq/infer", json=asked).json()["outputs"]
    assert reply["predictions"][0]["candidates"][0]["id"] == "new"
    assert json.loads(tensor["data"][0])[0]["id"] == "new"


def test_candidates_that_were_changed_or_are_anothers_are_refused(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "same"
    assert main(["candidates", str(made[1]), "--out", str(out)]) == 0
    assert open_release(made[1], candidates=out).index is not None
    lines = (out / "candidates.jsonl").read_text(encoding="utf-8")
    (out / "candidates.jsonl").write_text(lines.replace("film", "flim"), encoding="utf-8")
    with pytest.raises(ReleaseChanged, match=r"candidates\.jsonl"):
        open_release(made[1], candidates=out)
    with pytest.raises(SettingInvalid, match="holds no candidates of the release"):
        open_release(made[1], candidates=made[1])


def test_a_training_that_was_stopped_ends_as_an_unbroken_one(
    made: tuple[Path, Path], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = _project(tmp_path, tiny_backbone), []

    def stops(run: loop.Run) -> None:
        plain(run)
        raise KeyboardInterrupt

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, StageDone) and event.stage == "train":
            raise KeyboardInterrupt

    plain = loop.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(loop, "save", stops)
        modelyard.run(folder)
    with pytest.raises(KeyboardInterrupt):
        modelyard.run(folder, events=tell)
    assert any(isinstance(e, Noted) and "goes on from step 1" in e.text for e in told)
    assert not any(isinstance(e, Progress) and e.what == "looking at the candidates" for e in told)
    first, again = ((f / ".modelyard" / "objects").glob("train-*") for f in (made[0], folder))
    assert [path.name for path in first] == [path.name for path in again]


def test_what_cannot_be_is_refused_early(tiny_backbone: Path, tmp_path: Path) -> None:
    from modelyard.core.project_file import read_project

    file = _project(tmp_path, tiny_backbone) / "modelyard.toml"
    with pytest.raises(SettingInvalid, match=r'train\.method = "head"'):
        refuse_early(read_project(file, ['train.method="head"']))
    with pytest.raises(RowsMissing, match=r"no\.jsonl; check target\.candidates"):
        modelyard.run(file, ['target.candidates="no.jsonl"'])
