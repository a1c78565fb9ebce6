"""Every error that the engine raises on purpose.

OrderEngineError
├── Refused                   the caller asked for something that cannot be; nothing changed
│   ├── InvalidRequest        a field is wrong (`field` names it)
│   ├── OrderNotFound
│   ├── UnknownCursor         it is not one that this database gave of its feed
│   ├── IdempotencyConflict   the key was used before with another body
│   ├── ClientOrderIdTaken    another order has this client order id (`existing_order_id`)
│   ├── CancelTooLate         the order is submitted or terminal
│   └── RateLimited           too many orders in the window (`retry_after_s`)
├── StepFailed                an attempt cannot go on; the retry policy decides what follows
│   ├── VenueFailed           the venue answered with an error
│   ├── QuoteTimedOut         the venue did not answer within the deadline
│   ├── NoRoute               no venue trades this pair in this size
│   ├── SlippageExceeded      the swap would give less than the minimum out; it did not happen
│   └── ForeignFeePayer       the route would be paid for, and so could be replaced, by another wallet
├── Unavailable               a dependency does not answer now; trying again later is right
│   ├── StoreUnavailable
│   └── ChainUnavailable
│       ├── ImpossibleAnswer  its numbers contradict what was known before
│       └── WrongCluster    it is not the cluster that the orders here are signed for
├── WrongSchema               the database was made by another version or program; nothing was changed
└── Fenced                    another worker owns the order now; whoever gets this must let go
"""

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why an order ended as it did: the closed list that the API shows."""

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
        """Name the field and say what is wrong and what is allowed."""
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class OrderNotFound(Refused):
    """There is no such order for this account."""

    code = "order_not_found"

    def __init__(self, order_id: str) -> None:
        """Quote at most the first 80 characters of what was asked for."""
        super().__init__(f"There is no order {order_id[:80]!r}.")


class UnknownCursor(Refused):
    """The cursor is not one that this database gave of its feed."""

    code = "unknown_cursor"


class IdempotencyConflict(Refused):
    """The idempotency key belongs to an order with another body."""

    code = "idempotency_conflict"


class ClientOrderIdTaken(Refused):
    """Another order of the account has this client order id, and has not ended a day ago or more."""

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
    """Too many orders in the current window."""

    code = "rate_limited"

    def __init__(self, message: str, limit: int, retry_after_s: int) -> None:
        """`limit`: orders a minute; `retry_after_s`: whole seconds until another would be taken."""
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


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
    """The transaction's fee payer is not our wallet: its signature, and so its fate, would not be ours."""

    is_retryable = False


class Unavailable(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """A dependency does not answer now; trying again later is right."""


class StoreUnavailable(Unavailable):
    """The database does not answer; what was being written may or may not be stored."""


class ChainUnavailable(Unavailable):
    """The chain's RPC does not answer; nothing is known about what was asked."""


class ImpossibleAnswer(ChainUnavailable):
    """The RPC tells numbers that cannot follow from those that were known when a transaction was signed."""


class WrongCluster(ChainUnavailable):
    """The RPC serves another cluster than the one that this engine's attempts were signed for."""


class WrongSchema(OrderEngineError):  # noqa: N818 - the thing itself
    """The database's schema is not the one that this version makes and reads; nothing was changed."""


class Fenced(OrderEngineError):  # noqa: N818 - past participles read best at `except`
    """Another worker holds the order's fence, or the order moved on; nothing was written."""
