"""Tells the engine's own answers from those of a proxy between client and engine."""

import email.utils
import json
import math
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

_SUCCESS: Final = frozenset({200, 202})
_LIMITED: Final = 429
# Timed out, too early, limited: the same request may succeed later. So may every 5xx.
_PASSING: Final = frozenset({408, 425, _LIMITED})
_FIRST_SERVER_ERROR: Final = 500
_FIRST_ERROR: Final = 400


class Answer(msgspec.Struct, frozen=True):
    """An answer to a request, over HTTP."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def kind(self) -> str:
        """The media type."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _PASSING or self.status >= _FIRST_SERVER_ERROR

    @property
    def is_limited(self) -> bool:
        """Whether there were too many requests; this request was not accepted."""
        return self.status == _LIMITED

    def result(self, member: str, also: Collection[int] = ()) -> dict[str, Any] | None:
        """Return the engine's document, which has this member; None if the engine did not send it, or not completely.

        `also`: statuses besides 200 and 202 with which the engine sends the document.
        """
        document = _object(self.content)
        is_result = (
            (self.status in _SUCCESS or self.status in also)
            and self.kind == "application/json"
            and member in (document or {})
        )
        return document if is_result else None

    def problem(self) -> dict[str, Any] | None:
        """Return the engine's problem document; None if the engine did not send the answer."""
        document = _object(self.content)
        is_problem = (
            self.status >= _FIRST_ERROR
            and self.kind == "application/problem+json"
            and isinstance((document or {}).get("code"), str)
        )
        return document if is_problem else None

    def retry_after_s(self) -> float | None:
        """Return the seconds that the server asks to wait, from either form of Retry-After."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return None
        return max(0.0, seconds) if math.isfinite(seconds) else None


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
