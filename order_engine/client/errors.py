"""The errors of calls that have no answer to return.

EngineClientError
  ├── UnusableAddressError     the URL or the key; nothing was sent
  ├── EngineRefusedError       the engine itself said no: nothing was done
  ├── EngineUnreachableError   no answer for as long as the client tries; an order was certainly not placed
  └── OrderUnknownError        an order that may have been placed; repeat it with `idempotency_key`

No message quotes the URL's user, password, path or query, nor the API key.
"""

import os
import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx2

_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (httpx2.ConnectTimeout, "the connection was not opened in time"),
    (httpx2.PoolTimeout, "all connections of this client are in use"),
    (httpx2.TimeoutException, "no answer in time"),
    (TimeoutError, "no answer in time"),
    (httpx2.RemoteProtocolError, "the answer broke off, or is not HTTP"),
    (httpx2.DecodingError, "the answer's encoding is broken"),
    (httpx2.ConnectError, "the connection cannot be opened"),
)


class EngineClientError(Exception):
    """A call to an engine has no answer to return. `idempotency_key` is set where an order was to be placed."""

    idempotency_key: str | None = None


class UnusableAddressError(EngineClientError, ValueError):
    """The engine's URL or the API key cannot be used. The message does not quote them."""


class EngineRefusedError(EngineClientError):
    """The engine refused; `problem` is its RFC 9457 document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Keep the whole document."""
        super().__init__(str(problem.get("detail", problem)))
        self.problem = problem


class EngineUnreachableError(EngineClientError):
    """The engine did not answer for as long as the client tries. An order was not placed."""


class OrderUnknownError(EngineClientError):
    """The order may have been placed: a request was delivered, and no answer came back that tells.

    To submit the same order again with `idempotency_key` is safe: it returns the first one, or places it.
    """

    def __init__(self, why: str, idempotency_key: str) -> None:
        """`why` is a sentence."""
        self.why = why
        self.idempotency_key = idempotency_key
        super().__init__(f"{why} The order may have been placed; repeat it with idempotency_key={idempotency_key!r}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled whole, as between processes."""
        return type(self), (self.why, self.idempotency_key)


def reason_of(error: BaseException) -> str:
    """Return the reason in a few words, none of which come from the request."""
    for link in _chain(error):
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return f"TLS failed: {link.reason or 'the connection broke off'}"
        if isinstance(link, OSError) and link.errno is not None:
            return (link.strerror if link.errno < 0 else os.strerror(link.errno)) or type(link).__name__
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "the connection broke off")


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and its causes; of a group, the first one."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.exceptions[0] if isinstance(link, BaseExceptionGroup) else link.__cause__ or link.__context__
    return chain
