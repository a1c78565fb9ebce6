"""v1 without its orders: quotes, tokens, venues, health, documents, rate limits, and unknown paths."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx2
import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from order_engine.domain.tokens import KNOWN_TOKENS
from tests.e2e.conftest import EMBEDDED, Engines
from tests.e2e.conversation import ended, place, problem_of, wait_for
from tests.servers import PostgresServer, RedisServer, machine_redis, redis_server, wheel_redis
from tests.stack import distributed_stack, market_order

# HTTP rows of api.md.
ROUTES = (
    ("POST", "/v1/orders"),
    ("GET", "/v1/orders"),
    ("DELETE", "/v1/orders"),
    ("GET", "/v1/orders/{id}"),
    ("DELETE", "/v1/orders/{id}"),
    ("GET", "/v1/orders/{id}/events"),
    ("GET", "/v1/orders/{id}/stream"),
    ("POST", "/v1/quotes"),
    ("GET", "/v1/tokens"),
    ("GET", "/v1/venues"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("POST", "/api/orders/execute"),
    ("POST", "/enqueue"),
    ("GET", "/api/orders/{id}"),
    ("GET", "/api/orders/{id}/events"),
)
LIMIT = 5

LoneApi = tuple[httpx2.Client, RedisServer, str]


# --- quotes, tokens, venues ----------------------------------------------------------------------


def test_a_quote_tells_every_venues_offer_best_first_and_changes_nothing(http: httpx2.Client) -> None:
    before = http.get("/v1/orders").content
    response = http.post("/v1/quotes", json={"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 2, "slippageBps": 100})

    assert response.status_code == 200
    answer = response.json()
    assert (answer["tokenIn"], answer["tokenOut"], answer["amountIn"], answer["slippageBps"]) == (
        "SOL",
        "USDC",
        "2",
        100,
    )
    best, other = answer["quotes"]
    assert Decimal(best["amountOut"]) >= Decimal(other["amountOut"])
    assert (best["chosen"], other["chosen"], answer["venue"]) == (True, False, best["venue"])
    assert {best["venue"]: best["feeBps"], other["venue"]: other["feeBps"]} == {"raydium": 30, "meteora": 20}
    for quote in (best, other):
        least = Decimal(quote["amountOut"]) * 99 / 100
        assert Decimal(quote["minAmountOut"]) == least.quantize(Decimal("0.000001"), ROUND_DOWN)
        assert quote["priceImpactBps"] >= 0
        assert quote["error"] is None
    assert answer["marginBps"] >= 0
    assert http.get("/v1/orders").content == before


def test_a_quote_that_no_venue_can_give_says_why(http: httpx2.Client) -> None:
    answer = http.post("/v1/quotes", json={"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "9000000000"}).json()
    assert answer["venue"] is None
    assert answer["slippageBps"] == 50
    assert [bool(quote["error"]) for quote in answer["quotes"]] == [True, True]


def test_the_tokens_are_listed_with_mint_and_decimals(http: httpx2.Client) -> None:
    tokens = {token["symbol"]: token for token in http.get("/v1/tokens").json()["tokens"]}
    decimals = {symbol: token["decimals"] for symbol, token in tokens.items()}
    nines, sixes = ("SOL", "wSOL", "mSOL", "JitoSOL"), ("USDC", "USDT", "JUP", "RAY")
    assert decimals.items() >= (dict.fromkeys(nines, 9) | dict.fromkeys(sixes, 6) | {"BONK": 5}).items()
    assert decimals == {token.symbol: token.decimals for token in KNOWN_TOKENS}
    assert tokens["USDC"]["mint"] == "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
    assert tokens["BONK"]["mint"] == "DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263"


def test_the_venues_tell_how_they_are_doing(http: httpx2.Client) -> None:
    venues = http.get("/v1/venues").json()["venues"]
    assert {venue["name"] for venue in venues} == {"raydium", "meteora"}
    assert [venue["ok"] for venue in venues] == [True, True]
    assert [venue["error"] for venue in venues] == [None, None]


# --- the process ---------------------------------------------------------------------------------


def test_health_says_ok_and_ready_names_each_dependency(http: httpx2.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    ready = wait_for(lambda: http.get("/ready"), lambda answer: answer.json()["status"] == "ready")
    assert ready.status_code == 200
    assert ready.json()["reasons"] == []
    parts = ready.json()["dependencies"]
    assert {*parts} == {"store", "bus", "workers", "chain", "queue", "inDoubt", "schema", "pauses"}
    assert (parts["store"], parts["bus"], parts["workers"]) == ("ok", "ok", "1 alive")


@pytest.fixture
def lone_api(postgres: PostgresServer, tmp_path: Path) -> Iterator[LoneApi]:
    """An API with a Redis and a database that the test may take away from it."""
    database_url = asyncio.run(postgres.create_database())
    with (
        redis_server(tmp_path / "redis", program=machine_redis() or wheel_redis()) as redis,
        distributed_stack(tmp_path, database_url, redis.url) as stack,
        httpx2.Client(base_url=stack.spawn("api").url, timeout=60.0, trust_env=False) as http,
    ):
        yield http, redis, database_url
    with suppress(RuntimeError):  # The test dropped it.
        asyncio.run(postgres.drop_database(database_url))


def test_without_redis_the_engine_is_degraded_and_takes_orders(lone_api: LoneApi) -> None:
    http, redis, _ = lone_api
    redis.stop()
    degraded = wait_for(lambda: http.get("/ready"), lambda answer: answer.json()["dependencies"]["bus"] != "ok")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert degraded.json()["dependencies"]["store"] == "ok"
    assert place(http)["status"] == "pending"
    redis.start()
    well = wait_for(lambda: http.get("/ready").json(), lambda answer: answer["dependencies"]["bus"] == "ok")
    assert (well["status"], len(well["reasons"])) == ("degraded", 1)
    assert "no worker is running" in well["reasons"][0]
    order = place(http)
    assert "no worker is running" in http.get(f"/v1/orders/{order['orderId']}").json()["waitingFor"]


def test_a_database_that_takes_no_writes_makes_the_engine_unavailable(lone_api: LoneApi) -> None:
    """The database still answers `select 1`."""
    http, _, database_url = lone_api
    name = urlsplit(database_url).path.removeprefix("/")

    def set_read_only(value: str) -> None:
        async def change() -> None:
            connection = await asyncpg.connect(database_url)
            await connection.execute("set default_transaction_read_only = off")
            await connection.execute(f'alter database "{name}" set default_transaction_read_only = {value}')
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and usename = current_user"
            )
            await connection.close()

        asyncio.run(change())

    set_read_only("on")
    refused = wait_for(lambda: http.get("/ready"), lambda answer: answer.status_code != 200)
    assert (refused.status_code, refused.json()["status"]) == (503, "unavailable")
    assert "read-only" in " ".join(refused.json()["reasons"])
    set_read_only("off")
    wait_for(lambda: http.get("/ready"), lambda answer: answer.status_code == 200)


def test_without_its_database_the_engine_is_not_ready_and_says_so(lone_api: LoneApi, postgres: PostgresServer) -> None:
    http, _, database_url = lone_api
    asyncio.run(postgres.drop_database(database_url))
    ready = wait_for(lambda: http.get("/ready"), lambda answer: answer.status_code != 200)
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["dependencies"]["store"] != "ok"
    refused = http.post("/v1/orders", json=market_order())
    assert problem_of(refused, 503)["retryable"] is True
    assert int(refused.headers["retry-after"]) >= 1
    assert problem_of(http.get("/v1/orders"), 503)["retryable"] is True
    assert http.get("/health").json() == {"status": "ok"}


# --- documents -----------------------------------------------------------------------------------


def test_the_documentation_needs_nothing_from_another_host(http: httpx2.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    text = page.text + http.get("/docs/start.js").text
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", text)
    loaded = [address for address in addresses if not address.startswith("data:")]
    assert "/openapi.json" in loaded
    assert len(loaded) >= 3
    for address in loaded:
        assert re.match(r"/[^/]", address), address
        assert http.get(address).status_code == 200, address
    assert not re.findall(r"url\((?!['\"]?data:)[^)]+\)|@import", http.get("/docs/assets/swagger-ui.css").text)


def test_the_document_is_valid_openapi_and_has_every_route(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    jsonschema_rs.validator_for(OPENAPI_31).validate(document)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    routes = {
        (method.upper(), re.sub(r"{\w+}", "{id}", path))
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert set(ROUTES) <= routes
    for path in document["paths"]:  # Every path in the document exists.
        assert http.options(re.sub(r"{\w+}", "nobody", path)).json()["code"] != "no_such_path"


def test_every_compatible_request_is_documented_and_its_example_is_accepted(http: httpx2.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    compatible = {
        (method.upper(), path): operation
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation["tags"] == ["compatibility"]
    }
    told = json.dumps([*compatible.values()])
    assert all(websocket in told for websocket in ("?orderId=", "/ws", "`/orders/{", "first frame"))
    examples = {
        (path, name): example["value"]
        for (method, path), operation in compatible.items()
        if method == "POST"
        for name, example in operation["requestBody"]["content"]["application/json"]["examples"].items()
    }
    assert {name for path, name in examples if path == "/api/orders/execute"} >= {
        "market_execute",
        "minimal",
        "typed",
        "job_queue",
    }
    for (path, _), body in examples.items():
        assert http.post(path, json=body).status_code == 200


# --- rate limits ---------------------------------------------------------------------------------


def test_too_many_orders_in_a_minute_are_refused_but_no_replay_is(engines: Engines, shape: str) -> None:
    order, headers = market_order(), {"Idempotency-Key": "early"}
    with engines.get(shape, MOCK_DELAY_SCALE="0", API_MAX_ORDERS_PER_MIN=str(LIMIT)).client() as http:
        first = http.post("/v1/orders", json=order, headers=headers)
        more = [http.post("/v1/orders", json=order)]
        # A new window may begin in between: the orders of two windows are the maximum.
        while more[-1].status_code == 202 and len(more) < 2 * LIMIT:
            more.append(http.post("/v1/orders", json=order))
        *accepted, refused = more

        assert first.headers["ratelimit-limit"] == str(LIMIT)
        assert int(first.headers["ratelimit-remaining"]) == LIMIT - 1
        assert 1 <= int(first.headers["ratelimit-reset"]) <= 120
        assert len(accepted) >= LIMIT - 1
        problem = problem_of(refused, 429)
        assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        replay = http.post("/v1/orders", json=order, headers=headers)
        assert (replay.status_code, replay.headers["idempotent-replayed"]) == (202, "true")
        assert replay.content == first.content
        conflict = http.post("/v1/orders", json=market_order("2"), headers=headers)
        assert problem_of(conflict, 422)["code"] == "idempotency_conflict"
        for path, body in (
            ("/api/orders/execute", {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}),
            ("/enqueue", {"orderId": "x"}),
        ):
            problem_of(http.post(path, json=body), 429)
        assert refused.headers["ratelimit-limit"] == str(LIMIT)
        assert refused.headers["ratelimit-remaining"] == "0"
        assert len(http.get("/v1/orders").json()["orders"]) == 1 + len(accepted)


def test_too_many_quotes_in_a_minute_are_refused_and_orders_are_not(engines: Engines, shape: str) -> None:
    asked = {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1}
    with engines.get(shape, MOCK_DELAY_SCALE="0", API_MAX_QUOTES_PER_MIN=str(LIMIT)).client() as http:
        more = [http.post("/v1/quotes", json=asked)]
        while more[-1].status_code == 200 and len(more) <= 2 * LIMIT:
            more.append(http.post("/v1/quotes", json=asked))
        *answered, refused = more
        assert answered[0].headers["ratelimit-limit"] == str(LIMIT)
        assert int(answered[0].headers["ratelimit-remaining"]) == LIMIT - 1
        assert len(answered) >= LIMIT
        assert "quotes in a minute" in problem_of(refused, 429)["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert refused.headers["ratelimit-remaining"] == "0"
        problem_of(http.get("/v1/venues"), 429)  # It asks every venue too.
        place(http)


def test_without_a_limit_there_are_no_limit_headers(http: httpx2.Client) -> None:
    quote = {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1}
    for path, body in (("/v1/orders", market_order()), ("/v1/quotes", quote)):
        assert not [name for name in http.post(path, json=body).headers if name.startswith("ratelimit")]


# --- unknown paths and methods -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/nope", "/v1/orders/", "/v1/orders/x/nope", "/api/nope"])
def test_an_unknown_path_is_a_404_problem(http: httpx2.Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        problem_of(http.request(method, path), 404)


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_a_wrong_method_is_a_405_problem_that_names_the_right_ones(http: httpx2.Client, path: str) -> None:
    right = {method for method, its_path in ROUTES if its_path == path}
    also = {"HEAD", "OPTIONS"}
    if path == "/api/orders/execute":
        also.add("GET")  # The WebSocket's path; over HTTP it is an order with the id `execute`.
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - right - also:
        response = http.request(method, path.replace("{id}", "nobody"))
        problem_of(response, 405)
        assert set(re.split(r"\s*,\s*", response.headers["allow"])) - also == right


def test_a_websocket_path_says_so_over_http(http: httpx2.Client) -> None:
    problem_of(http.get("/ws"), 426)


def test_an_accepted_request_id_comes_back_and_an_odd_one_is_replaced(engines: Engines) -> None:
    with engines.get(EMBEDDED, MOCK_DELAY_SCALE="0").client() as http:
        assert http.get("/health", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        problem = problem_of(http.get("/nope", headers={"X-Request-Id": "mine-2"}), 404)
        assert problem["requestId"] == "mine-2"
        for odd in ("", "a b", "x" * 129, "é"):
            answered = http.get("/health", headers={"X-Request-Id": odd.encode()}).headers["x-request-id"]
            assert answered != odd
            assert re.fullmatch(r"[\x21-\x7e]{1,128}", answered)


def test_an_order_stays_what_it_was_when_asked_about(http: httpx2.Client) -> None:
    order = ended(http, place(http)["orderId"])
    path = f"/v1/orders/{order['orderId']}"
    assert http.get(path).content == http.get(path).content
    assert http.head(path).status_code == 200
    assert http.head(path).content == b""
