"""The exchange: what is sent, and when it is sent again. It neither sends nor waits itself.

A Call is a generator: it yields each attempt, takes what came of it, and returns the result. So
the sync and the async client differ in how they wait, and in nothing else.
"""

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from modelyard.client.errors import NoAnswer
from modelyard.client.messages import Request, Response
from modelyard.client.refusals import may_pass, refusal
from modelyard.core.errors import SettingInvalid

BASE_S = 0.5
CAP_S = 30.0
MOST_DOUBLINGS = 16

Outcome = Response | NoAnswer
Result = TypeVar("Result")


@dataclass(frozen=True)
class Attempt:
    """A request to send after a wait; it may take `timeout_s`, the wait not counted."""

    request: Request
    wait_s: float
    timeout_s: float


Call = Generator[Attempt, Outcome, Result]


@dataclass(frozen=True)
class Patience:
    """How long an attempt and all attempts together may take, and how many more there may be."""

    timeout_s: float
    retries: int
    total_s: float
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.total_s > 0 and self.retries >= 0):
            raise SettingInvalid(
                f"A client's timeout_s and total_s are seconds above 0, and its retries a whole "
                f"number from 0; got {self.timeout_s}, {self.total_s} and {self.retries}."
            )

    def wait_s(self, failures: int, retry_after_s: float | None) -> float:
        """Seconds to wait after so many failures, never fewer than Retry-After says.

        Exponential backoff with full jitter. The jitter comes on top of Retry-After, so that not
        all who were told the same moment come at once.
        """
        most_s = min(CAP_S, BASE_S * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
        return (retry_after_s or 0.0) + self.draw() * most_s


def exchanged(request: Request, patience: Patience) -> Call[Response]:
    """The response that answers a request, after as many attempts as it takes; raises ApiError."""
    ends = patience.clock() + patience.total_s
    wait_s, left_s = 0.0, patience.total_s
    for number in count(1):
        outcome = yield Attempt(request, wait_s, min(patience.timeout_s, left_s))
        if isinstance(outcome, Response) and outcome.is_answer:
            return outcome
        error = refusal(request, outcome) if isinstance(outcome, Response) else outcome
        wait_s = patience.wait_s(number, error.retry_after_s)
        left_s = ends - patience.clock() - wait_s
        if number > patience.retries or left_s <= 0 or not may_pass(error):
            raise error
    raise AssertionError  # count has no end
