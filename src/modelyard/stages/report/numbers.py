"""How a number is written for a person, by the name of what it measures."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelyard.stages.report.plots import Axis

MINUS = "\N{MINUS SIGN}"
WANTED = {">=": "at least", "<=": "at most", ">": "over", "<": "under"}
PLAIN = ("ece", "r2", "auc", "average_precision", "ks", "gini")
"""Measures that have no unit and are written with three decimals."""
NAMES = {
    "ece": "Calibration error (ECE)",
    "entity_f1": "Entity F1",
    "auc": "Area under the ROC curve (AUC)",
    "ks": "Kolmogorov–Smirnov distance (KS)",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "weighted_f1": "Weighted F1",
    "token_micro_f1": "Micro F1 of words",
    "token_macro_f1": "Macro F1 of words",
    "token_weighted_f1": "Weighted F1 of words",
    "recall_at_1": "Recall at 1",
    "recall_at_10": "Recall at 10",
    "mrr_at_10": "MRR at 10",
    "ndcg_at_10": "NDCG at 10",
    "latency_p50_ms": "Latency, median",
    "latency_p95_ms": "Latency, 95th percentile",
    "latency_p99_ms": "Latency, 99th percentile",
    "rows_per_s": "Rows a second, in bulk",
    "model_bytes": "Size of the graph",
    "better_than_baseline": "Ahead of the best baseline",
    "mae": "Mean absolute error (MAE)",
    "rmse": "Root mean squared error (RMSE)",
    "r2": "R²",
    "coverage": "Truths inside the interval",
}
OWN_UNIT = ("amount", "mae", "rmse")
"""What is in the unit of the target: an answer or a truth, and errors of them."""
THOUSANDS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
DIGITS = 3
LEAST, MOST = 1e-4, 1e15
"""Smaller and larger numbers are written with an exponent."""


def title(name: str) -> str:
    """What a measure is called on the page.

    >>> title("ece"), title("accuracy")
    ('Calibration error (ECE)', 'Accuracy')
    """
    return NAMES.get(name, name.replace("_", " ").capitalize())


def spoken(name: str) -> str:
    """What a measure is called within a sentence.

    >>> spoken("micro_f1"), spoken("accuracy"), spoken("r2")
    ('micro F1', 'accuracy', 'R²')
    """
    told = title(name)
    return told[:1].lower() + told[1:] if told[1:2].islower() else told


def number(name: str, value: float) -> str:
    """A value without its unit.

    >>> number("accuracy", 0.9312), number("latency_p95_ms", 7.333), number("ece", 0.03141)
    ('93.1', '7.3', '0.031')
    >>> number("mae", 1234.5), number("r2", -0.0304)
    ('1,234', '−0.030')
    """
    if name in OWN_UNIT:
        return amount(value)
    if name == "better_than_baseline":
        return signed(value)
    if name.endswith("_ms"):
        return significant(value)
    if name.endswith("_per_s"):
        return f"{value:,.0f}"
    if name.endswith("_bytes"):
        return significant(value / 1e6)
    return minus(f"{value:.3f}" if name in PLAIN else f"{100 * value:.1f}")


def unit(name: str, own: str | None = None) -> str:
    """The unit that follows a value, with its space; `own` is said with the value, if it is."""
    if own:
        return f"\N{NO-BREAK SPACE}{own}"
    units = {"rows_per_s": " rows/s"} | dict.fromkeys((*PLAIN, *OWN_UNIT), "")
    if name in units:
        return units[name]
    if name.endswith("_ms"):
        return " ms"
    return " MB" if name.endswith("_bytes") else "\N{NO-BREAK SPACE}%"


def shown(name: str, value: float, own_unit: str | None = None) -> str:
    r"""A value with its unit.

    >>> shown("model_bytes", 22_900_000), shown("better_than_baseline", -0.52, "points")
    ('22.9 MB', '−0.5\xa0points')
    """
    return number(name, value) + unit(name, own_unit)


def interval(name: str, measure: Mapping[str, Any]) -> str:
    """A 95 % interval with its unit.

    >>> interval("latency_p95_ms", {"low": 9.0, "high": 12.5})
    '9.0 to 12.5 ms'
    """
    ends = f"{number(name, measure['low'])} to {number(name, measure['high'])}"
    return ends + unit(name, measure.get("unit"))


def signed(value: float) -> str:
    """One decimal and always a sign, but for 0.

    >>> signed(6.42), signed(-0.5), signed(-0.01)
    ('+6.4', '−0.5', '0.0')
    """
    text = f"{abs(value):.1f}"
    if text == "0.0":
        return text
    return ("+" if value > 0 else MINUS) + text


def lost(better: float) -> str:
    """In hundredths, what is lost where so much is won: one decimal, and a sign if it is below 0.

    >>> lost(-0.0123), lost(0.004), lost(0.0)
    ('1.2', '−0.4', '0.0')
    """
    return signed(-100 * better).removeprefix("+")


def significant(value: float) -> str:
    """Two or three significant digits, and no exponent.

    >>> significant(0.0421), significant(0.2), significant(7.333), significant(22_912)
    ('0.042', '0.20', '7.3', '22,912')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.2g}" if 1e-4 <= value < 1 else f"{value:.1f}"


def cost(value: float) -> str:
    """A price, with three digits and no exponent.

    >>> cost(0.01234), cost(12.3456), cost(0.0), cost(2e-7)
    ('0.0123', '12.3', '0', '0.0000002')
    """
    decimals = DIGITS - 1 - math.floor(math.log10(value)) if value > 0 else 0
    text = f"{value:,.{max(0, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount(value: float) -> str:
    """A number in the unit of the target: three digits or more, and an exponent only if needed.

    >>> amount(1234567.8), amount(12.345), amount(-0.01234), amount(2e-7)
    ('1,234,568', '12.3', '−0.0123', '2e-07')
    """
    size = abs(value)
    if size and not LEAST <= size < MOST:
        return minus(f"{value:.{DIGITS}g}")
    decimals = DIGITS - 1 - math.floor(math.log10(size)) if size else 0
    return minus(f"{value:,.{max(0, decimals)}f}")


def minus(text: str) -> str:
    """A number's text with a real minus sign.

    >>> minus("-3"), minus("2e-07")
    ('−3', '2e-07')
    """
    return MINUS + text[1:] if text.startswith("-") else text


def tick(name: str, value: float, axis: Axis) -> str:
    """A tick of an axis on which a measure is drawn.

    >>> from modelyard.stages.report.plots import axis
    >>> price = axis([0.0, 2e6], 0, 100)
    >>> [tick("mae", each, price) for each in price.ticks[:3]]
    ['0', '500k', '1,000k']
    """
    if name in OWN_UNIT:
        return minus(_short(value, axis))
    if unit(name).endswith("%"):
        shares = replace(axis, ticks=tuple(100 * each for each in axis.ticks))
        return shares.label(100 * value) + unit(name)
    return minus(axis.label(value)) + unit(name)


def _short(value: float, axis: Axis) -> str:
    """A tick in thousands, millions or more where all its axis' are long."""
    most = max(map(abs, axis.ticks))
    if not LEAST <= most < 1000 * THOUSANDS[0][0]:
        return f"{value:.{DIGITS}g}"
    size, mark = next((each for each in THOUSANDS if most >= 10 * each[0]), (1.0, ""))
    scaled = replace(axis, ticks=tuple(each / size for each in axis.ticks))
    return scaled.label(value / size) + (mark if value else "")


def wanted(name: str, limit: str, own_unit: str | None = None) -> str:
    """A limit of [accept] in words, with its unit and every digit it was written with.

    >>> wanted("latency_p95_ms", "< 20"), wanted("model_bytes", "<= 25000000")
    ('under 20 ms', 'at most 25 MB')
    """
    sign, value = limit.rstrip("0123456789.-").strip(), float(limit.lstrip("<>= "))
    factor = {" MB": 1e-6, "\N{NO-BREAK SPACE}%": 100}.get(unit(name), 1)
    factor = 1 if own_unit else factor  # a value with its own unit is in it already
    return f"{WANTED[sign]} {value * factor:,.10g}{unit(name, own_unit)}"
