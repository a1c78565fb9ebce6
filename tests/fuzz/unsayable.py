"""Refusals of requests that fit the document: rules that a JSON schema cannot say, each with its reason."""

from typing import Final

_AGREE: Final = "two fields that say one thing must agree"
_SPELLING: Final = "a schema knows no spelling: 7 and 7.0 are one whole number to it"
_IN_TEXT: Final = "its bytes, its depth and NUL in it are counted in the text"
_UNICODE: Final = "a surrogate without its partner is JSON text, but is no Unicode"
_TAKEN: Final = "a name may not be the id of another order"
# By the problem's code and field; `payload.amount` counts as `amount`. The second text is in the problem's detail.
UNSAYABLE: Final = {
    ("same_token", "tokenOut"): ("the two tokens must differ", "must differ"),
    ("same_token", "symbol"): ("both halves of the pair must differ", "must differ"),
    ("invalid_amount", "amountIn"): ("the token decides how many decimals and how much; a number has one spelling", ""),
    ("invalid_amount", "amount"): ("the same", ""),
    ("invalid_request", "amount"): (_AGREE, "differs"),
    ("invalid_request", "symbol"): (_AGREE, "differs"),
    ("unknown_token", "symbol"): (_AGREE, ""),
    ("invalid_request", "slippageBps"): (_SPELLING, ""),
    ("invalid_request", "expiresInDays"): (_SPELLING, ""),
    ("invalid_request", "metadata"): (_IN_TEXT, ""),
    ("invalid_request", "payload"): (_IN_TEXT, ""),
    ("malformed_json", "metadata"): (_UNICODE, ""),
    ("malformed_json", "payload"): (_UNICODE, ""),
    ("unknown_field", "payload"): ("a job's payload holds anything but words of other order types", "not honoured"),
    ("invalid_request", "clientOrderId"): (_TAKEN, "another order"),
    ("invalid_request", "orderId"): (_TAKEN, "another order"),
    ("idempotency_conflict", None): ("an earlier request used the key with another body", ""),
    ("invalid_request", "after"): ("the order decides how far its history goes", "ahead"),
    ("invalid_request", "Last-Event-ID"): ("the same", "ahead"),
}
# Checks of schemathesis that are not run.
UNCHECKED: Final = {
    "positive_data_acceptance": "made by tests/fuzz/checks.py, which knows the rules above",
    "use_after_free": "DELETE cancels an order, which stays readable",
}
# Operations that are not called: an accepted request has no end, and a pause refuses all orders after it.
UNCALLED: Final = ("/v1/stream", "/v1/pause")


def key_of(code: str | None, field: str | None) -> tuple[str | None, str | None]:
    """Return the key in UNSAYABLE of a problem."""
    _, is_inner, inner = (field or "").partition("payload.")
    if is_inner and code != "unknown_field":
        return code, inner
    return code, "payload" if is_inner else field
