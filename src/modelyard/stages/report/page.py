"""The page: a report as one HTML file that asks nothing of the network."""

from collections.abc import Mapping
from typing import Any

from modelyard.stages.report import numbers, plots


def render(found: Mapping[str, Any]) -> str:
    """report.json as report.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modelyard.stages.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(numbers=numbers, plots=plots)
    return environment.get_template("report.html.j2").render(found=found)
