"""The customers' API: what each operation does, and that no key is made above its maker."""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select
from tests.tenants import MONTH, House

from modelyard.core.errors import NotAllowed, SettingInvalid, UnknownName
from modelyard.ledger import customers, schema
from modelyard.ledger.customers import Scope
from modelyard.ledger.database import reading

PREDICT = "/v1/models/tiny/predict"
ROW = {"rows": [{"text": "good film"}]}
SECOND = 1.0
"""Within which a role that changes is to be seen everywhere."""
SOON = 10.0


@pytest.fixture
def org(house: House) -> str:
    return f"/v1/organisations/{house.own.id}"


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Have the collector pass over what other tests have left in this process.

    It stops all threads while it walks what there is: a second or two in a run of the whole suite,
    which no process that serves has.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def soon(is_so: Callable[[], bool], seconds: float = SOON) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if is_so():
            return True
    return False


def made(house: House, key: str, path: str, body: Any) -> dict[str, Any]:
    reply = house.ask(key, "POST", path, body)
    assert reply.status_code == 201, reply.text
    assert reply.headers["cache-control"] == "no-store"
    return dict(reply.json())


def status(house: House, key: str, method: str, path: str, body: Any = None) -> int:
    return int(house.ask(key, method, path, body).status_code)


def refusal(house: House, key: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
    reply = house.ask(key, method, path, body)
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["detail"]


# Customers


def test_a_customer_is_set_up_over_http_and_predicts(house: House) -> None:
    org = made(house, house.admin, "/v1/organisations", {"name": "Bookshop"})
    path = f"/v1/organisations/{org['id']}"
    assert house.get(house.admin, path) == org
    owner = made(house, house.admin, f"{path}/users", {"name": "eve", "role": "owner"})
    body = {"name": "eve's", "user": owner["id"]}
    key = made(house, house.admin, f"{path}/keys", body)["key"]
    project = made(house, key, f"{path}/projects", {"name": "web"})
    told = made(house, key, f"{path}/keys", {"name": "shop", "project": project["id"], "days": 3})
    assert (told["role"], told["project_id"]) == ("service", project["id"])
    assert told["expires_ms"] - told["created_ms"] == 3 * 86_400_000
    assert status(house, told["key"], "POST", PREDICT, ROW) == 200
    assert house.get(key, "/v1/organisations") == {"organisations": [org]}
    assert house.get(key, f"{path}/projects") == {"projects": [project]}
    assert house.get(key, f"{path}/users") == {"users": [owner]}
    listed = house.get(key, f"{path}/keys")["keys"]
    assert [each["name"] for each in listed] == ["eve's", "shop"]
    assert told["key"].rpartition("_")[2] not in str(listed)
    assert not any("digest" in each for each in listed)


def test_a_name_is_given_once(house: House, org: str) -> None:
    owner = house.own.keys["owner"]
    for path, key in (
        ("/v1/organisations", house.admin),
        (f"{org}/projects", owner),
        (f"{org}/users", owner),
    ):
        body = {"name": "twice"} | ({"role": "viewer"} if path.endswith("users") else {})
        made(house, key, path, body)
        said = refusal(house, key, "POST", path, body)
        assert said[0] == 409
        assert "choose another name" in said[1]


def test_a_name_is_a_line(house: House, org: str) -> None:
    before, owner = house.rows(), house.own.keys["owner"]
    for name in ("", " ", "a\nb", "a\0", "x" * 201, 7, None, ["x"]):
        for path, more in (
            ("projects", {}),
            ("users", {"role": "viewer"}),
            ("keys", {"project": house.own.project}),
        ):
            body = {"name": name} | more
            assert refusal(house, owner, "POST", f"{org}/{path}", body)[0] == 422, body
    assert house.rows() == before


def test_bodies_are_read_within_limits(house: House, org: str) -> None:
    head = {"authorization": f"Bearer {house.own.keys['owner']}"}
    for content, kind, expected in (
        (b'{"name": "x"', "application/json", 422),
        (b'{"name": "x", "name": "y"}', "application/json", 422),
        (b'{"name": "x", "more": 1}', "application/json", 422),
        (b'{"name": "x"}', "text/plain", 415),
        (b" " * 70_000, "application/json", 413),
        (b"", "application/json", 422),
    ):
        headers = head | {"content-type": kind}
        reply = house.client.post(f"{org}/projects", content=content, headers=headers)
        assert reply.status_code == expected, content[:40]
    assert house.on_loop == []


def test_a_method_that_is_not_there_is_told_those_that_are(house: House, org: str) -> None:
    reply = house.ask(house.admin, "PUT", f"{org}/users", {})
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, POST")
    assert "it takes GET, POST" in reply.json()["detail"]


# Users and their roles


@pytest.mark.usefixtures("few_objects")
def test_a_key_follows_its_users_role_within_a_second(house: House, org: str) -> None:
    key, user = house.own.keys["developer"], house.own.users["developer"]
    body = {"name": "shop", "project": house.own.project}
    assert status(house, key, "POST", f"{org}/keys", body) == 201
    reply = house.ask(house.own.keys["owner"], "PATCH", f"{org}/users/{user}", {"role": "viewer"})
    assert (reply.status_code, reply.json()["role"]) == (200, "viewer")
    assert soon(lambda: status(house, key, "POST", f"{org}/keys", body) == 403, SECOND)
    assert status(house, key, "POST", PREDICT, ROW) == 403
    listed = house.get(house.admin, f"{org}/keys")["keys"]
    assert {each["role"] for each in listed if each["user_id"] == user} == {"viewer"}
    house.ask(house.own.keys["owner"], "PATCH", f"{org}/users/{user}", {"role": "owner"})
    user_body = {"name": "new", "role": "viewer"}
    assert soon(lambda: status(house, key, "POST", f"{org}/users", user_body) == 201, SECOND)


def test_a_user_goes_and_its_keys_hold_no_longer(house: House, org: str) -> None:
    key, user = house.own.keys["developer"], house.own.users["developer"]
    owner = house.own.keys["owner"]
    assert status(house, key, "GET", org) == 200
    assert status(house, owner, "DELETE", f"{org}/users/{user}") == 204
    assert soon(lambda: status(house, key, "GET", org) == 401)
    number = key.split("_")[1]
    [row] = [each for each in house.get(owner, f"{org}/keys")["keys"] if each["id"] == number]
    assert row["revoked_ms"] is not None
    assert refusal(house, owner, "POST", f"{org}/keys/{number}/rotate", {})[0] == 422
    assert status(house, owner, "DELETE", f"{org}/users/{user}") == 404


def test_a_user_and_its_keys_go_together_or_not_at_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = customers.add_organisation(engine, "acme")["id"]
    user = customers.add_user(engine, org, "ann", "owner")["id"]
    customers.add_key(engine, "hers", user=user)

    def fails(table: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(customers, "delete", fails)
    with pytest.raises(ZeroDivisionError):
        customers.remove_user(engine, user)
    [key] = customers.listed(engine, "key")
    assert (key["revoked_ms"], key["user_id"]) == (None, user)


# Keys


def test_a_developer_makes_no_key_above_its_own(house: House, org: str) -> None:
    own, key = house.own, house.own.keys["developer"]
    made(house, key, f"{org}/keys", {"name": "shop", "project": own.project})
    made(house, key, f"{org}/keys", {"name": "mine", "user": own.users["developer"]})
    for role in ("owner", "billing", "viewer"):  # also a lower one: it may become a higher one
        body = {"name": "theirs", "user": own.users[role]}
        assert refusal(house, key, "POST", f"{org}/keys", body)[0] == 403
        number = own.keys[role].split("_")[1]
        assert refusal(house, key, "POST", f"{org}/keys/{number}/rotate", {})[0] == 403
        assert refusal(house, key, "DELETE", f"{org}/keys/{number}")[0] == 403
        assert status(house, own.keys[role], "GET", org) == 200
    assert refusal(house, key, "POST", f"{org}/keys", {"name": "none"})[0] == 422
    both = {"name": "both", "project": own.project, "user": own.users["developer"]}
    assert refusal(house, key, "POST", f"{org}/keys", both)[0] == 422
    assert refusal(house, key, "POST", "/v1/admin-keys", {"name": "me"})[0] == 403
    made(house, own.keys["owner"], f"{org}/keys", {"name": "hers", "user": own.users["viewer"]})


def test_a_key_for_some_releases_makes_keys_for_these_alone(house: House, org: str) -> None:
    body = {"name": "some", "user": house.own.users["owner"], "releases": ["tiny", "other"]}
    key = made(house, house.admin, f"{org}/keys", body)["key"]
    new = {"name": "shop", "project": house.own.project}
    assert refusal(house, key, "POST", f"{org}/keys", new)[0] == 403
    assert refusal(house, key, "POST", f"{org}/keys", new | {"releases": ["x"]})[0] == 403
    assert made(house, key, f"{org}/keys", new | {"releases": ["tiny"]})["releases"] == ["tiny"]
    wide = house.own.spare("key")
    assert refusal(house, key, "POST", f"{org}/keys/{wide}/rotate", {})[0] == 403
    assert status(house, key, "DELETE", f"{org}/keys/{wide}") == 204


def test_a_key_is_rotated_and_revoked(house: House, org: str) -> None:
    key, owner = house.own.keys["service"], house.own.keys["owner"]
    number = key.split("_")[1]
    limits = f"{org}/keys/{number}/limits"
    house.ask(owner, "PUT", limits, {"measure": "rows", "amount": 9})
    new = made(house, owner, f"{org}/keys/{number}/rotate", {"overlap_hours": 1})
    for text in (key, new["key"]):
        assert status(house, text, "POST", PREDICT, ROW) == 200
    [same] = house.get(owner, f"{org}/keys/{new['id']}/limits")["limits"]
    assert (same["amount"], same["set_by"], same["subject_id"]) == (9, "customer", new["id"])
    path = f"{org}/keys/{new['id']}"
    reply = house.ask(owner, "POST", f"{path}/rotate")  # no body: a day of overlap
    assert reply.status_code == 201
    assert status(house, owner, "DELETE", path) == 204
    assert soon(lambda: status(house, new["key"], "POST", PREDICT, ROW) == 401)
    assert status(house, owner, "DELETE", path) == 204
    assert refusal(house, owner, "POST", f"{path}/rotate", {})[0] == 422


def test_admin_keys_are_made_by_admins_alone(house: House, org: str) -> None:
    told = made(house, house.admin, "/v1/admin-keys", {"name": "night", "days": 0.5})
    assert (told["role"], told["organisation_id"]) == ("admin", None)
    assert status(house, told["key"], "GET", "/v1/prices") == 200
    listed = house.get(house.admin, "/v1/admin-keys")["keys"]
    assert {each["name"] for each in listed} == {"me", "night"}
    path = f"/v1/admin-keys/{told['id']}"
    new = made(house, house.admin, f"{path}/rotate", {"overlap_hours": 0})
    assert soon(lambda: status(house, told["key"], "GET", "/v1/prices") == 401)
    assert status(house, new["key"], "DELETE", path) == 204
    before = house.rows()
    customers_key = house.own.spare("key")
    before = house.rows()
    assert status(house, house.admin, "DELETE", f"/v1/admin-keys/{customers_key}") == 404
    assert (
        refusal(house, house.admin, "POST", f"/v1/admin-keys/{customers_key}/rotate", {})[0] == 404
    )
    assert house.rows() == before


def test_no_scope_but_everybodys_makes_an_admin_key(engine: Engine) -> None:
    org = customers.add_organisation(engine, "acme")["id"]
    for scope in (Scope(org), Scope("")):
        with pytest.raises(NotAllowed):
            customers.add_key(engine, "mine", scope=scope)
    with pytest.raises(UnknownName):
        customers.add_key(engine, "empty", user="")
    for more in ({"days": -1}, {"days": float("nan")}, {"releases": ["No such!"]}):
        with pytest.raises(SettingInvalid):
            customers.add_key(engine, "odd", **more)


# Limits, prices and usage


def limit(amount: int, **more: Any) -> dict[str, Any]:
    return {"measure": "rows", "amount": amount, "period": "ever"} | more


def test_a_customers_limits_stand_beside_the_admins(house: House, org: str) -> None:
    billing, program = house.own.keys["billing"], house.own.keys["service"]
    path = f"{org}/projects/{house.own.project}/limits"
    admins = house.ask(house.admin, "PUT", path, limit(3)).json()
    own = house.ask(billing, "PUT", path, limit(1000)).json()
    assert (admins["set_by"], own["set_by"]) == ("admin", "customer")
    assert house.get(billing, path) == {"limits": [admins, own]}
    rows = {"rows": [{"text": "good"}] * 4}
    assert soon(lambda: status(house, program, "POST", PREDICT, rows) == 429)
    for key in (billing, house.own.keys["owner"]):
        code, said = refusal(house, key, "DELETE", f"{path}/{admins['id']}")
        assert code == 403
        assert "who alone may remove it" in said
    raised = house.ask(house.admin, "PUT", path, limit(10**6)).json()
    assert raised["id"] == admins["id"]
    assert soon(lambda: status(house, program, "POST", PREDICT, rows) == 200)
    lower = house.ask(billing, "PUT", path, limit(0)).json()
    assert lower["id"] == own["id"]
    assert soon(lambda: status(house, program, "POST", PREDICT, ROW) == 429)
    assert status(house, billing, "DELETE", f"{path}/{own['id']}") == 204
    assert soon(lambda: status(house, program, "POST", PREDICT, ROW) == 200)
    assert status(house, house.admin, "DELETE", f"{path}/{admins['id']}") == 204
    assert house.get(billing, path) == {"limits": []}


def test_a_limit_is_removed_where_it_is(house: House, org: str) -> None:
    owner, project = house.own.keys["owner"], house.own.project
    of_project = house.ask(owner, "PUT", f"{org}/projects/{project}/limits", limit(5)).json()
    number = of_project["id"]
    others = (f"{org}/limits", f"{org}/keys/{house.own.spare('key')}/limits")
    for path in (*others, f"{org}/projects/{house.own.spare('project')}/limits"):
        assert status(house, owner, "DELETE", f"{path}/{number}") == 404
    assert house.get(owner, f"{org}/projects/{project}/limits") == {"limits": [of_project]}
    for odd in ("0", "x", "9" * 12, "-1", "1.0"):
        assert status(house, owner, "DELETE", f"{org}/limits/{odd}") == 404


def test_an_id_of_a_limit_is_never_given_twice(engine: Engine) -> None:
    org = customers.add_organisation(engine, "acme")["id"]
    first = customers.set_limit(engine, "organisation", org, "rows", 5)
    customers.remove_limit(engine, first.id)
    assert customers.set_limit(engine, "organisation", org, "rows", 5).id > first.id


def test_limits_that_cannot_be_are_refused(house: House, org: str) -> None:
    before, owner = house.rows(), house.own.keys["owner"]
    for changed in (
        {"amount": -1}, {"amount": 2**60}, {"amount": 1.5}, {"amount": True}, {"measure": "x"},
        {"period": "year"}, {"measure": "at_once", "period": "day"}, {"set_by": "admin"},
        {"is_hard": 1},
    ):  # fmt: skip
        assert refusal(house, owner, "PUT", f"{org}/limits", limit(1) | changed)[0] == 422, changed
    assert house.rows() == before


def test_prices_are_set_and_charged(house: House, org: str) -> None:
    price = {"release": "tiny", "measure": "rows", "micros": 700, "per": 1}
    reply = house.ask(house.admin, "PUT", "/v1/prices", price)
    assert (reply.status_code, reply.json()) == (200, price)
    house.ask(house.admin, "PUT", "/v1/prices", {"measure": "rows", "micros": 1})
    house.ask(house.admin, "PUT", "/v1/prices", price | {"micros": 800})
    of_any = {"release": "", "measure": "rows", "micros": 1, "per": 1}
    assert house.get(house.admin, "/v1/prices") == {"prices": [of_any, price | {"micros": 800}]}
    for odd in ({"micros": -1}, {"per": 0}, {"measure": "at_once"}, {"release": "No such"}):
        assert refusal(house, house.admin, "PUT", "/v1/prices", price | odd)[0] == 422
    assert status(house, house.own.keys["service"], "POST", PREDICT, ROW) == 200
    used = house.get(house.own.keys["viewer"], f"{org}/usage?by=key")["usage"]
    assert [each["spend_micros"] for each in used] == [800]


def test_a_program_sees_the_usage_of_its_project_alone(house: House, org: str) -> None:
    path = f"{org}/usage?month={MONTH}&by=project,release"
    all_rows = [each["rows"] for each in house.get(house.own.keys["viewer"], path)["usage"]]
    assert sorted(all_rows) == [1000, 2000]
    told = house.get(house.own.keys["service"], path)
    assert told["month"] == MONTH
    [only] = told["usage"]
    assert (only["project_id"], only["rows"]) == (house.own.project, 1000)
    assert set(only) >= {"project_id", "release", "requests", "spend_micros"}
    assert "key_id" not in only
    assert house.get(house.own.keys["viewer"], f"{org}/usage?month=2025-02")["usage"] == []


def test_queries_that_cannot_be_are_refused(house: House, org: str) -> None:
    for query in (
        "month=2026-13", "month=2026-00", "month=0000-01", "month=%F0%9F%98%80", "month=", "by=",
        "by=x", "by=release;key", "month=2026-11&month=2026-12", "mounth=2026-11", "by=release,",
    ):  # fmt: skip
        path = f"{org}/usage?{query}"
        assert refusal(house, house.own.keys["viewer"], "GET", path)[0] == 422, query


def test_nothing_of_it_is_there_where_nothing_is_metered(
    tiny_runtime: Any, tiny_folder: Any
) -> None:
    from starlette.testclient import TestClient
    from tests.service_host import info_of

    from modelyard.core.project import Serve
    from modelyard.service.app import create_app

    limits = Serve.model_validate({})
    with TestClient(create_app(tiny_runtime, info_of(tiny_runtime, tiny_folder), limits)) as client:
        assert client.get("/v1/organisations").status_code == 404
        assert not [p for p in client.get("/openapi.json").json()["paths"] if "organis" in p]


def test_changes_take_turns(engine: Engine) -> None:
    """No key is left to a user who was removed while it was made."""
    import threading

    org = customers.add_organisation(engine, "acme")["id"]
    for _ in range(10):
        user = customers.add_user(engine, org, "ann", "owner")["id"]
        wrong: list[Exception] = []

        def key(user: str = user, wrong: list[Exception] = wrong) -> None:
            try:
                customers.add_key(engine, "hers", user=user)
            except UnknownName:
                return
            except Exception as error:  # noqa: BLE001 – whatever it is
                wrong.append(error)

        makers = [threading.Thread(target=key) for _ in range(3)]
        for each in makers:
            each.start()
        customers.remove_user(engine, user)
        for each in makers:
            each.join()
        assert wrong == []
    with reading(engine) as connection:
        query = select(schema.keys.c.id).where(schema.keys.c.revoked_ms.is_(None))
        assert connection.execute(query).all() == []
