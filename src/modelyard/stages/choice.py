"""Choice: which rung of the ladder is released, and why in words that a person reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.stages.rungs import ROUNDING, Rung
from modelyard.stages.speed import Speed

AS_CHEAP = 0.97
"""Of the rate of the quickest: measured again, either could be the quicker."""


@dataclass(frozen=True)
class Choice:
    """A rung's name, and why: what would come out the same again, without any measured speed."""

    name: str
    why: str


def named(rungs: Sequence[Rung], wanted: str, max_loss: float) -> Choice:
    """The rung that was asked for, or else the last one before it that loses no more than it may.

    `rungs` end with the one that is wanted; the first is fp32.
    """
    if wanted == "fp32":
        return Choice(wanted, "the project file asks for fp32")
    if not rungs:
        return Choice("fp32", f"there are no validation rows on which {wanted} could be checked")
    plain, last = rungs[0], rungs[-1]
    if last.loss <= max_loss + ROUNDING:
        return Choice(last.name, f"{said(last)} and is {_times_smaller(plain, last)} × smaller")
    why = f"{said(last)}, more than compress.max_loss = {max_loss:g} allows"
    able = [each for each in rungs if each.loss <= max_loss + ROUNDING]
    if not able or able[-1] is plain:
        return Choice(plain.name, why)
    return Choice(able[-1].name, f"{why}; {said(able[-1])}")


def cheapest(
    rungs: Sequence[Rung],
    speeds: Mapping[str, Speed],
    broken: Mapping[str, Sequence[str]],
    max_loss: float,
) -> Choice:
    """The rung of which a million rows cost the least, of those that lose no more than they may.

    `broken` are the limits of [accept] that each does not hold: the fewer the better. Of rungs that
    are as cheap the plainest is taken, which is the first.
    """
    if not rungs:
        return Choice("fp32", "there are no validation rows on which a rung could be checked")
    plain = rungs[0]
    able = [each for each in rungs if each.loss <= max_loss + ROUNDING] or [plain]
    fewest = min(len(broken[each.name]) for each in able)
    able = [each for each in able if len(broken[each.name]) == fewest]
    quickest = max(speeds[each.name].rows_per_s for each in able)
    best = next(each for each in able if speeds[each.name].rows_per_s >= AS_CHEAP * quickest)
    return Choice(best.name, _why(best, plain, len(rungs), broken[best.name], max_loss))


def _why(best: Rung, plain: Rung, count: int, broken: Sequence[str], max_loss: float) -> str:
    kept = "keeps [accept] and "
    if broken:
        kept = f"breaks {' and '.join(broken)} of [accept], as none keeps all of it, and "
    why = (
        f"of {count} rungs it is the cheapest on this machine that {kept}loses at most "
        f"compress.max_loss = {max_loss:g}"
    )
    if best is plain:
        return why
    smaller = f"is {_times_smaller(plain, best)} × smaller"
    return f"{why}: {said(best)} and {smaller}{_doubt(best, max_loss)}"


def said(rung: Rung) -> str:
    """What a rung loses, in a sentence's words.

    >>> from modelyard.core.measure import Measure
    >>> accuracy = Measure("accuracy", 0.9, 0.8, 1.0, 40)
    >>> said(Rung("int8", 9, accuracy, 0.0051, 1.0, 0.1))
    'int8 loses 0.51 points of accuracy on 40 validation rows'
    """
    name, hundredths = rung.measure.name, f"{100 * rung.loss:.2f}"
    told = f"{rung.name} loses {hundredths} points of {name}"
    if not rung.measure.higher_is_better:
        told = f"{rung.name} adds {hundredths} % to {name}"
    if rung.loss <= 0:
        told = f"{rung.name} {'loses no' if rung.measure.higher_is_better else 'adds no'} {name}"
    return f"{told} on {rung.measure.rows:,} validation rows"


def _doubt(rung: Rung, max_loss: float) -> str:
    """A word where other rows of the same kind could have decided otherwise."""
    paired = rung.difference
    if paired is None or -paired.low <= max_loss + ROUNDING:
        return ""
    return (
        f"; other rows could show a loss of up to {-100 * paired.low:.1f} {paired.unit} (95 % "
        "interval)"
    )


def _times_smaller(plain: Rung, rung: Rung) -> str:
    return f"{plain.size_bytes / rung.size_bytes:.1f}"
