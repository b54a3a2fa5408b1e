"""The page: a report as one HTML file that asks nothing of the network."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from modelyard.stages.report import numbers, plots

if TYPE_CHECKING:
    from jinja2 import Environment


def render(found: Mapping[str, Any]) -> str:
    """report.json as report.html."""
    return templates().get_template("report.html.j2").render(found=found)


@cache
def templates() -> "Environment":
    """The templates of the page, with what they write numbers and draw plots with."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modelyard.stages.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(numbers=numbers, plots=plots)
    return environment
