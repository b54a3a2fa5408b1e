"""What can go wrong, drawn once; each class has its page in docs/errors/<code>.md.

    ModelyardError
    ├── BadInput                     exit status 2: the user can mend it
    │   ├── ProjectFileInvalid       every problem of a project file, with lines
    │   ├── ProjectFileMissing
    │   ├── SettingInvalid           a --set or an option that cannot be used
    │   ├── UnknownName              a sample, backbone, kind or method nobody knows
    │   ├── SourceUnreachable        rows or weights that cannot be fetched
    │   ├── RowsMissing              no such file, folder or table
    │   ├── RowsUnreadable           wrong encoding or format
    │   ├── RowsEmpty
    │   ├── ColumnMissing
    │   ├── TextTooLong
    │   ├── TooFewClasses
    │   ├── ClassTooSmall
    │   ├── NothingToLearn           truths that are too few or all one
    │   ├── SplitImpossible
    │   ├── BackboneUnusable
    │   ├── PairImpossible           an input that makes no sense with a target
    │   ├── RowsAlreadySeen          an audit on rows its model learned from
    │   ├── ExtraMissing             a part of the package is not installed
    │   ├── ReleaseMissing
    │   ├── ResultMissing            what a stage makes, before it has run
    │   ├── ReleaseChanged           a file differs from what was signed
    │   ├── ReleaseUntrusted         no signature, or not by a known key
    │   ├── BackupUnusable           a backup of the ledger that is damaged or unknown
    │   ├── NameTaken                what is to be new has the name of another (409)
    │   ├── RequestInvalid           a request the API cannot answer (422)
    │   └── RequestTooLarge          over a limit of the API (413)
    ├── RequirementFailed            exit status 1: [accept] does not hold
    ├── ServiceBusy                  the queue is full (503)
    ├── LedgerAway                   the ledger's database takes nothing (503)
    ├── KeyRefused                   no key, or one that does not hold (401)
    ├── NotAllowed                   a key that may not do this (403)
    ├── LimitReached                 a rate, budget or number at once (429)
    ├── RequestRepeated              an idempotency key that stands for another request (409)
    └── WorkerDied                   a process that did part of the work is gone

A message is one sentence or two: what happened, what was got, what is allowed,
what to do next.
"""

from typing import ClassVar


class ModelyardError(Exception):
    """Anything Modelyard refuses or fails at, said for a person."""

    code: str = "error"
    exit_status: ClassVar[int] = 1

    @property
    def page(self) -> str:
        """Where the documentation explains this error."""
        return f"docs/errors/{self.code}.md"


class BadInput(ModelyardError):
    """What was given cannot be used; the message says how to mend it."""

    code = "bad-input"
    exit_status = 2


class ProjectFileInvalid(BadInput):
    """A project file with problems; `problems` lists every one, with its line."""

    code = "project-file-invalid"

    def __init__(self, path: str, problems: list[str]):
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{path} has {count}:", *(f"  {p}" for p in problems)]))


class ProjectFileMissing(BadInput):
    """No project file where one was looked for."""

    code = "project-file-missing"


class SettingInvalid(BadInput):
    """An option or a --set that cannot be used."""

    code = "setting-invalid"


class UnknownName(BadInput):
    """A sample, backbone, kind or method that nobody knows."""

    code = "unknown-name"


class SourceUnreachable(BadInput):
    """Rows or weights that could not be fetched."""

    code = "source-unreachable"


class RowsMissing(BadInput):
    """No rows where the project file says they are."""

    code = "rows-missing"


class RowsUnreadable(BadInput):
    """Rows in an encoding or a form that cannot be read."""

    code = "rows-unreadable"


class RowsEmpty(BadInput):
    """A source without a single usable row."""

    code = "rows-empty"


class ColumnMissing(BadInput):
    """A column the project names is not in the rows."""

    code = "column-missing"


class TextTooLong(BadInput):
    """A text over the limit on characters."""

    code = "text-too-long"


class TooFewClasses(BadInput):
    """A class target needs at least two classes."""

    code = "too-few-classes"


class ClassTooSmall(BadInput):
    """A class with too few rows to be split."""

    code = "class-too-small"


class NothingToLearn(BadInput):
    """Truths from which nothing can be learned: too few, or all the same."""

    code = "nothing-to-learn"


class SplitImpossible(BadInput):
    """The rows cannot be split as the project file asks."""

    code = "split-impossible"


class BackboneUnusable(BadInput):
    """A backbone folder that lacks what is needed."""

    code = "backbone-unusable"


class PairImpossible(BadInput):
    """An input kind that makes no sense with the target kind."""

    code = "pair-impossible"


class RowsAlreadySeen(BadInput):
    """An audit was asked on rows its model has learned from."""

    code = "rows-already-seen"


class ExtraMissing(BadInput):
    """A part of the package that this work needs is not installed."""

    code = "extra-missing"


class ReleaseMissing(BadInput):
    """No release where one was looked for."""

    code = "release-missing"


class ResultMissing(BadInput):
    """What a stage makes was asked for before it has run."""

    code = "result-missing"


class ReleaseChanged(BadInput):
    """A file of a release differs from what was signed."""

    code = "release-changed"


class ReleaseUntrusted(BadInput):
    """A release without a signature, or signed by a key that is not trusted."""

    code = "release-untrusted"


class BackupUnusable(BadInput):
    """A backup of the ledger that is damaged, or that this Modelyard does not read."""

    code = "backup-unusable"


class NameTaken(BadInput):
    """What is to be new has a name that another has already."""

    code = "name-taken"


class RequestInvalid(BadInput):
    """A request the API cannot answer."""

    code = "request-invalid"


class RequestTooLarge(BadInput):
    """A request over one of the API's limits."""

    code = "request-too-large"


class RequirementFailed(ModelyardError):
    """The audit says no: a limit of [accept] does not hold."""

    code = "requirement-failed"


class ServiceBusy(ModelyardError):
    """The service's queue is full; try again after the time it says."""

    code = "service-busy"


class LedgerAway(ModelyardError):
    """The ledger's database is gone, full, or busy too long.

    `told` is what a stranger is told of it: nothing of the `reason` that the database gives.
    """

    code = "ledger-away"

    def __init__(self, told: str, reason: str = ""):
        super().__init__(f"{told} The reason: {reason}." if reason else told)
        self.told = told
        self.reason = reason


class KeyRefused(ModelyardError):
    """A request without a key, or with one that is unknown, expired or revoked."""

    code = "key-refused"


class NotAllowed(ModelyardError):
    """A key whose role or releases do not allow what was asked."""

    code = "not-allowed"


class LimitReached(ModelyardError):
    """More than a limit allows; `retry_after_s` says when to come again, None for never."""

    code = "limit-reached"

    def __init__(self, message: str, retry_after_s: int | None):
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RequestRepeated(ModelyardError):
    """An idempotency key that stands for another request, or for one that is being answered.

    Of the latter `retry_after_s` says when to come again; for the former there is no such time.
    """

    code = "request-repeated"

    def __init__(self, message: str, retry_after_s: int | None = None):
        self.retry_after_s = retry_after_s
        super().__init__(message)


class WorkerDied(ModelyardError):
    """A process that answered rows for a command ended before it had."""

    code = "worker-died"
