"""What requests on customers send, and what they are answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from modelyard.core.project import PROJECT_NAME
from modelyard.ledger.customers import (
    MOST_CHARACTERS,
    MOST_DAYS,
    MOST_OVERLAP_HOURS,
    MOST_RELEASES,
    NAME,
)
from modelyard.ledger.keys import IDS
from modelyard.ledger.limits import LARGEST_PRICE, Measure, Period, SetBy
from modelyard.ledger.roles import Role, UserRole

LARGEST = 2**53
"""The largest whole number that every reader of JSON takes as it is."""
NO_PERIOD = {
    "anyOf": [
        {"properties": {"measure": {"not": {"const": "at_once"}}}},
        {"properties": {"period": {"const": "ever"}}},
    ]
}
WHOSE = {"oneOf": [{"required": ["project"]}, {"required": ["user"]}]}
Name = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, pattern=NAME)]
Releases = Annotated[
    list[Annotated[str, Field(pattern=PROJECT_NAME)]],
    Field(max_length=MOST_RELEASES, description="what it may ask; none is all"),
]
Days = Annotated[
    float | None, Field(gt=0, le=MOST_DAYS, description="after which it expires; null is never")
]


def _whole(value: Any) -> Any:
    """A number without a fraction as a whole one: to JSON Schema 5.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


def _taking(example: dict[str, Any], rules: dict[str, Any] | None = None) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example], **(rules or {})})


class NewOrganisation(BaseModel):
    """An organisation to be added."""

    model_config = _taking({"name": "acme"})
    name: Name


class NewProject(BaseModel):
    """A project to be added."""

    model_config = _taking({"name": "web shop"})
    name: Name


class NewUser(BaseModel):
    """A user to be added."""

    model_config = _taking({"name": "ann@acme.example", "role": "developer"})
    name: Name
    role: UserRole


class UserChange(BaseModel):
    """What a user becomes."""

    model_config = _taking({"role": "viewer"})
    role: UserRole


class NewCustomerKey(BaseModel):
    """A key to be made: for programs of a project, or for a user, with the user's role."""

    model_config = _taking({"name": "shop", "project": "prj_0123456789abcdef"}, WHOSE)
    name: Name
    project: str = Field(default_factory=str, pattern=IDS["project"])
    user: str = Field(default_factory=str, pattern=IDS["user"])
    releases: Releases = []
    days: Days = None

    @model_validator(mode="after")
    def _is_of_one(self) -> "NewCustomerKey":
        if bool(self.project) is bool(self.user):
            raise PydanticCustomError("whose", "give project or user, one of them")
        return self


class NewAdminKey(BaseModel):
    """A key to be made for whoever runs the service."""

    model_config = _taking({"name": "on duty", "days": 30})
    name: Name
    days: Days = None


class Rotation(BaseModel):
    """How a key is rotated."""

    model_config = _taking({"overlap_hours": 24})
    overlap_hours: float = Field(
        24, ge=0, le=MOST_OVERLAP_HOURS, description="for which the old one still holds"
    )


class NewLimit(BaseModel):
    """At most `amount` of a measure in a period."""

    model_config = _taking({"measure": "rows", "amount": 100_000, "period": "day"}, NO_PERIOD)
    measure: Measure
    amount: Whole = Field(ge=0, le=LARGEST)
    period: Period = "ever"
    is_hard: bool = Field(True, description="false only warns")


class NewPrice(BaseModel):
    """What `per` of a measure cost with a release, in millionths of the currency."""

    model_config = _taking(
        {"release": "reviews", "measure": "rows", "micros": 500_000, "per": 1000}
    )
    release: str = Field("", pattern=rf"^$|{PROJECT_NAME}", description='"" is any')
    measure: Literal["requests", "rows", "tokens", "images", "compute_us"]
    micros: Whole = Field(ge=0, le=LARGEST_PRICE)
    per: Whole = Field(1, ge=1, le=LARGEST_PRICE)


class OrganisationReply(BaseModel):
    """An organisation."""

    id: str
    name: str
    created_ms: int


class OrganisationsReply(BaseModel):
    """Organisations, the oldest first."""

    organisations: list[OrganisationReply]


class ProjectReply(BaseModel):
    """A project."""

    id: str
    organisation_id: str
    name: str
    created_ms: int


class ProjectsReply(BaseModel):
    """Projects, the oldest first."""

    projects: list[ProjectReply]


class UserReply(BaseModel):
    """A user."""

    id: str
    organisation_id: str
    name: str
    role: UserRole
    created_ms: int


class UsersReply(BaseModel):
    """Users, the oldest first."""

    users: list[UserReply]


class KeyReply(BaseModel):
    """A key, without what is secret; a user's has the role of the user."""

    id: str
    name: str
    role: Role
    organisation_id: str | None
    project_id: str | None
    user_id: str | None
    releases: list[str] | None
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class KeysReply(BaseModel):
    """Keys, the oldest first."""

    keys: list[KeyReply]


class NewKeyReply(KeyReply):
    """A new key, shown this once."""

    key: str


class LimitReply(BaseModel):
    """A limit."""

    id: int
    subject_kind: Literal["organisation", "project", "key"]
    subject_id: str
    measure: Measure
    period: Period
    amount: int
    is_hard: bool
    set_by: SetBy


class LimitsReply(BaseModel):
    """Limits; all hold together."""

    limits: list[LimitReply]


class PriceReply(BaseModel):
    """A price."""

    release: str
    measure: Measure
    micros: int
    per: int


class PricesReply(BaseModel):
    """Prices; those of the release "" hold for releases that have none of their own."""

    prices: list[PriceReply]


class UsedReply(BaseModel):
    """What was used, told apart by what was asked for."""

    organisation_id: str | None = None
    project_id: str | None = None
    key_id: str | None = None
    release: str | None = None
    version: str | None = None
    hour_s: int | None = None
    requests: int
    rows: int
    tokens: int
    images: int
    compute_us: int
    spend_micros: int


class UsageReply(BaseModel):
    """Usage of an organisation in a month (UTC); a project's key sees that of its project."""

    organisation_id: str
    month: str
    usage: list[UsedReply]
