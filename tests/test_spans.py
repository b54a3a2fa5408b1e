"""Spans: read, refused, as tags of words, decoded, measured, and beside a dictionary."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from modelyard import checks, targets
from modelyard.checks.difference import fitting
from modelyard.core.errors import ClassTooSmall, TooFewClasses
from modelyard.inputs.text import INPUT as TEXT
from modelyard.runtime.encoded import Encoded, TokenOutputs, of_rows
from modelyard.runtime.tags import (
    best_tags,
    fitting_words,
    ranges_of,
    tags_of,
    units_of,
    words_of,
)

TARGET = targets.find("spans")
Span = dict[str, Any]
SAID = "Ann Lee flew to Berlin ."
ANN = {"start": 0, "end": 7, "label": "PERSON"}
BERLIN = {"start": 16, "end": 22, "label": "PLACE"}


def read(value: Any, text: str = SAID) -> list[Span]:
    spans: list[Span] = TARGET.read(value, {"text": text})["spans"]
    return spans


def truth(text: str, *spans: Span) -> dict[str, Any]:
    return {"text": text, "spans": list(spans)}


# Reading


@pytest.mark.parametrize(
    "value",
    [
        [ANN, BERLIN],
        [BERLIN, ANN],
        [[0, 7, "PERSON"], [16, 22, "PLACE"]],
        json.dumps([[0, 7, "PERSON"], BERLIN]),
        [{**ANN, "text": "Ann Lee", "score": 0.9}, (16, 22, "PLACE")],
        [{**ANN, "end": 8}, {**BERLIN, "start": 15}],
        {"PERSON": {"Ann Lee": [[0, 6]]}, "PLACE": {"Berlin": [[16, 21]]}},
    ],
)
def test_every_form_of_spans_is_read_as_the_same(value: Any) -> None:
    assert read(value) == [ANN, BERLIN]


def test_no_spans_are_spans() -> None:
    assert read([]) == read("[]") == read({}) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([ANN, [4, 9, "X"]], "overlap: PERSON from 0 to 7 and X from 4 to 9"),
        ([ANN, ANN], "overlap"),
        ([[0, 25, "X"]], "no part of the text with its 24 characters"),
        ([[-1, 3, "X"]], "no part of the text"),
        ([[3, 3, "X"]], "no part of the text"),
        ([[5, 3, "X"]], "no part of the text"),
        ([[7, 8, "X"]], "white space alone"),
        ([[0, 7, " "]], "without a label"),
        ([[0, 7, None]], "without a label"),
        ([[0, 7.0, "X"]], "not whole numbers"),
        ([[0, True, "X"]], "not whole numbers"),
        ([[0, 7, ["X"]]], "holds list"),
        ([[0, 7]], "which is no span"),
        (["PLACE"], "which is no span"),
        ("PLACE", "not JSON"),
        ("3", "holds int, not a list"),
        (7, "holds int, not a list"),
        ({"PLACE": "Berlin"}, "holds an object"),
        ({"PLACE": {"Berlin": [[16, 22]]}}, "where the text has something else"),
        ({"PLACE": {"Berlin": [16, 21]}}, "where the text has something else"),
    ],
)
def test_what_is_no_span_of_the_text_is_refused_with_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(value)


def test_spans_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(TooFewClasses):
        TARGET.check([truth(SAID)] * 9)
    with pytest.raises(ClassTooSmall, match="PLACE"):
        TARGET.check([truth(SAID, ANN)] * 9 + [truth(SAID, BERLIN)])
    TARGET.check([truth(SAID, ANN)] * 3)


# Words and tags

LETTERS = st.sampled_from("ab北京1 .-é😀e\u0301")
TEXTS = st.text(LETTERS, min_size=1, max_size=30)


@given(TEXTS, st.sampled_from(["spaced", "fine"]), st.data())
def test_spans_of_whole_words_survive_their_tags(text: str, how: str, data: st.DataObject) -> None:
    words = words_of(text, how)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(words)), max_size=8)))
    number_of = {"A": 0, "B": 1}
    spans = [
        {
            "start": int(words[first, 0]),
            "end": int(words[after - 1, 1]),
            "label": data.draw(st.sampled_from("AB")),
        }
        for first, after in itertools.pairwise(cuts)
        if data.draw(st.booleans())
    ]
    tags = tags_of(spans, words, number_of)
    found = [
        {"start": int(words[a, 0]), "end": int(words[b - 1, 1]), "label": "AB"[number]}
        for a, b, number in ranges_of(tags)
    ]
    assert found == spans
    assert fitting_words([text], [spans]) == "spaced" or how == "fine"


@given(TEXTS, st.sampled_from(["spaced", "fine"]))
def test_words_hold_every_character_that_is_no_space(text: str, how: str) -> None:
    words = words_of(text, how)
    held = {place for start, end in words.tolist() for place in range(start, end)}
    assert held == {place for place, character in enumerate(text) if not character.isspace()}
    assert (words[1:, 0] >= words[:-1, 1]).all() and (words[:, 1] > words[:, 0]).all()


def test_spans_that_cut_words_make_the_words_finer() -> None:
    spans = [{"start": 3, "end": 9, "label": "PLACE"}]
    assert fitting_words(["in London."], [spans]) == "fine"
    assert fitting_words(["in London ."], [spans]) == "spaced"
    assert fitting_words(["", "x"], [[], []]) == "spaced"


def test_a_token_over_several_words_takes_them_in() -> None:
    words = words_of("a2b c", "fine")
    first, units = units_of(words, np.array([[0, 3], [4, 5]]))
    assert first.tolist() == [0, 1] and units.tolist() == [[0, 3], [4, 5]]


SCORES = st.lists(
    st.lists(st.lists(st.floats(-9, 0), min_size=5, max_size=5), max_size=4), min_size=1, max_size=4
)


@given(SCORES)
def test_the_best_tags_are_allowed_and_none_allowed_are_better(scores: list[Any]) -> None:
    ends = np.array([len(own) for own in scores]).cumsum()
    flat = np.array([row for own in scores for row in own], dtype=np.float64).reshape(-1, 5)
    tags = best_tags(flat, ends)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        own, found = flat[start:end], tags[start:end].tolist()
        assert allowed(found)
        best = max(
            sum(own[n, tag] for n, tag in enumerate(path))
            for path in itertools.product(range(5), repeat=len(own))
            if allowed(path)
        )
        assert sum(own[n, tag] for n, tag in enumerate(found)) == pytest.approx(best)


def allowed(path: Any) -> bool:
    """Whether I-X stands only after B-X or I-X."""
    pairs = itertools.pairwise([0, *path])
    return all(tag % 2 or not tag or before in (tag, tag - 1) for before, tag in pairs)


# Tokens


def backbone_of(folder: Path, window_tokens: int) -> tuple[Any, dict[str, Any]]:
    state = TEXT.learn([], {"window_tokens": window_tokens}, folder, "tokens")
    return TEXT.encoder(state, folder), state


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from([8, 11, 64]))
def test_each_token_is_answered_for_once_whatever_the_windows(
    tiny_backbone: Path, texts: list[str], window_tokens: int
) -> None:
    encode, _ = backbone_of(tiny_backbone, window_tokens)
    tokenizer = Tokenizer.from_file(str(tiny_backbone / "tokenizer.json"))
    outputs = tokens_of(encode([text * 4 for text in texts]))
    starts = [0, *outputs.ends[:-1]]
    for text, start, end in zip(outputs.texts, starts, outputs.ends, strict=True):
        found = outputs.spans[start:end]
        whole = tokenizer.encode(text)
        pairs = zip(whole.offsets, whole.special_tokens_mask, strict=True)
        wanted = [start for (start, _), is_special in pairs if not is_special]
        assert found[:, 0].tolist() == wanted
        assert (found[1:, 0] >= found[:-1, 1]).all()


def tokens_of(encoded: Encoded) -> TokenOutputs:
    """Outputs that say nothing, at their places."""
    from modelyard.runtime.encoded import Ragged

    values = np.zeros((int(encoded.lengths.sum()), 1), dtype=np.float32)
    found = of_rows(Ragged(values, encoded.lengths.cumsum()), encoded)
    assert isinstance(found, TokenOutputs)
    return found


@pytest.mark.parametrize("words", ["spaced", "fine"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_learned_is_what_is_answered(
    tiny_backbone: Path, words: str, data: st.DataObject
) -> None:
    """Outputs that say each token's truth are decoded as the very spans."""
    encode, _ = backbone_of(tiny_backbone, data.draw(st.sampled_from([8, 64])))
    texts = data.draw(st.lists(TEXTS.filter(str.strip), min_size=1, max_size=3))
    state = {"labels": ["A", "B"], "words": words}
    encoded = encode(texts)
    outputs = tokens_of(encoded)
    truths = []
    for text, start, end in zip(texts, [0, *outputs.ends[:-1]], outputs.ends, strict=True):
        _, units = units_of(words_of(text, words), outputs.spans[start:end])
        spans = []
        for first in range(0, len(units) - 1, 2):
            label = data.draw(st.sampled_from(["A", "B", None]))
            if label:
                after = first + data.draw(st.integers(1, 2))
                ends = (int(units[first, 0]), int(units[after - 1, 1]))
                spans.append({"start": ends[0], "end": ends[1], "label": label})
        truths.append(truth(text, *spans))
    learned = TARGET.truth(truths, state, encoded)
    values = np.full((len(learned.values), 5), -9.0, dtype=np.float32)
    asked = learned.values >= 0
    values[np.flatnonzero(asked), learned.values[asked]] = 9
    values[~asked] = np.random.default_rng(0).normal(size=(int((~asked).sum()), 5))
    learned_outputs = of_rows(type(learned)(values, encoded.lengths.cumsum()), encoded)
    for answer, true in zip(TARGET.decode(learned_outputs, state), truths, strict=True):
        found = [{key: span[key] for key in ("start", "end", "label")} for span in answer["spans"]]
        assert found == true["spans"]
        assert all(
            span["text"] == true["text"][span["start"] : span["end"]] for span in found_in(answer)
        )
        assert all(span["score"] > 0.99 for span in answer["spans"])


def found_in(answer: dict[str, Any]) -> list[Span]:
    TARGET.wire.model_validate(answer)
    spans: list[Span] = answer["spans"]
    return spans


def test_a_span_is_as_probable_as_its_words_and_its_end() -> None:
    shares = np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.2, 0.3]])
    outputs = TokenOutputs(
        ["a b c"],
        np.array([[0, 1], [2, 3], [4, 5]], dtype=np.int32),
        np.log(shares).astype(np.float32),
        np.array([3]),
    )
    [answer] = TARGET.decode(outputs, {"labels": ["A"], "words": "spaced"})
    [span] = answer["spans"]
    assert (span["start"], span["end"], span["text"]) == (0, 3, "a b")
    assert span["score"] == pytest.approx(0.8 * 0.6 * 0.7)


def test_a_text_without_tokens_has_no_spans(tiny_backbone: Path) -> None:
    encode, _ = backbone_of(tiny_backbone, 64)
    state = {"labels": ["A"], "words": "spaced"}
    encoded = encode(["\u200b", "film", "\u200b"])
    values = np.tile(np.float32([0, 1, 0]), (int(encoded.lengths.sum()), 1))
    from modelyard.runtime.encoded import Ragged

    answers = TARGET.decode(of_rows(Ragged(values, encoded.lengths.cumsum()), encoded), state)
    assert [len(answer["spans"]) for answer in answers] == [0, 1, 0]
    assert TARGET.truth([truth("\u200b")] * 3, state, encoded).values.max() == 0


def test_a_rows_loss_is_the_mean_of_its_words() -> None:
    import torch

    torch.manual_seed(0)
    outputs = torch.randn(2, 4, 5)
    tags = torch.tensor([[-1, 2, 0, -1], [1, -1, -1, -1]])
    state = {"labels": ["A", "B"], "counts": [9, 1, 1, 1, 0]}
    losses = TARGET.losses(outputs, tags, state, {})
    log_shares = outputs.log_softmax(-1)
    wanted = [-(log_shares[0, 1, 2] + log_shares[0, 2, 0]) / 2, -log_shares[1, 0, 1]]
    torch.testing.assert_close(losses, torch.stack(wanted))
    balanced = TARGET.losses(outputs, tags, state, {"class_weights": "balanced"})
    assert balanced[1] > losses[1]
    nothing = TARGET.losses(outputs, torch.full((2, 4), -1), state, {"label_smoothing": 0.1})
    assert nothing.tolist() == [0, 0]


# Measures

OTHER = {"start": 8, "end": 12, "label": "PLACE"}


def test_f1_counts_spans_that_are_right_in_both_ends_and_label() -> None:
    rows = [truth(SAID, ANN, BERLIN)] * 2 + [truth(SAID)]
    answers = [
        {"spans": [ANN, {**BERLIN, "start": 15}]},
        {"spans": [{**ANN, "label": "PLACE"}, BERLIN, OTHER]},
        {"spans": []},
    ]
    f1, precision, recall = TARGET.score(rows, answers)
    assert (f1.name, f1.value, f1.rows) == ("entity_f1", pytest.approx(2 * 2 / 9), 3)
    assert precision.value == pytest.approx(2 / 5) and recall.value == pytest.approx(2 / 4)
    assert f1.low <= f1.value <= f1.high


def test_without_a_mistake_the_interval_is_that_of_the_rows() -> None:
    rows = [truth(SAID, ANN)] * 50
    measures = TARGET.score(rows, [{"spans": [ANN]}] * 50)
    assert [each.value for each in measures] == [1, 1, 1]
    assert all(0.9 < each.low < 0.95 and each.high == 1 for each in measures)


def test_the_tables_are_those_of_scikit_learn_by_tags_and_of_the_target_by_spans() -> None:
    from sklearn.metrics import classification_report

    rng = np.random.default_rng(1)
    rows, answers, true_tags, found_tags = [], [], [], []
    text = "a b c d e f g h"
    words = words_of(text, "spaced")
    for _ in range(60):
        pair = []
        for _ in range(2):
            spans = [
                {
                    "start": 4 * n,
                    "end": 4 * n + int(rng.choice([1, 3])),
                    "label": rng.choice(["A", "B"]),
                }
                for n in range(4)
                if rng.random() < 0.5
            ]
            pair.append([{**span, "label": str(span["label"])} for span in spans])
        rows.append(truth(text, *pair[0]))
        answers.append({"spans": [{**span, "score": 0.5} for span in pair[1]]})
        for spans, tags in zip(pair, (true_tags, found_tags), strict=True):
            names = ["O", "B-A", "I-A", "B-B", "I-B"]
            tags += [names[n] for n in tags_of(spans, words, {"A": 0, "B": 1})]
    [table, mistakes] = checks.fitting(TARGET.wire.model_fields)
    found = table.run(rows, answers)
    wanted = classification_report(true_tags, found_tags, output_dict=True, zero_division=0)
    by_tag = {line["label"]: line for line in found.details["tokens"]["classes"]}
    for tag in ("O", "B-A", "I-A", "B-B", "I-B"):
        assert by_tag[tag]["f1"]["value"] == pytest.approx(wanted[tag]["f1-score"])
        assert by_tag[tag]["support"] == wanted[tag]["support"]
    measures = {measure.name: measure for measure in found.measures}
    assert list(measures) == list(table.measures)
    assert measures["token_micro_f1"].value == pytest.approx(wanted["accuracy"])
    for name in ("macro", "weighted"):
        value = wanted[f"{name} avg"]["f1-score"]
        assert measures[f"token_{name}_f1"].value == pytest.approx(value)
    micro = found.details["averages"][0]
    f1, precision, _ = TARGET.score(rows, answers)
    assert micro["name"] == "micro" and micro["f1"]["value"] == pytest.approx(f1.value)
    assert micro["precision"]["value"] == pytest.approx(precision.value)
    assert micro["support"] == sum(len(row["spans"]) for row in rows)
    listed = mistakes.run(rows, answers).details
    said = [[strip(span) for span in answer["spans"]] for answer in answers]
    right = [row["spans"] == own for row, own in zip(rows, said, strict=True)]
    assert listed["wrong"] == right.count(False)


def strip(span: Span) -> Span:
    return {name: span[name] for name in ("start", "end", "label")}


def test_mistakes_say_what_was_found_and_what_is_so() -> None:
    [_, check] = checks.fitting(TARGET.wire.model_fields)
    answer = {"spans": [{**ANN, "end": 3, "score": 0.7}, {**OTHER, "score": 0.9}]}
    finding = check.run([truth(SAID, ANN)], [answer])
    assert finding.details["listed"] == [
        {"row": 0, "truth": "nothing", "label": "PLACE: flew", "score": 0.9},
        {"row": 0, "truth": "PERSON: Ann Lee", "label": "PERSON: Ann", "score": 0.7},
    ]


def test_the_paired_difference_is_that_of_f1() -> None:
    rows = [truth(SAID, ANN, BERLIN)] * 40
    good, bad = [{"spans": [ANN, BERLIN]}] * 40, [{"spans": [ANN]}] * 40
    compare = fitting(TARGET.wire.model_fields)
    assert compare is not None
    paired = compare(rows, good, bad)
    assert paired.value == pytest.approx(1 - 2 / 3) and paired.judgement == "better"
    assert (paired.only_first, paired.only_second, paired.rows) == (40, 0, 40)


def test_the_dictionary_finds_the_longest_with_its_usual_label() -> None:
    york = {"start": 0, "end": 8, "label": "PLACE"}
    rows = [
        truth("New York won", {**york, "label": "TEAM"}),
        *[truth("New York", york)] * 2,
        truth("York is old", {"start": 0, "end": 4, "label": "CITY"}),
    ]
    texts = {"text": ["in New York, not York", "nowhere", "Yorkshire"]}
    [baseline] = TARGET.baselines("", None, rows, None, texts)
    first, *others = baseline.answers
    assert [(s["text"], s["label"]) for s in first["spans"]] == [
        ("New York", "PLACE"),
        ("York", "CITY"),
    ]
    assert first["spans"][0]["score"] == pytest.approx(2 / 3)
    assert others == [{"spans": []}] * 2
    TARGET.wire.model_validate(first)
