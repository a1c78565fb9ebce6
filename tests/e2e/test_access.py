"""Keys at the door: every route and socket, by scope and account, over real servers."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from order_engine.api.door import required_scope
from order_engine.domain.access import KEY_PREFIX, write_secret
from tests.contracts.worlds import PostgresWorld, elsewhere, migrate
from tests.e2e.conversation import HANG_S, Json, ended, place, problem_of, wait_for
from tests.servers import PostgresServer, RedisServer
from tests.stack import distributed_stack, embedded_stack, market_order

UNKNOWN = write_secret(KEY_PREFIX, b"\x01" * 32)


class Guarded:
    """An engine with keys: one for each scope of the account `desk`, and one of another account."""

    def __init__(self, url: str, operate: Any, log_text: Callable[[], str], exits: ExitStack) -> None:
        self._exits = exits
        self.url = url
        self.log_text = log_text
        self.operate = operate
        self._ids: dict[str, str] = {}
        self._root = self.client(None)
        root = self.make("root", "read,trade,admin")
        self._root.headers["Authorization"] = f"Bearer {root}"
        self.keys = {
            name: self.make(account, scopes)
            for name, account, scopes in (
                ("read", "desk", "read"),
                ("trade", "desk", "trade"),
                ("both", "desk", "read,trade"),
                ("other", "other", "read,trade"),
                ("admin", "root", "read,trade,admin"),
            )
        }
        self.revoked = self.make("desk", "read,trade,admin")
        self.revoke(self.revoked)
        self.clients = {name: self.client(key) for name, key in self.keys.items()}

    def make(self, account: str, scopes: str) -> str:
        made = (
            self._root.post("/v1/keys", json={"account": account, "scopes": scopes.split(",")})
            .raise_for_status()
            .json()
        )
        self._ids[made["key"]] = made["keyId"]
        return str(made["key"])

    def revoke(self, key: str) -> None:
        self._root.delete(f"/v1/keys/{self._ids[key]}").raise_for_status()

    def client(self, key: str | None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        client = httpx2.Client(base_url=self.url, headers=headers, timeout=60.0, trust_env=False)
        return self._exits.enter_context(client)


@pytest.fixture(scope="module", params=["embedded", "distributed"])
def guarded(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    with ExitStack() as exits:
        directory = tmp_path_factory.mktemp("guarded")
        settings = {"MOCK_DELAY_SCALE": "0", "LOG_FORMAT": "json", "API_MAX_ORDERS_PER_MIN": "0"}
        if request.param == "embedded":
            stack = exits.enter_context(embedded_stack(directory, **settings))
            api = stack.spawn("up")
        else:
            database_url = asyncio.run(postgres.create_database())
            exits.callback(lambda: asyncio.run(postgres.drop_database(database_url)))
            elsewhere(lambda: migrate(PostgresWorld(database_url)))
            user_url = asyncio.run(postgres.create_user(database_url))
            stack = exits.enter_context(distributed_stack(directory, user_url, redis.url, **settings))
            api = stack.spawn("api")
            stack.spawn("worker")
        yield Guarded(api.url, stack.operate, api.log_text, exits)


def operations(guarded: Guarded) -> list[tuple[str, str, Json]]:
    document = guarded.clients["admin"].get("/openapi.json").json()
    return [(method, path, it) for path, its in document["paths"].items() for method, it in its.items()]


def asked(operation: Json, order_id: str) -> tuple[str, Json]:
    """A path and body that the operation takes."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
    return re.sub(r"{[^}]+}", order_id, operation["path"]), next((it["value"] for it in body.values()), {})


def status_of(client: httpx2.Client, method: str, path: str, body: Json) -> int:
    has_body = method in ("post", "put")
    headers = {"Accept": "text/event-stream"} if path.endswith("/stream") else {}
    with client.stream(method.upper(), path, json=body if has_body else None, headers=headers) as response:
        if response.status_code in (401, 403, 404):
            response.read()
            if response.headers["content-type"] == "application/problem+json":
                problem_of(response, response.status_code)
        return response.status_code


def test_every_route_is_closed_to_callers_without_a_valid_key(guarded: Guarded) -> None:
    order_id = place(guarded.clients["both"])["orderId"]
    strangers = {
        "no key": guarded.client(None),
        "garbage": guarded.client("garbage"),
        "a wrong checksum": guarded.client(guarded.keys["both"][:-1] + "!"),
        "an unknown key": guarded.client(UNKNOWN),
        "a revoked key": guarded.client(guarded.revoked),
    }
    for method, path, operation in operations(guarded):
        where, body = asked({**operation, "path": path}, order_id)
        is_public = required_scope(path, method.upper()) is None
        for name, client in strangers.items():
            status = status_of(client, method, where, body)
            assert (status == 401) is not is_public, (name, method, path, status)
            assert status == 401 or is_public


def test_every_route_asks_for_its_scope(guarded: Guarded) -> None:
    order_id = place(guarded.clients["both"])["orderId"]
    ended(guarded.clients["read"], order_id)
    for method, path, operation in operations(guarded):
        where, body = asked({**operation, "path": path}, order_id)
        needed = required_scope(path, method.upper())
        if needed is None:
            continue
        assert operation["x-required-scope"] == needed.value
        for name, granted in (("read", {"read"}), ("trade", {"trade"}), ("both", {"read", "trade"})):
            if needed.value not in granted:
                assert status_of(guarded.clients[name], method, where, body) == 403, (name, method, path)


def test_a_foreign_order_differs_in_nothing_from_an_unknown_one(guarded: Guarded) -> None:
    mine = ended(guarded.clients["both"], place(guarded.clients["both"], clientOrderId="mine")["orderId"])
    stranger, unknown = guarded.clients["other"], "01890000-0000-7000-8000-000000000000"
    for path in ("/v1/orders/{}", "/v1/orders/{}/events", "/v1/orders/{}/stream", "/api/orders/{}", "/jobs/{}"):
        headers = {"Accept": "text/event-stream", "X-Request-Id": "same"}
        answers = [stranger.get(path.format(it), headers=headers) for it in (mine["orderId"], unknown)]
        told = [(it.status_code, it.text.replace(mine["orderId"], unknown), sorted(it.headers)) for it in answers]
        assert told[0] == told[1]
        assert answers[0].status_code == 404
    assert stranger.delete(f"/v1/orders/{mine['orderId']}").status_code == 404
    assert stranger.get("/v1/orders/mine").status_code == 404
    assert stranger.get("/v1/orders", params={"clientOrderId": "mine"}).json()["orders"] == []
    # Another account may have the same client order id and the same idempotency key.
    theirs = stranger.post("/v1/orders", json=market_order("1", clientOrderId="mine"), headers={"Idempotency-Key": "k"})
    ours = guarded.clients["both"].post("/v1/orders", json=market_order("1"), headers={"Idempotency-Key": "k"})
    assert (theirs.status_code, ours.status_code) == (202, 202)
    assert theirs.json()["orderId"] != ours.json()["orderId"]


def test_an_admin_reads_every_account_and_nobody_else_does(guarded: Guarded) -> None:
    order_id = place(guarded.clients["both"])["orderId"]
    admin = guarded.clients["admin"]
    assert admin.get(f"/v1/orders/{order_id}").status_code == 404
    assert admin.get(f"/v1/orders/{order_id}", params={"account": "desk"}).status_code == 200
    assert guarded.clients["other"].get(f"/v1/orders/{order_id}", params={"account": "desk"}).status_code == 403
    assert guarded.clients["both"].get(f"/v1/orders/{order_id}", params={"account": "desk"}).status_code == 200


SOCKETS = ("/v1/stream", "/v1/orders/{}/stream", "/api/orders/execute?orderId={}", "/orders/{}", "/ws", "/ws-exec")


async def opened(guarded: Guarded, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    url = guarded.url.replace("http", "ws", 1) + path
    try:
        async with asyncio.timeout(HANG_S), connect(url, additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as error:
        return int(error.response.status_code)


@pytest.mark.asyncio
async def test_every_socket_is_closed_without_a_key_and_to_other_accounts(guarded: Guarded) -> None:
    order_id = place(guarded.clients["both"])["orderId"]
    for template in (*SOCKETS, "/a/path/that/comes/tomorrow"):
        path = template.format(order_id)
        for key in (None, "garbage", UNKNOWN, guarded.revoked):
            assert await opened(guarded, path, key) == 401, path
    for template in SOCKETS:
        path, is_of_order = template.format(order_id), "{}" in template
        key = guarded.keys["trade" if template == "/ws-exec" else "read"]
        assert await opened(guarded, path, key) == 101, path
        if is_of_order:
            assert await opened(guarded, path, guarded.keys["other"]) == 404, path
    assert await opened(guarded, "/ws-exec", guarded.keys["read"]) == 403
    assert await opened(guarded, "/api/orders/execute", guarded.keys["read"]) == 403


@pytest.mark.asyncio
async def test_an_account_stream_has_the_orders_of_its_account_alone(guarded: Guarded) -> None:
    url = guarded.url.replace("http", "ws", 1) + "/v1/stream"
    headers = {"Authorization": f"Bearer {guarded.keys['other']}"}
    async with asyncio.timeout(HANG_S), connect(url, additional_headers=headers, proxy=None) as watching:
        await watching.recv()
        # In a thread: a client that reads nothing meanwhile may be closed.
        theirs = await asyncio.to_thread(place, guarded.clients["both"])
        await asyncio.to_thread(ended, guarded.clients["both"], theirs["orderId"])
        order_id = (await asyncio.to_thread(place, guarded.clients["other"]))["orderId"]
        seen: list[Json] = []
        while not seen or seen[-1]["status"] != "confirmed":
            seen += json.loads(await watching.recv())["events"]
    assert {event["orderId"] for event in seen} == {order_id}


@pytest.mark.asyncio
async def test_a_ticket_opens_one_stream(guarded: Guarded) -> None:
    answer = guarded.clients["read"].post("/v1/tickets")
    ticket = answer.json()["ticket"]
    assert answer.headers["cache-control"] == "no-store"
    assert await opened(guarded, f"/v1/stream?ticket={ticket}", None) == 101
    assert await opened(guarded, f"/v1/stream?ticket={ticket}", None) == 401
    ticket = guarded.clients["read"].post("/v1/tickets").json()["ticket"]
    # A ticket is for streams alone, and is not used up where it is refused.
    assert guarded.client(None).get("/v1/orders", params={"ticket": ticket}).status_code == 401
    with guarded.client(None).stream("GET", "/v1/stream", params={"ticket": ticket}) as response:
        assert response.status_code == 200
    assert (
        await opened(guarded, f"/ws-exec?ticket={guarded.clients['read'].post('/v1/tickets').json()['ticket']}", None)
        == 403
    )


@pytest.mark.asyncio
async def test_a_revoked_key_is_dead_within_5_s_and_its_streams_end(guarded: Guarded) -> None:
    key = guarded.make("desk", "read,trade")
    client = guarded.client(key)
    order_id = place(client)["orderId"]
    url = guarded.url.replace("http", "ws", 1) + "/v1/stream"
    async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None) as watching:
        await watching.recv()
        guarded.revoke(key)
        async with asyncio.timeout(HANG_S):
            with suppress(ConnectionClosed):
                async for _ in watching:
                    pass
        assert watching.close_code == 1008
    wait_for(lambda: client.get(f"/v1/orders/{order_id}").status_code, lambda status: status == 401)


def test_the_api_makes_lists_and_revokes_keys_and_keeps_a_log_of_it(guarded: Guarded) -> None:
    admin = guarded.clients["admin"]
    made = admin.post("/v1/keys", json={"account": "third", "scopes": ["read"], "label": "a bot", "expiresInDays": 1})
    key = made.json()
    assert made.headers["cache-control"] == "no-store"
    assert guarded.client(key["key"]).get("/v1/orders").json()["orders"] == []
    listed = admin.get("/v1/keys").json()["keys"]
    assert key["key"] not in json.dumps(listed)
    assert {it["keyId"]: it["label"] for it in listed}[key["keyId"]] == "a bot"
    assert admin.delete(f"/v1/keys/{key['keyId']}").json()["revokedAt"] is not None
    assert guarded.client(key["key"]).get("/v1/orders").status_code == 401
    problem_of(admin.delete("/v1/keys/nobody"), 404)
    problem_of(admin.post("/v1/keys", json={"account": "no/account"}), 422, "account")
    actions = [(it["action"], it["subject"]) for it in admin.get("/v1/audit").json()["entries"]]
    assert actions[:2] == [("key.revoke", key["keyId"]), ("key.create", key["keyId"])]


def test_a_pause_refuses_orders_with_its_reason_until_it_is_resumed(guarded: Guarded) -> None:
    trader, other, admin = guarded.clients["both"], guarded.clients["other"], guarded.clients["admin"]
    known = trader.post("/v1/orders", json=market_order("1"), headers={"Idempotency-Key": "before-the-pause"})
    assert admin.post("/v1/pause", json={"account": "desk", "reason": "wrong prices"}).status_code == 200
    refused = problem_of(trader.post("/v1/orders", json=market_order("1")), 503)
    assert (refused["code"], refused["detail"]) == ("paused", "Paused by an operator: wrong prices.")
    again = trader.post("/v1/orders", json=market_order("1"), headers={"Idempotency-Key": "before-the-pause"})
    assert again.json()["orderId"] == known.json()["orderId"]
    assert trader.post("/enqueue", json={"orderId": "paused", "payload": {}}).status_code == 503
    place(other)
    assert guarded.operate("pause", "--reason", "everything").returncode == 0
    wait_for(lambda: other.post("/v1/orders", json=market_order("1")).status_code, lambda status: status == 503)
    ready = wait_for(lambda: admin.get("/ready").json(), lambda it: "everything" in it["dependencies"]["pauses"])
    assert ready["status"] == "degraded"
    guarded.operate("resume")
    assert admin.post("/v1/resume", json={"account": "desk"}).json() == {"pauses": []}
    wait_for(lambda: trader.post("/v1/orders", json=market_order("1")).status_code, lambda status: status == 202)


def test_many_orders_are_cancelled_at_once_after_a_dry_run(guarded: Guarded) -> None:
    trader, admin = guarded.clients["both"], guarded.clients["admin"]
    admin.post("/v1/pause", json={"account": "slow"})
    slow = guarded.client(guarded.make("slow", "read,trade"))
    admin.post("/v1/resume", json={"account": "slow"})
    wait_for(lambda: slow.get("/v1/orders").status_code, lambda status: status == 200)
    dry = trader.delete("/v1/orders", params={"dryRun": "true"}).json()
    assert (dry["dryRun"], dry["cancelled"]) == (True, [])
    done = slow.delete("/v1/orders").json()
    assert (done["dryRun"], done["matched"], done["hasMore"]) == (False, 0, False)
    problem_of(trader.delete("/v1/orders", params={"status": "confirmed"}), 422, "status")
    problem_of(trader.delete("/v1/orders", params={"limit": "1"}), 422, "limit")


def test_no_secret_is_in_a_log_or_a_problem(guarded: Guarded) -> None:
    for key in (UNKNOWN, guarded.revoked):
        answer = guarded.client(key).get("/v1/orders")
        assert key not in answer.text + str(answer.headers)
    shown = guarded.operate("keys", "list").stdout + guarded.operate("audit").stdout + guarded.log_text()
    for secret in (*guarded.keys.values(), guarded.revoked):
        assert secret not in shown


def test_an_engine_without_keys_serves_this_machine_alone(tmp_path: Path) -> None:
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0") as stack:
        api = stack.spawn("up")
        wait_for(api.log_text, lambda text: "no api key" in text)
        with httpx2.Client(base_url=api.url, trust_env=False) as anybody:
            assert anybody.get("/v1/keys").json() == {"keys": []}
            made = anybody.post("/v1/keys", json={"account": "default"}).json()
            problem_of(anybody.get("/v1/orders"), 401)
            assert anybody.get("/v1/orders", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 200


def test_other_machines_are_served_only_with_a_key(tmp_path: Path) -> None:
    with embedded_stack(tmp_path, HOST="0.0.0.0") as stack:  # noqa: S104 - that is tested
        refused = stack.operate("up")
        assert refused.returncode == 2
        assert "keys create --account" in refused.stderr
        stack.operate("keys", "create", "--account", "desk")
        answer = httpx2.get(f"{stack.spawn('up').url}/v1/orders", trust_env=False)
        assert problem_of(answer, 401)["code"] == "unauthorized"


def test_measurements_are_for_this_machine_or_for_their_scope(guarded: Guarded) -> None:
    ended(guarded.clients["both"], place(guarded.clients["both"])["orderId"])
    problem_of(guarded.clients["both"].post("/v1/orders", json={}), 422, "type")
    text = httpx2.get(f"{guarded.url}/metrics", trust_env=False).raise_for_status().text
    for name in (
        "orders_accepted_total",
        'requests_refused_total{code="invalid_request"}',
        "batch_orders_bucket",
        "store_up 1",
    ):
        assert f"order_engine_{name}" in text
    assert not any(secret in text for secret in guarded.keys.values())
    # A request that came through a proxy is not from this machine.
    proxied = {"X-Forwarded-For": "198.51.100.7"}
    assert guarded.client(None).get("/metrics", headers=proxied).status_code == 401
    assert guarded.clients["admin"].get("/metrics", headers=proxied).status_code == 403
    reader = guarded.client(guarded.make("ops", "metrics"))
    assert reader.get("/metrics", headers=proxied).status_code == 200
    assert reader.get("/v1/orders").status_code == 403


def test_limits_of_an_account_hold_for_all_its_orders_and_say_what_is_used(guarded: Guarded) -> None:
    trader = guarded.client(guarded.make("limited", "read,trade"))
    change = ("limits", "set", "--account", "limited")
    assert guarded.operate(*change, "--per-day", "SOL=10", "--per-order", "SOL=2").returncode == 0
    refused = problem_of(trader.post("/v1/orders", json=market_order("2.5")), 409)
    assert (refused["code"], refused["detail"]) == ("limit_exceeded", "The account may have 2 SOL an order.")
    with ThreadPoolExecutor(16) as threads:
        answers = [*threads.map(lambda _: trader.post("/v1/orders", json=market_order("1")), range(64))]
    assert sorted(it.status_code for it in answers) == [202] * 10 + [429] * 54
    late = next(it for it in answers if it.status_code == 429)
    assert problem_of(late, 429)["retryable"]
    assert int(late.headers["retry-after"]) > 0
    assert "10 SOL are used" in late.json()["detail"]
    assert len(trader.get("/v1/orders").json()["orders"]) == 10
    listed = [json.loads(line) for line in guarded.operate("limits", "show", "--json").stdout.splitlines()]
    assert [it["account"] for it in listed] == ["limited"]
    assert guarded.operate(*change, "--per-day", "SOL").returncode == 2
