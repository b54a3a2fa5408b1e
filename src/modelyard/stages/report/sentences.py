"""The first lines of a report: what was found, in plain sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.stages.report.numbers import interval, shown, signed, spoken, title, wanted

Json = Mapping[str, Any]
MOST_NAMED = 4


def headline(found: Json) -> list[str]:
    """A report's first sentences; a baseline that is as good or better comes before all else."""
    judged = [each for each in found["baselines"] if "judgement" in each]
    ahead = [each for each in judged if each["judgement"] == "better"]
    sentences = [_not_ahead(found, each) for each in judged if each not in ahead]
    sentences.append(_main(found))
    if ahead:
        sentences.append(_ahead(ahead))
    return [*sentences, _verdict(found["verdict"])]


def measure_of(measures: Sequence[Json], name: str) -> Json:
    """The measure of this name."""
    return next(measure for measure in measures if measure["name"] == name)


def _not_ahead(found: Json, baseline: Json) -> str:
    main = found["main"]
    own, its = (measure_of(each["measures"], main) for each in (found, baseline))
    return (
        f"{_judged(baseline)}: {called(baseline['name'])} has {spoken(main)} "
        f"{shown(main, its['value'])} on the same {own['rows']:,} test rows, this model "
        f"{shown(main, own['value'])} ({_told(baseline['difference'])})."
    )


def _judged(baseline: Json) -> str:
    if baseline["judgement"] == "worse":
        return "This model is worse than a plain baseline"
    surely = "may be" if baseline["difference"]["value"] > 0 else "is"
    return f"A plain baseline {surely} as good as this model"


def _told(difference: Json) -> str:
    value, low, high = (signed(100 * difference[end]) for end in ("value", "low", "high"))
    said = {"points": f"difference {value} points", "%": f"error reduced by {value} %"}
    return f"{said[difference['unit']]}, 95 % interval {low} to {high}"


def _main(found: Json) -> str:
    main = found["main"]
    measure = measure_of(found["measures"], main)
    sources = named([each["column"] for each in found["inputs"]])
    return (
        f"{found['name']} {found['version']} reads {sources} and answers with "
        f"{found['target']['column']}: {spoken(main)} {shown(main, measure['value'])} on "
        f"{measure['rows']:,} test rows it has not learned from (95 % interval "
        f"{interval(main, measure)})."
    )


def named(columns: Sequence[str]) -> str:
    """Columns by their names, or how many they are.

    >>> named(["title", "text"]), named(list("abcde"))
    ('title and text', '5 columns')
    """
    return " and ".join(columns) if len(columns) <= MOST_NAMED else f"{len(columns)} columns"


def _ahead(ahead: Sequence[Json]) -> str:
    told = [
        f"{_saved(each['difference'])} than {called(each['name'])} "
        f"(95 % interval {signed(100 * each['difference']['low'])} to "
        f"{signed(100 * each['difference']['high'])})"
        for each in reversed(ahead)
    ]
    return f"That is {' and '.join(told)}, on the same rows."


def _saved(difference: Json) -> str:
    words = {"points": "points better", "%": "% less error"}
    return f"{100 * difference['value']:.1f} {words[difference['unit']]}"


def _verdict(verdict: Sequence[Json]) -> str:
    if not verdict:
        return "No limits are set in [accept], so nothing was required of it."
    failed = [limit for limit in verdict if not limit["holds"]]
    if failed:
        told = "; ".join(_failed(limit) for limit in failed)
        return f"{len(failed)} of {len(verdict)} limits {_fail(failed)}: {told}."
    held = "The one limit holds" if len(verdict) == 1 else f"All {len(verdict)} limits hold"
    return f"{held}.{_unsure(verdict)}"


def _unsure(verdict: Sequence[Json]) -> str:
    unsure = [title(limit["name"]) for limit in verdict if not limit["certain"]]
    if not unsure:
        return ""
    told = " and ".join(filter(None, [", ".join(unsure[:-1]), unsure[-1]]))
    return f" Not certain for {told}: the limit lies inside the 95 % interval."


def _fail(failed: Sequence[Json]) -> str:
    return "does not hold" if len(failed) == 1 else "do not hold"


def _failed(limit: Json) -> str:
    name, unit = limit["name"], limit["unit"]
    found = shown(name, limit["value"], unit)
    return f"{title(name)} is {found}, wanted {wanted(name, limit['limit'], unit)}"


def called(baseline: str) -> str:
    """A baseline's name in a sentence.

    >>> called("majority class"), called("TF-IDF of words")
    ('the majority class', 'TF-IDF of words')
    """
    return f"the {baseline}" if baseline[:1].islower() else baseline
