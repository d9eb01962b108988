"""The one way a request is refused: a code of the gRPC protocol, and the HTTP status TensorFlow Serving gives it."""

from __future__ import annotations

HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
# Names in a request may be as long as a request, and gRPC sends messages in a header of 8 KiB.
_MOST_CHARACTERS = 1000


class ServingFailure(Exception):
    """A request that cannot be answered.

    Args:
        code: Name of a gRPC status code.
        message: What the client is told.
        http_status: HTTP status, where it is not that of the code.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        super().__init__(message if len(message) <= _MOST_CHARACTERS else message[:_MOST_CHARACTERS] + "...")
        self.code = code
        self.http_status = http_status or HTTP_STATUS[code]
