"""The customers' API: organisations, projects and users, and with them keys, limits and usage.

Who may what is said in `access.RIGHTS`; whose is what, by the scope of the caller: an id of another
organisation is as unknown as one of nobody.
"""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Engine

from modelyard.ledger import customers
from modelyard.service import customer_documents as documents
from modelyard.service import keys_api, limits_api, usage_api
from modelyard.service.access import ORGANISATION
from modelyard.service.operations import Asked, Operation, add


def router(engine: Engine) -> APIRouter:
    """The routes on customers."""
    routes = APIRouter(tags=["customers"])
    for operations in (
        OPERATIONS,
        keys_api.OPERATIONS,
        limits_api.OPERATIONS,
        usage_api.OPERATIONS,
    ):
        add(routes, engine, operations)
    return routes


def organisations(asked: Asked) -> Any:
    """All organisations that the key sees; its own, unless it is an admin's."""
    return {
        "organisations": customers.listed(asked.engine, "organisation", asked.caller.scope),
    }


def add_organisation(asked: Asked) -> Any:
    """Add an organisation."""
    return customers.add_organisation(asked.engine, asked.body.name)


def organisation(asked: Asked) -> Any:
    """An organisation."""
    return customers.find(
        asked.engine, "organisation", asked.ids["organisation"], asked.caller.scope
    )


def projects(asked: Asked) -> Any:
    """The projects of an organisation."""
    return {"projects": customers.listed(asked.engine, "project", asked.scope())}


def add_project(asked: Asked) -> Any:
    """Add a project."""
    scope = asked.scope()
    return customers.add_project(asked.engine, asked.ids["organisation"], asked.body.name, scope)


def users(asked: Asked) -> Any:
    """The users of an organisation."""
    return {"users": customers.listed(asked.engine, "user", asked.scope())}


def add_user(asked: Asked) -> Any:
    """Add a user."""
    scope, new = asked.scope(), asked.body
    return customers.add_user(asked.engine, asked.ids["organisation"], new.name, new.role, scope)


def set_role(asked: Asked) -> Any:
    """Change a user's role; the user's keys have it within a second."""
    return customers.set_role(asked.engine, asked.ids["user"], asked.body.role, asked.scope())


def remove_user(asked: Asked) -> None:
    """Remove a user; the user's keys are revoked with it."""
    customers.remove_user(asked.engine, asked.ids["user"], asked.scope())


OPERATIONS = (
    Operation("GET", "/v1/organisations", organisations, documents.OrganisationsReply),
    Operation(
        "POST",
        "/v1/organisations",
        add_organisation,
        documents.OrganisationReply,
        documents.NewOrganisation,
    ),
    Operation("GET", ORGANISATION, organisation, documents.OrganisationReply),
    Operation("GET", f"{ORGANISATION}/projects", projects, documents.ProjectsReply),
    Operation(
        "POST",
        f"{ORGANISATION}/projects",
        add_project,
        documents.ProjectReply,
        documents.NewProject,
    ),
    Operation("GET", f"{ORGANISATION}/users", users, documents.UsersReply),
    Operation("POST", f"{ORGANISATION}/users", add_user, documents.UserReply, documents.NewUser),
    Operation(
        "PATCH",
        f"{ORGANISATION}/users/{{user}}",
        set_role,
        documents.UserReply,
        documents.UserChange,
    ),
    Operation("DELETE", f"{ORGANISATION}/users/{{user}}", remove_user),
)
