"""Asking: which release answers a request, for whom, and what is asked beside it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from modelyard.core.errors import BadInput, NotAllowed, ServiceBusy
from modelyard.ledger.directory import Caller
from modelyard.ledger.limits import Usage
from modelyard.runtime.runtime import Answer
from modelyard.service.catalogue import AT, Catalogue, Served
from modelyard.service.metering import CALLER, VISIT, Visit
from modelyard.service.metrics import Metrics

NOBODY = nullcontext()
_shadows: set["asyncio.Task[None]"] = set()
"""Held, as an event loop holds tasks by weak references alone."""


@dataclass(frozen=True)
class Asked:
    """A request's release, and the visit it belongs to where it is metered."""

    served: Served
    shadow: Served | None
    visit: Visit | None
    metrics: Metrics

    async def answers(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Answer], Usage]:
        """Answers and what they used; raises what Admission.predict raises.

        What is asked beside it answers later, to nobody, and is neither counted nor waited for.
        """
        found = await self.served.admission.predict(rows, self.visit)
        if self.shadow:
            self._shadow(self.shadow, rows, found[0])
        if self.visit:
            await self.visit.keep(self.served.limits, self.served.info.columns, rows, found[0])
        return found

    async def vectors(self, rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float32], Usage]:
        """Vectors and what they used; raises what Admission.vectors raises."""
        found = await self.served.admission.vectors(rows, self.visit)
        if self.visit:
            await self.visit.keep(self.served.limits, self.served.info.columns, rows, None)
        return found

    def _shadow(
        self, shadow: Served, rows: Sequence[Mapping[str, Any]], answers: list[Answer]
    ) -> None:
        """Have a release asked beside; it is held from now on, not from the task's beginning."""
        held = ExitStack()
        held.enter_context(shadow)
        task = asyncio.create_task(self._shadowed(shadow, rows, answers))
        _shadows.add(task)
        task.add_done_callback(_shadows.discard)
        task.add_done_callback(lambda task: held.close())

    async def _shadowed(
        self, shadow: Served, rows: Sequence[Mapping[str, Any]], answers: list[Answer]
    ) -> None:
        try:
            others, _ = await shadow.admission.predict(rows, is_counted=False)
        except (BadInput, ServiceBusy):
            outcomes = ["refused"] * len(rows)
        except Exception:  # noqa: BLE001 – a release on trial may fail, and harms nobody
            outcomes = ["failed"] * len(rows)
        else:
            pairs = zip(answers, others, strict=True)
            outcomes = ["same" if said(a) == said(b) else "other" for a, b in pairs]
        for outcome in outcomes:
            self.metrics.shadow_rows.labels(shadow.info.name, shadow.info.version, outcome).inc()


def said(answer: Any) -> Any:
    """What an answer says, without its numbers.

    >>> said({"label": "good", "score": 0.7, "scores": {"good": 0.7, "bad": 0.3}})
    {'label': 'good', 'scores': {'good': None, 'bad': None}}
    """
    match answer:
        case dict():
            return {
                k: said(v) for k, v in answer.items() if not isinstance(v, float) or k != "score"
            }
        case list() | tuple():
            return [said(each) for each in answer]
        case float():
            return None
    return answer


@contextmanager
def asked(
    catalogue: Catalogue, metrics: Metrics, request: Request, name: str | None = None
) -> Iterator[Asked]:
    """The release of that name, or that a request's path names; raises UnknownName, NotAllowed."""
    version = request.path_params.get("version")
    name = request.path_params["name"] if name is None else name
    visit: Visit | None = request.scope.get(VISIT)
    _refuse_others(_caller(request), name)
    served = catalogue.find(name, version, _who(request))
    if visit:
        visit.ask(served.info.name, served.info.version)
    shadow = catalogue.shadow_of(name, version, served)
    with served, shadow or NOBODY:
        yield Asked(served, shadow, visit, metrics)


def seen(catalogue: Catalogue, request: Request) -> list[Served]:
    """The releases that whoever asks may know of."""
    caller = _caller(request)
    allowed = caller.releases if caller else None
    return [each for each in catalogue.all() if allowed is None or each.info.name in allowed]


def looked_at(catalogue: Catalogue, request: Request, name: str | None = None) -> Served:
    """The release of that name, or that a path names, to be told of; raises as `asked` does."""
    version = request.path_params.get("version")
    name = request.path_params["name"] if name is None else name
    _refuse_others(_caller(request), name)
    return catalogue.find(name, version, _who(request))


def _refuse_others(caller: Caller | None, name: str) -> None:
    """Refuse names beyond the releases of a key, whether they are names of any: NotAllowed."""
    own = caller.releases if caller else None
    if own is not None and name.partition(AT)[0] not in own:
        raise NotAllowed(
            f"The key may not ask the release {name[:80]!r}; it may ask "
            f"{', '.join(sorted(own)) or 'none'}."
        )


def _caller(request: Request) -> Caller | None:
    visit: Visit | None = request.scope.get(VISIT)
    return visit.caller if visit else request.scope.get(CALLER)


def _who(request: Request) -> str:
    """Whose requests stay on one side where they are shared out."""
    caller = _caller(request)
    if caller:
        return caller.project_id or caller.key_id
    return request.client.host if request.client else ""
