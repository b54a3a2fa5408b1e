"""What a service refuses, or fails at, as its client is told.

ApiError
├── KeyRefused         no key, or one that does not hold (401)
├── NotAllowed         a key that may not do this (403)
├── LimitReached       a rate, budget or number at once (429)
├── RequestInvalid     what only the client can mend (400, 404, 409, 413, 415, 422)
├── Busy               what passes: 502, 503, 504, or a first request still being answered (409)
└── NoAnswer           no connection, a timeout, or an answer that was cut
"""

from modelyard.core.errors import ModelyardError

PAGE = "docs/client.md"


class ApiError(ModelyardError):
    """A request that was not answered; the message is the problem's detail.

    `status` is None where no response came. `retry_after_s` is when to come again, if the service
    said so; `request_id` names the request in the service's journal.
    """

    def __init__(
        self,
        detail: str,
        status: int | None = None,
        code: str = "error",
        page: str = PAGE,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ):
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self._page = page

    @property
    def page(self) -> str:
        """Where the documentation explains this error."""
        return self._page


class KeyRefused(ApiError):
    """The request had no key, or one that is unknown, expired or revoked."""


class NotAllowed(ApiError):
    """The role or the releases of the key do not allow what was asked."""


class LimitReached(ApiError):
    """More than a limit allows; without `retry_after_s` it will not pass by itself."""


class RequestInvalid(ApiError):
    """The request as it is cannot be answered, however often it is sent."""


class Busy(ApiError):
    """The service could not answer at the moment, and has been asked as often as was allowed."""


class NoAnswer(ApiError):
    """No whole response came: no connection, a timeout, or one that was cut."""
