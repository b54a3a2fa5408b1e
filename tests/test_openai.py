"""OpenAI's own client as a customer, with a key, a limit and usage."""

import struct
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from sqlalchemy import Engine
from tests.service_host import info_of, open_runtime, served, write_matcher, write_release

from modelyard.core.project import Serve
from modelyard.ledger import customers, usage
from modelyard.serving import metered


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("releases")
    return {"class": write_release(folder / "class"), "match": write_matcher(folder / "match")}


@pytest.fixture(params=["class", "match"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(
    kind: str, folders: dict[str, Path], engine: Engine, url: str
) -> Iterator[openai.OpenAI]:
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, key = customers.add_key(engine, "shop", project="web")
    customers.set_limit(engine, "project", "web", "requests", 4, "hour")
    runtime = open_runtime(folders[kind])
    limits = Serve(unflagged=["good"])
    with (
        metered(url) as meter,
        served(runtime, info_of(runtime, folders[kind]), limits, meter) as at,
        openai.OpenAI(base_url=f"{at}/v1", api_key=key.text, max_retries=0) as client,
    ):
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_what_it_is_made_for_and_nothing_else(client: openai.OpenAI, kind: str) -> None:
    if kind == "class":
        found = client.moderations.create(model="tiny", input=["dull", "a good film"])
        assert len(found.results) == 2
        for each in found.results:
            said = [label for label, is_so in each.categories.model_dump().items() if is_so]
            assert each.flagged == (said == ["bad"])
        with pytest.raises(openai.BadRequestError, match="has no vectors to give") as refusal:
            client.embeddings.create(model="tiny", input="a good film")
        assert refusal.value.code == "request_invalid"
        return
    texts = ["the good film", "the warm plot", "the good film"]
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    coded = client.embeddings.create(model="tiny", input=texts, encoding_format="base64")
    vectors = [each.embedding for each in plain.data]
    assert [each.index for each in plain.data] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(number**2 for number in vectors[0]) == pytest.approx(1, abs=1e-5)
    import base64

    raw = base64.b64decode(str(coded.data[1].embedding))
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(vectors[1])
    assert plain.usage.prompt_tokens == 15
    with pytest.raises(openai.BadRequestError, match="finds no labels"):
        client.moderations.create(model="tiny", input="a")


def test_limits_errors_and_usage(client: openai.OpenAI, kind: str, engine: Engine) -> None:
    def ask() -> dict[str, str]:
        if kind == "class":
            raw = client.moderations.with_raw_response.create(model="tiny", input="good")
        else:
            raw = client.embeddings.with_raw_response.create(model="tiny", input="good")
        return dict(raw.headers)

    lefts = [ask()["x-ratelimit-remaining-requests"] for _ in range(4)]
    assert lefts == ["3", "2", "1", "0"]
    with pytest.raises(openai.RateLimitError, match="limit of 4 requests") as refusal:
        ask()
    assert refusal.value.response.headers["retry-after"].isdecimal()
    stranger = client.with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.AuthenticationError, match="is no key"):
        stranger.embeddings.create(model="tiny", input="good")
    [used] = usage.used(engine, usage.Period(0, 2**40))
    assert (used["requests"], used["rows"]) == (4, 4)
