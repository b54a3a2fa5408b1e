"""The catalogue: the releases that a process serves, and which of them answers a request.

A release is asked by its name, `name`, which stands for what its alias `prod` says; or by its name
with a version or an alias, `name@2`, `name@canary`. An alias may share requests out between
versions by weight: each caller stays on one side as long as the weights are the same.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from modelyard.core.errors import UnknownName
from modelyard.core.project import Serve
from modelyard.service.admission import Admission
from modelyard.service.release_info import ReleaseInfo
from modelyard.service.tensors import Output, outputs_of

PROD = "prod"
AT = "@"
Share = tuple[str, int]
"""A version, and its weight."""


@dataclass(frozen=True)
class Alias:
    """Where an alias of a release leads: versions by weight, and one that is asked beside."""

    shares: tuple[Share, ...]
    shadow: str | None = None

    def version_for(self, caller: str, known: Mapping[str, object]) -> str | None:
        """The version for a caller, of those that are known; None where none of them is.

        >>> Alias((("1", 1), ("2", 0))).version_for("anybody", {"1": 0, "2": 0})
        '1'
        """
        shares = [(version, weight) for version, weight in self.shares if version in known]
        whole = sum(weight for _, weight in shares)
        if not whole:
            return shares[0][0] if shares else None
        place = int.from_bytes(hashlib.sha256(caller.encode()).digest()[:8]) % whole
        for version, weight in shares:
            place -= weight
            if place < 0:
                return version
        return None


@dataclass(eq=False)
class Served:
    """A release that is loaded, and how many requests it is busy with."""

    info: ReleaseInfo
    limits: Serve
    admission: Admission
    in_flight: int = 0
    is_leaving: bool = False
    has_left: bool = False

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """Its output tensors."""
        return outputs_of(self.info)

    def __enter__(self) -> "Served":
        """Hold the release for a request; one that is to leave goes after its last."""
        self.in_flight += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1
        self.close_if_done()

    def leave(self) -> None:
        """Let go of its threads once no request needs them."""
        self.is_leaving = True
        self.close_if_done()

    def close_if_done(self) -> None:
        """Let go, once and off the event loop, where nothing is in flight."""
        if self.is_leaving and not self.in_flight and not self.has_left:
            self.has_left = True
            try:
                asyncio.get_running_loop().run_in_executor(None, self.admission.close)
            except RuntimeError:  # nothing runs any more
                self.admission.close()


@dataclass
class Catalogue:
    """The releases that are loaded, by name and version; the newest of a name stands last."""

    changes: int = 0
    """How often a release has come or gone, or an alias was led elsewhere."""
    _served: dict[str, dict[str, Served]] = field(default_factory=dict)
    _aliases: dict[tuple[str, str], Alias] = field(default_factory=dict)

    def all(self) -> list[Served]:
        """All that are loaded, the one that a name alone stands for first of its name."""
        found = []
        for name, versions in self._served.items():
            first = self._version(name, PROD, "")
            found += sorted(versions.values(), key=lambda each: each.info.version != first)
        return found

    def add(self, served: Served) -> None:
        """Serve a release, in place of one of the same name and version."""
        versions = self._served.setdefault(served.info.name, {})
        before = versions.pop(served.info.version, None)
        versions[served.info.version] = served
        if before:
            before.leave()
        self.changes += 1

    def remove(self, name: str, version: str) -> None:
        """Serve a release no more; requests that it is busy with are still answered."""
        versions = self._served.get(name, {})
        before = versions.pop(version, None)
        if not versions:
            self._served.pop(name, None)
        if before:
            before.leave()
            self.changes += 1

    def lead(self, aliases: Mapping[tuple[str, str], Alias]) -> None:
        """Where aliases, by release and name, lead from now on."""
        if self._aliases != dict(aliases):
            self._aliases = dict(aliases)
            self.changes += 1

    def names_of(self, name: str) -> list[str]:
        """All by which the loaded versions of a release can be asked."""
        versions = self._served.get(name, {})
        own = [
            alias
            for (release, alias), each in self._aliases.items()
            if release == name and each.version_for("", versions)
        ]
        return [name, *(f"{name}{AT}{each}" for each in dict.fromkeys((*versions, *own)))]

    def find(self, text: str, version: str | None = None, caller: str = "") -> Served:
        """What answers a request for a release; raises UnknownName."""
        name, _, wanted = text.partition(AT)
        versions = self._served.get(name)
        if versions is None:
            known = ", ".join(repr(each) for each in self._served) or "none"
            raise UnknownName(f"There is no model {text[:80]!r} here; there is {known}.")
        found = self._version(name, version or wanted or PROD, caller)
        if found is None:
            raise UnknownName(
                f"There is no version of {name!r} {(version or wanted)[:80]!r} here; there is "
                f"{', '.join(repr(each) for each in versions)}."
            )
        return versions[found]

    def shadow_of(self, text: str, version: str | None, answering: Served) -> Served | None:
        """What is asked beside the release that answers, if anything."""
        name, _, wanted = text.partition(AT)
        alias = self._aliases.get((name, version or wanted or PROD))
        found = self._served.get(name, {}).get(alias.shadow) if alias and alias.shadow else None
        return None if found is answering else found

    def _version(self, name: str, wanted: str, caller: str) -> str | None:
        versions = self._served[name]
        if wanted in versions:
            return wanted
        alias = self._aliases.get((name, wanted))
        found = alias.version_for(caller, versions) if alias else None
        if found is None and wanted == PROD:
            return next(reversed(versions))
        return found

    def close(self) -> None:
        """Let go of all."""
        for each in self.all():
            each.admission.close()


def of_one(served: Served) -> Catalogue:
    """A catalogue with one release."""
    made = Catalogue()
    made.add(served)
    return made


def first_of(releases: Sequence[Served]) -> dict[str, Served]:
    """Of each name the release that it stands for by itself."""
    found: dict[str, Served] = {}
    for each in releases:
        found.setdefault(each.info.name, each)
    return found
