"""The same bytes with the same key are a replay, also after the engine's settings have changed."""

import json
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.conftest import Engine
from tests.stack import embedded_stack


def tokens_file(directory: Path, *entries: dict[str, Any]) -> str:
    path = directory / "tokens.json"
    path.write_text(json.dumps(entries))
    return str(path)


def test_a_replay_is_one_after_a_change_of_defaults_and_of_tokens(tmp_path: Path) -> None:
    mine = {"symbol": "MINE", "mint": "9n4nbM75f5Ui33ZbPYXn59EwSgE8CGsHtAeTH5YFeJ9E", "decimals": 6}
    body = b'{"type":"market","tokenIn":"MINE","tokenOut":"USDC","amountIn":"1.123456","metadata":{"a":1,"b":2}}'
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    file = tokens_file(tmp_path, mine | {"referencePriceUsd": "2"})
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0", TOKENS_FILE=file) as stack:
        up = stack.spawn("up")
        first = httpx2.post(f"{up.url}/v1/orders", content=body, headers=headers, trust_env=False)
        assert first.status_code == 202, first.text
        up.terminate()
        # Another default slippage, then fewer decimals, then no such token at all.
        for entries in ((mine,), (mine | {"decimals": 2},), ()):
            tokens_file(tmp_path, *entries)
            up.start(DEFAULT_SLIPPAGE_BPS="77")
            again = httpx2.post(f"{up.url}/v1/orders", content=body, headers=headers, trust_env=False)
            assert (again.status_code, again.headers.get("idempotent-replayed")) == (202, "true"), again.text
            assert again.json()["orderId"] == first.json()["orderId"]
            turned = body.replace(b'{"a":1,"b":2}', b'{"b":2,"a":1}')
            assert httpx2.post(f"{up.url}/v1/orders", content=turned, headers=headers, trust_env=False).is_success
            other = body.replace(b"1.123456", b"1.1")
            refused = httpx2.post(f"{up.url}/v1/orders", content=other, headers=headers, trust_env=False)
            assert (refused.status_code, refused.json()["code"]) in (
                (422, "idempotency_conflict"),
                (422, "unknown_token"),
            )
            up.terminate()


def test_a_replay_is_one_on_the_compatible_routes_too(tmp_path: Path) -> None:
    mine = {"symbol": "MINE", "mint": "9n4nbM75f5Ui33ZbPYXn59EwSgE8CGsHtAeTH5YFeJ9E", "decimals": 6}
    order = {"tokenIn": "MINE", "tokenOut": "USDC", "amount": "1.123456"}
    asked = {"/api/orders/execute": order, "/enqueue": {"orderId": "job-1", "payload": order}}
    file = tokens_file(tmp_path, mine | {"referencePriceUsd": "2"})

    def place(url: str, path: str) -> httpx2.Response:
        headers = {"Idempotency-Key": "job-1"}
        return httpx2.post(f"{url}{path}", json=asked[path], headers=headers, trust_env=False)

    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0", TOKENS_FILE=file) as stack:
        up = stack.spawn("up")
        first = {path: place(up.url, path).json()["jobId"] for path in asked}
        up.terminate()
        for entries in ((mine | {"decimals": 2},), ()):
            tokens_file(tmp_path, *entries)
            up.start()
            for path, job_id in first.items():
                again = place(up.url, path)
                assert (again.status_code, again.json().get("jobId")) == (200, job_id), again.text
                assert again.json()["idempotent"] is True
            up.terminate()


def test_a_name_that_no_order_can_have_is_refused_whatever_else_is_wrong(engine: Engine) -> None:
    body = {"orderId": "a\0b", "payload": {"tokenIn": "GONE", "tokenOut": "USDC", "amount": 1}}
    refused = httpx2.post(f"{engine.url}/enqueue", json=body, trust_env=False)
    assert refused.status_code == 400, refused.text
