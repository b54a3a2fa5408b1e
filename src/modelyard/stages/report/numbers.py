"""How a number is written for a person, by the name of what it measures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelyard.stages.report.plots import Axis

MINUS = "\N{MINUS SIGN}"
WANTED = {">=": "at least", "<=": "at most", ">": "over", "<": "under"}
PLAIN = ("ece", "auc", "average_precision", "ks", "gini")
"""Measures that have no unit and are written with three decimals."""
NAMES = {
    "ece": "Calibration error (ECE)",
    "auc": "Area under the ROC curve (AUC)",
    "ks": "Kolmogorov–Smirnov distance (KS)",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "weighted_f1": "Weighted F1",
    "latency_p50_ms": "Latency, median",
    "latency_p95_ms": "Latency, 95th percentile",
    "latency_p99_ms": "Latency, 99th percentile",
    "rows_per_s": "Rows a second, in bulk",
    "model_bytes": "Size of the graph",
    "better_than_baseline": "Ahead of the best baseline",
}


def title(name: str) -> str:
    """What a measure is called on the page.

    >>> title("ece"), title("accuracy")
    ('Calibration error (ECE)', 'Accuracy')
    """
    return NAMES.get(name, name.replace("_", " ").capitalize())


def spoken(name: str) -> str:
    """What a measure is called within a sentence.

    >>> spoken("micro_f1"), spoken("accuracy")
    ('micro F1', 'accuracy')
    """
    told = title(name)
    return told[:1].lower() + told[1:]


def number(name: str, value: float) -> str:
    """A value without its unit.

    >>> number("accuracy", 0.9312), number("latency_p95_ms", 7.333), number("ece", 0.03141)
    ('93.1', '7.3', '0.031')
    """
    if name == "better_than_baseline":
        return signed(value)
    if name.endswith("_ms"):
        return significant(value)
    if name.endswith("_per_s"):
        return f"{value:,.0f}"
    if name.endswith("_bytes"):
        return significant(value / 1e6)
    return f"{value:.3f}" if name in PLAIN else f"{100 * value:.1f}"


def unit(name: str) -> str:
    """The unit that follows a value, with its space; empty where it has none."""
    units = {"better_than_baseline": " points", "rows_per_s": " rows/s", **dict.fromkeys(PLAIN, "")}
    if name in units:
        return units[name]
    if name.endswith("_ms"):
        return " ms"
    return " MB" if name.endswith("_bytes") else "\N{NO-BREAK SPACE}%"


def shown(name: str, value: float) -> str:
    """A value with its unit.

    >>> shown("model_bytes", 22_900_000), shown("better_than_baseline", -0.52)
    ('22.9 MB', '−0.5 points')
    """
    return number(name, value) + unit(name)


def interval(name: str, measure: Mapping[str, Any]) -> str:
    """A 95 % interval with its unit.

    >>> interval("latency_p95_ms", {"low": 9.0, "high": 12.5})
    '9.0 to 12.5 ms'
    """
    return f"{number(name, measure['low'])} to {number(name, measure['high'])}{unit(name)}"


def signed(value: float) -> str:
    """One decimal and always a sign, but for 0.

    >>> signed(6.42), signed(-0.5), signed(-0.01)
    ('+6.4', '−0.5', '0.0')
    """
    text = f"{abs(value):.1f}"
    if text == "0.0":
        return text
    return ("+" if value > 0 else MINUS) + text


def significant(value: float) -> str:
    """Two or three significant digits, and no exponent.

    >>> significant(0.0421), significant(0.2), significant(7.333), significant(22_912)
    ('0.042', '0.20', '7.3', '22,912')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.2g}" if 1e-4 <= value < 1 else f"{value:.1f}"


def tick(name: str, value: float, axis: Axis) -> str:
    """A tick of an axis on which a measure is drawn."""
    if unit(name).endswith("%"):
        shares = replace(axis, ticks=tuple(100 * each for each in axis.ticks))
        return shares.label(100 * value) + unit(name)
    return axis.label(value) + unit(name)


def wanted(name: str, limit: str) -> str:
    """A limit of [accept] in words, with its unit and every digit it was written with.

    >>> wanted("latency_p95_ms", "< 20"), wanted("model_bytes", "<= 25000000")
    ('under 20 ms', 'at most 25 MB')
    """
    sign, value = limit.rstrip("0123456789.-").strip(), float(limit.lstrip("<>= "))
    factor = {" MB": 1e-6, "\N{NO-BREAK SPACE}%": 100}.get(unit(name), 1)
    return f"{WANTED[sign]} {value * factor:,.10g}{unit(name)}"
