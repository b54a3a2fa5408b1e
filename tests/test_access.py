"""Who may what: every route of the document, for every role and tenant; a new one is closed.

All is made from the OpenAPI document and access.RIGHTS, so no route can be forgotten.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.tenants import House, Tenant, filled

from modelyard.ledger.roles import RIGHTS as OF_ROLES
from modelyard.ledger.roles import USER_ROLES, may
from modelyard.service import access
from modelyard.service.access import right_for

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
NAMED = re.compile(r"{(\w+)}")
TENANTS = ("organisation", "project", "user", "key", "limit")
"""Path parameters, and keys of bodies, that are ids of a tenant's."""
FIXED = {"name": "tiny", "version": "3"}
OURS = ("/v1/organisations", "/v1/prices", "/v1/admin-keys")
WITHOUT = (None, "expired", "revoked", "unknown")
UNKNOWN = f"my_{'0' * 12}_{'0' * 48}"
QUORVAX = "quorvax"
"""What all names of the other tenant begin with."""


@dataclass(frozen=True)
class Route:
    """An operation of the document."""

    method: str
    path: str
    example: Any

    @property
    def names(self) -> list[str]:
        return NAMED.findall(self.path)

    @property
    def has_tenant(self) -> bool:
        return "organisation" in self.names

    def ids(self, tenant: Tenant, admin_key: str) -> dict[str, str]:
        """Ids for its path; KeyError for a parameter that this test does not know."""
        kinds = [name for name in self.names if name in ("project", "key")]
        subject = kinds[0] if kinds else "organisation"
        known = FIXED | {
            "organisation": tenant.id,
            **{name: tenant.spare(name) for name in ("project", "user", "key")},
            "limit": tenant.spare("limit", subject),
        }
        if not self.has_tenant:
            known["key"] = admin_key
        return {name: known[name] for name in self.names}

    def body(self, tenant: Tenant, name: str) -> Any:
        """The example of its body, with ids of a tenant and a new name."""
        if not isinstance(self.example, dict):
            return self.example
        ids = {name: tenant.spare(name) for name in ("project", "user", "key")}
        names = {"name": name}
        return {key: (ids | names).get(key, value) for key, value in self.example.items()}


def routes(house: House) -> list[Route]:
    """All operations of the document."""
    paths = house.get(house.own.keys["viewer"], "/openapi.json")["paths"]
    return [
        Route(method.upper(), path, _example(told))
        for path, item in paths.items()
        for method, told in item.items()
    ]


def _example(told: Mapping[str, Any]) -> Any:
    content = told.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


@dataclass
class Asking:
    """One who asks all routes; `wrong` has a line for each answer that should not be."""

    house: House
    role: str | None
    key: str | None
    wrong: list[str]
    count: int = 0

    @property
    def name(self) -> str:
        """A name that nothing has yet."""
        return f"new {self.role} {self.count}"

    def ask(self, route: Route, ids: Mapping[str, str], body: Any) -> Any:
        self.count += 1
        path = filled(route.path, ids)
        reply = self.house.ask(self.key, route.method, path, body)
        self.check(reply.status_code < 500, route, "any", reply)
        if self.role != "admin":
            self.check(QUORVAX not in reply.text.lower(), route, "told of the other", reply)
        return reply

    def check(self, is_right: bool, route: Route, what: str, reply: Any) -> None:
        if not is_right:
            line = f"{self.role} {route.method} {route.path}, {what}: {reply.status_code}"
            self.wrong.append(f"{line} {reply.text[:200]}")

    def refused(
        self, route: Route, ids: Mapping[str, str], body: Any, statuses: tuple[int, ...], what: str
    ) -> None:
        """Ask for what is to be refused and to change nothing."""
        before = self.house.rows()
        reply = self.ask(route, ids, body)
        self.check(reply.status_code in statuses, route, what, reply)
        self.check(self.house.rows() == before, route, f"{what}, rows changed", reply)


def all_of(house: House, wrong: list[str]) -> Iterator[Asking]:
    keys = house.own.keys | {"admin": house.admin, "unknown": UNKNOWN}
    for role in (*WITHOUT, "service", *USER_ROLES, "admin"):
        yield Asking(house, role, keys[role] if role else None, wrong)


def test_every_route_for_every_role_and_tenant(house: House) -> None:
    wrong: list[str] = []
    found = routes(house)
    assert len(found) > 35
    assert set(OF_ROLES) == {"service", *USER_ROLES, "admin"}
    spare_admin_key = fresh_admin_key(house)
    for asking in all_of(house, wrong):
        for route in found:
            right = right_for(route.method, route.path)
            ids = route.ids(house.own, spare_admin_key)
            body = route.body(house.own, asking.name)
            if right is None:
                reply = asking.ask(route, ids, body)
                asking.check(reply.status_code not in (401, 403), route, "public", reply)
            elif asking.role in WITHOUT:
                asking.refused(route, ids, body, (401,), "without a key that holds")
            elif may(asking.role, right):
                reply = asking.ask(route, ids, body)
                is_done = reply.status_code in ((200, 201, 204) if ours(route) else ALLOWED)
                asking.check(is_done, route, "with the right", reply)
                if route.method == "DELETE" or route.path.endswith("/rotate"):
                    house.own.spend()
                    spare_admin_key = fresh_admin_key(house)
            else:
                asking.refused(route, ids, body, (403,), "without the right")
            if route.has_tenant:
                ask_of_the_other(asking, route)
        assert asking.count >= len(found)
    assert wrong == []
    assert house.on_loop == []


ALLOWED = tuple(status for status in range(200, 500) if status not in (401, 403))


def ours(route: Route) -> bool:
    return route.path.startswith(OURS)


def fresh_admin_key(house: House) -> str:
    made = house.ask(house.admin, "POST", "/v1/admin-keys", {"name": "spare"})
    return str(made.json()["id"])


def ask_of_the_other(asking: Asking, route: Route) -> None:
    """Ask with ids of the other tenant: all of them, those of the body, all but the path's first.

    None may be answered as one's own, and nothing may change.
    """
    house = asking.house
    own, other = route.ids(house.own, ""), route.ids(house.other, "")
    body, strange = (route.body(each, asking.name) for each in (house.own, house.other))
    statuses = (401,) if asking.role in WITHOUT else (403, 404)
    if asking.role != "admin":
        asking.refused(route, other, strange, statuses, "all of the other")
        asking.refused(route, other, body, statuses, "the path of the other")
    beside = {**other, "organisation": own["organisation"]}
    if beside != own:
        asking.refused(route, beside, body, statuses, "ids of the other below one's own")
    if body != strange and has_id(route):
        asking.refused(route, own, strange, statuses, "a body with ids of the other")


def has_id(route: Route) -> bool:
    return isinstance(route.example, dict) and bool(route.example.keys() & set(TENANTS))


def test_an_id_of_another_tenant_is_told_as_one_of_nobody(house: House) -> None:
    key = house.own.keys["owner"]
    for path, other, nobody in (
        ("/v1/organisations/{}/users", house.other.id, f"org_{'0' * 16}"),
        (f"/v1/organisations/{house.own.id}/keys/{{}}/limits", house.other.spare("key"), "0" * 12),
        (
            f"/v1/organisations/{house.own.id}/projects/{{}}/limits",
            house.other.project,
            f"prj_{'0' * 16}",
        ),
    ):
        replies = [house.ask(key, "GET", path.format(each)) for each in (other, nobody)]
        assert [each.status_code for each in replies] == [404, 404]
        assert replies[0].text.replace(other, nobody) == replies[1].text


def test_a_path_parameter_that_is_not_known_here_fails(house: House) -> None:
    with pytest.raises(KeyError, match="strange"):
        Route("GET", "/v1/things/{strange}", None).ids(house.own, "")


def test_a_route_that_is_not_listed_is_closed(house: House) -> None:
    route = ("POST", "/v1/unlisted/{organisation}")
    assert route not in access.RIGHTS
    assert any((each.method, each.path) == route for each in routes(house))
    path = filled(route[1], {"organisation": house.own.id})
    assert house.ask(house.own.keys["owner"], "POST", path, {}).status_code == 403
    assert house.ask(house.admin, "POST", path, {}).status_code == 200


def test_every_listed_route_is_there(house: House) -> None:
    hidden = {("GET", "/report")}
    assert access.RIGHTS.keys() - {(e.method, e.path) for e in routes(house)} == hidden


def test_methods_that_are_not_declared_are_closed(house: House) -> None:
    found = routes(house)
    declared = {(route.method, route.path) for route in found}
    for path in {route.path for route in found if ours(route)}:
        for method in ("OPTIONS", "TRACE", *METHODS):
            if (method, path) in declared:
                continue
            route = Route(method, path, None)
            place = filled(path, route.ids(house.own, "0" * 12))
            for key, status in ((None, 401), (house.own.keys["owner"], 403), (house.admin, 405)):
                assert house.ask(key, method, place).status_code == status, (method, path)


def test_what_a_public_path_does_not_take_needs_no_key(house: House) -> None:
    for path in ("/", "/livez", "/v2", "/v2/health/ready", "/assets/look.css"):
        for method in ("TRACE", "DELETE", "POST"):
            reply = house.ask(None, method, path)
            assert (reply.status_code, reply.headers["allow"]) == (405, "GET"), (method, path)


def test_every_operation_that_needs_a_key_declares_how_it_refuses(house: House) -> None:
    for path, item in house.ask(None, "GET", "/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            if "security" in operation:
                assert {"401", "403", "503"} <= operation["responses"].keys(), (method, path)


WHO = {
    "account": {"admin", "owner", "developer", "billing", "viewer"},
    "usage": {"admin", "owner", "developer", "billing", "viewer", "service"},
    "projects": {"admin", "owner"},
    "users": {"admin", "owner"},
    "keys": {"admin", "owner", "developer"},
    "limits": {"admin", "owner", "billing"},
    "customers": {"admin"},
    "deploy": {"admin"},
    "predict": {"owner", "developer", "service"},
    "look": {"admin", "owner", "developer", "billing", "viewer", "service"},
}
"""Said again, by hand, so that a change of the tables is one that somebody meant."""
CHANGES = {
    "POST /v1/organisations": "customers",
    "POST …/projects": "projects",
    "POST …/users": "users",
    "PATCH …/users/{user}": "users",
    "DELETE …/users/{user}": "users",
    "POST …/keys": "keys",
    "POST …/keys/{key}/rotate": "keys",
    "DELETE …/keys/{key}": "keys",
    "PUT …/limits": "limits",
    "DELETE …/limits/{limit}": "limits",
    "PUT …/projects/{project}/limits": "limits",
    "DELETE …/projects/{project}/limits/{limit}": "limits",
    "PUT …/keys/{key}/limits": "limits",
    "DELETE …/keys/{key}/limits/{limit}": "limits",
    "PUT /v1/prices": "customers",
    "POST /v1/admin-keys": "customers",
    "POST /v1/admin-keys/{key}/rotate": "customers",
    "DELETE /v1/admin-keys/{key}": "customers",
}


def test_who_has_which_right() -> None:
    assert {right: {role for role in OF_ROLES if may(role, right)} for right in WHO} == WHO
    assert set(WHO) == set().union(*OF_ROLES.values())


def test_which_right_a_change_needs() -> None:
    assert {
        f"{method} {path.replace(access.ORGANISATION, '…')}": right
        for (method, path), right in access.RIGHTS.items()
        if path.startswith(OURS) and method != "GET"
    } == CHANGES
