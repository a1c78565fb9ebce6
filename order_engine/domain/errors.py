"""Every error that the engine raises on purpose, except IllegalTransition, a bug (domain/lifecycle.py).

OrderEngineError
├── Refused                   the request is not possible; nothing changed
│   ├── InvalidRequest        a field is wrong (`field` names it)
│   ├── OrderNotFound         the account has no order with this id
│   ├── KeyNotFound           there is no API key with this id
│   ├── UnknownCursor         the database did not give this cursor of its event log
│   ├── IdempotencyConflict   the key was used before with another body
│   ├── ClientOrderIdTaken    another order has this client order id (`existing_order_id`)
│   ├── CancelTooLate         the order is submitted or terminal
│   ├── RateLimited           too many requests in the window (`retry_after_s`)
│   ├── LimitExceeded         the order is beyond a limit of its account (`limit`, `used`, `frees_at_ms`)
│   ├── Unauthorized          the API key or ticket is not valid
│   └── Paused                an operator paused the account or the engine (the message is the reason)
├── StepFailed                an attempt cannot go on; the retry policy decides the next step
│   ├── VenueFailed           the venue answered with an error
│   ├── QuoteTimedOut         the venue did not answer within the deadline
│   ├── NoRoute               no venue trades this pair in this size
│   ├── SlippageExceeded      the swap would give less than the minimum out; it did not happen
│   └── ForeignFeePayer       another wallet would pay for the transaction, and so could replace it
├── Unavailable               a dependency does not answer now; try again later
│   ├── StoreUnavailable      the database does not answer; a write may or may not be stored
│   └── ChainUnavailable      the chain's RPC does not answer clearly; nothing is known
│       ├── ImpossibleAnswer  its numbers contradict those of the time of signing
│       └── WrongCluster      it is not the cluster that the orders were signed for
├── WrongSchema               another version or program made the database; nothing was changed
└── Fenced                    another worker owns the order, or it moved on; nothing was written
"""

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why an attempt or an order ended without a swap: the closed list that the API shows."""

    SLIPPAGE_EXCEEDED = "slippage_exceeded"
    NO_ROUTE = "no_route"
    QUOTE_TIMEOUT = "quote_timeout"
    VENUE_ERROR = "venue_error"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    TRANSACTION_REVERTED = "transaction_reverted"
    TRANSACTION_EXPIRED = "transaction_expired"
    PARKED = "parked"
    CANCELLED_BY_CLIENT = "cancelled_by_client"


class OrderEngineError(Exception):
    """The root of the tree in the module's docstring."""


class Refused(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """The request was refused and nothing changed."""

    code = "refused"


class InvalidRequest(Refused):
    """A field of the request is wrong; `field` is its name on the wire ("" for the whole body)."""

    code = "invalid_request"

    def __init__(self, field: str, message: str, *, code: str | None = None) -> None:
        """`message` says how the field is wrong and which values are allowed."""
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class OrderNotFound(Refused):
    """There is no such order for this account."""

    code = "order_not_found"

    def __init__(self, order_id: str) -> None:
        """The message quotes at most the first 80 characters of `order_id`."""
        super().__init__(f"There is no order {order_id[:80]!r}.")


class KeyNotFound(Refused):
    """There is no API key with this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        """The message quotes at most the first 80 characters of `key_id`."""
        super().__init__(f"There is no API key {key_id[:80]!r}.")


class UnknownCursor(Refused):
    """The database did not give this cursor of its event log."""

    code = "unknown_cursor"


class IdempotencyConflict(Refused):
    """The idempotency key belongs to an order with another body."""

    code = "idempotency_conflict"


class ClientOrderIdTaken(Refused):
    """Another order of the account has this client order id, and it is active or ended less than a day ago."""

    code = "client_order_id_taken"

    def __init__(self, client_order_id: str, existing_order_id: str) -> None:
        """`existing_order_id`: the order that has the id."""
        super().__init__(
            f"The clientOrderId {client_order_id!r} belongs to order {existing_order_id}; "
            "choose another one, or wait until a day after the end of that order."
        )
        self.existing_order_id = existing_order_id


class CancelTooLate(Refused):
    """The order cannot be cancelled any more."""

    code = "cancel_too_late"


class RateLimited(Refused):
    """Too many requests in the current window."""

    code = "rate_limited"

    def __init__(self, message: str, limit: int, retry_after_s: int) -> None:
        """`limit`: requests a minute; `retry_after_s`: whole seconds until the next one is accepted."""
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class LimitExceeded(Refused):
    """The order is beyond a limit of its account."""

    code = "limit_exceeded"

    def __init__(self, rule: str, limit: str, used: str | None, frees_at_ms: int | None, now_ms: int) -> None:
        """`rule`: such as `10 SOL a day`. `frees_at_ms`: when there is room again, or None."""
        wait_s = None if frees_at_ms is None else max(1, -(-(frees_at_ms - now_ms) // 1000))
        so_far = "" if used is None else f", and {used} are used"
        later = "" if wait_s is None else f"; there is room again in {wait_s} s"
        super().__init__(f"The account may have {rule}{so_far}{later}.")
        self.limit = limit
        self.used = used
        self.frees_at_ms = frees_at_ms
        self.retry_after_s = wait_s


class Unauthorized(Refused):
    """The API key or the ticket is not valid."""

    code = "unauthorized"


class Paused(Refused):
    """An operator has paused the account or the engine: nothing new is accepted and nothing is signed."""

    code = "paused"

    def __init__(self, reason: str) -> None:
        """`reason`: the operator's."""
        super().__init__(f"Paused by an operator: {reason or 'no reason was given'}.")
        self.reason = reason


class StepFailed(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """One step of one attempt failed before anything could execute."""

    reason = ReasonCode.VENUE_ERROR
    is_retryable = True


class VenueFailed(StepFailed):
    """The venue answered with an error."""


class QuoteTimedOut(StepFailed):
    """The venue did not answer within the deadline."""

    reason = ReasonCode.QUOTE_TIMEOUT


class NoRoute(StepFailed):
    """The venue does not trade this pair in this size; asking again gives the same answer."""

    reason = ReasonCode.NO_ROUTE
    is_retryable = False


class SlippageExceeded(StepFailed):
    """The swap would have given less than the minimum out; it did not happen."""

    reason = ReasonCode.SLIPPAGE_EXCEEDED


class ForeignFeePayer(StepFailed):
    """The transaction's fee payer is another wallet, which could sign another transaction in its place."""

    is_retryable = False


class Unavailable(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """A dependency does not answer now; trying again later is right."""


class StoreUnavailable(Unavailable):
    """The database does not answer; a write may or may not be stored."""


class ChainUnavailable(Unavailable):
    """The chain's RPC gave no clear answer; nothing is known."""


class ImpossibleAnswer(ChainUnavailable):
    """The RPC's numbers contradict those that were known when a transaction was signed."""


class WrongCluster(ChainUnavailable):
    """The RPC serves another cluster than the one that the engine's attempts were signed for."""


class WrongSchema(OrderEngineError):  # noqa: N818 - it names the cause
    """The database's schema is not the one that this version makes and reads; nothing was changed."""


class Fenced(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """Another worker holds the order's fence, or the order moved on; nothing was written."""
