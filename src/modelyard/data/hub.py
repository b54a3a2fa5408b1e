"""A dataset on the Hugging Face Hub: hf://owner/name[@revision][:[config/]split]."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelyard.core.errors import ExtraMissing, SettingInvalid, SourceUnreachable
from modelyard.core.stages import RowFacts
from modelyard.data.files import Record

ADDRESS = re.compile(
    r"hf://(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:]+))?"
    r"(?::(?:(?P<config>[^/:]+)/)?(?P<split>[^/:]+))?"
)
GUESSED = RowFacts(rows=10_000, mean_characters=200.0)


@dataclass(frozen=True)
class HubAddress:
    """What an hf:// address names."""

    id: str
    revision: str | None
    config: str | None
    split: str


def parse(address: str) -> HubAddress:
    """Read an address; raises SettingInvalid.

    >>> parse("hf://stanfordnlp/imdb@v1:plain_text/train")
    HubAddress(id='stanfordnlp/imdb', revision='v1', config='plain_text', split='train')
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise SettingInvalid(
            f"data.rows: {address!r} is no Hub address; write hf://OWNER/NAME, then @REVISION "
            "and :SPLIT or :CONFIG/SPLIT where wanted."
        )
    return HubAddress(found["id"], found["revision"], found["config"], found["split"] or "train")


def records(address: HubAddress) -> Iterator[Record]:
    """The rows of a dataset's split; raises ExtraMissing, SourceUnreachable."""
    rows = _ask(
        address,
        "load_dataset",
        address.id,
        address.config,
        split=address.split,
        revision=address.revision,
    )
    return (Record(number, dict(row)) for number, row in enumerate(_undecoded(rows), start=1))


def _undecoded(rows: Any) -> Any:
    """A dataset whose images stay as they are stored: a mapping of bytes and path."""
    for name, feature in (getattr(rows, "features", None) or {}).items():
        if getattr(feature, "decode", False):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def facts(address: HubAddress) -> RowFacts:
    """How many rows the Hub says there are; the length is a guess until they are read."""
    builder = _ask(
        address, "load_dataset_builder", address.id, address.config, revision=address.revision
    )
    split = (builder.info.splits or {}).get(address.split)
    return RowFacts(split.num_examples, GUESSED.mean_characters) if split else GUESSED


def _ask(address: HubAddress, function: str, *arguments: Any, **named: Any) -> Any:
    try:
        import datasets
        from httpx import HTTPError
    except ImportError:
        raise ExtraMissing(
            "Rows from the Hub need the package `datasets`; run pip install 'modelyard[hub]'."
        ) from None
    datasets.disable_progress_bars()
    try:
        return getattr(datasets, function)(*arguments, **named)
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SourceUnreachable(
            f"The Hub dataset {address.id} ({address.split}) could not be read: {reason}; check "
            "its name, split and the network, or save it as a file and name that in data.rows."
        ) from None
