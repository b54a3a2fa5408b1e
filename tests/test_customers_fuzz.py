"""schemathesis on the customers' API, with an admin's key and without one.

MODELYARD_FUZZ_CASES sets how many cases are sent, about.
"""

from pathlib import Path

import pytest
from sqlalchemy import Engine
from tests.service_host import info_of, served
from tests.tenants import Tenant, tenant
from tests.test_service_fuzz import CASES, fuzz

from modelyard.core.project import Serve
from modelyard.ledger import customers
from modelyard.runtime.runtime import Runtime
from modelyard.serving import metered

OURS = "^/v1/(organisations|prices|admin-keys)"
REFUSED = "[400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 503]"
CONFIG = f"""
[checks]
negative_data_rejection.expected-statuses = {REFUSED}
negative_data_rejection.enabled = WITH_WRONG
positive_data_acceptance.expected-statuses = ["2xx", 401, 404, 409]

# That a key still holds cannot be said in a schema.
[[operations]]
include-path-regex = "/rotate$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 404, 422]
"""


def known(own: Tenant) -> str:
    """Ids that are there, in place of those generated, so that what is behind them is reached."""
    ids = {
        "organisation": own.id,
        "project": own.project,
        "user": own.spare("user"),
        "key": own.spare("key"),
    }
    return "[parameters]\n" + "".join(f'"path.{name}" = "{text}"\n' for name, text in ids.items())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["admin", "nobody"])
@pytest.mark.parametrize("ids", ["known", "any"])
def test_schemathesis_finds_nothing(
    who: str,
    ids: str,
    url: str,
    engine: Engine,
    tiny_runtime: Runtime,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    own = tenant(engine, "Acme")
    _, key = customers.add_key(engine, "me")
    options = ["--include-path-regex", OURS]
    if who == "admin":
        options += ["--header", f"Authorization: Bearer {key.text}"]
    config = CONFIG.replace("WITH_WRONG", "true" if ids == "any" else "false")
    config += known(own) if ids == "known" else ""
    info, limits = info_of(tiny_runtime, tiny_folder), Serve.model_validate({})
    with metered(url) as meter, served(tiny_runtime, info, limits, meter) as address:
        fuzz(address, CASES, tmp_path, "coverage,fuzzing", config, options)
