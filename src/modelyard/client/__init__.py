"""The client: asks a service for answers, waits where it is told to, and counts nothing twice.

with Client("http://127.0.0.1:8000", key="my_...") as client:
    print(client.predict("reviews", [{"text": "a quiet triumph"}]).predictions)
"""

from modelyard.client.async_client import AsyncClient
from modelyard.client.errors import (
    ApiError,
    Busy,
    KeyRefused,
    LimitReached,
    NoAnswer,
    NotAllowed,
    RequestInvalid,
)
from modelyard.client.replies import Input, Model, Prediction, RateLimit, Usage
from modelyard.client.sync_client import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Busy",
    "Client",
    "Input",
    "KeyRefused",
    "LimitReached",
    "Model",
    "NoAnswer",
    "NotAllowed",
    "Prediction",
    "RateLimit",
    "RequestInvalid",
    "Usage",
]
