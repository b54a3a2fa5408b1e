"""What the bench makes of a service under too many requests. No service is started here."""

import pytest
from bench.service import _flat, _untold

from modelyard.service.load import Load


def test_memory_is_flat_where_its_end_is_its_middle() -> None:
    still = [(float(second), 500_000_000) for second in range(100)]
    assert _flat(still, "films").value == 1.0 and _flat(still, "films").holds
    early = [(at, 900_000_000 if at < 15 else size) for at, size in still]
    assert _flat(early, "films").holds  # what happens before it has settled says nothing
    growing = [(at, int(size * (1 + at / 500))) for at, size in still]
    found = _flat(growing, "films")
    assert found.value == pytest.approx(1.189 / 1.049, abs=0.001) and not found.holds
    assert "MB after 20% of it" in found.measured_on


def test_what_is_refused_with_a_time_is_told() -> None:
    assert _untold(Load(clients=9, seconds=1, refused=5, told_when=5)) == []
    assert len(_untold(Load(clients=9, seconds=1, refused=5, told_when=3, lost=2))) == 4
