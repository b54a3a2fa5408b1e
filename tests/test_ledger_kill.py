"""kill -9 of workers and of the whole service under 32 clients: the books hold."""

from pathlib import Path

from bench.kill_service import killed
from sqlalchemy import Engine
from tests.service_host import signed, write_release

from modelyard.ledger import customers


def test_every_answered_request_is_counted_once(url: str, engine: Engine, tmp_path: Path) -> None:
    release = signed(write_release(tmp_path / "release"))
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    customers.set_limit(engine, "project", "web", "rows", 10**9, "month")
    _, key = customers.add_key(engine, "shop", project="web")
    verdict = killed(release, url, engine, key.text, kills=4)
    assert verdict.answered > 32
    assert verdict.broken, "no kill has met a request"
    assert not verdict.failures, verdict
