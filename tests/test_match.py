"""The target match: rows read, pairs learned, candidates ranked, added and removed."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.core.artefacts import ColumnState, Dataset, Model, ModelSpec
from modelyard.core.errors import (
    ColumnMissing,
    RowsUnreadable,
    TooFewClasses,
)
from modelyard.core.events import silent
from modelyard.data.candidates import Catalogue, read
from modelyard.models.bm25 import BM25
from modelyard.runtime.index import Index, Pool, unit
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
