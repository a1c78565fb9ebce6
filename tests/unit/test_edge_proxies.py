"""Only a trusted proxy can name the client."""

from typing import Any

import pytest

from order_engine.api.edge import EdgePolicy
from tests.unit.edge_asks import BARE, KINDS, POLICY, PROXIED, PROXY, ask


async def seen(
    *headers: tuple[str, str], peer: str | None = PROXY, policy: EdgePolicy = PROXIED, kind: str = "http"
) -> Any:
    scope = {} if peer is None else {"client": (peer, 1)}
    answer = await ask(policy, kind, ("Host", "127.0.0.1:3000"), *headers, **scope)
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("X-Forwarded-For", "198.51.100.9")], "198.51.100.9"),
        ([("X-Forwarded-For", "1.1.1.1, 198.51.100.9")], "198.51.100.9"),
        ([("X-Forwarded-For", "198.51.100.9, 10.0.0.8, 10.0.0.9")], "198.51.100.9"),
        ([("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.9")], "198.51.100.9"),
        ([("X-Forwarded-For", "198.51.100.9:4711")], "198.51.100.9"),
        ([("X-Forwarded-For", "[2001:db8::1]:4711")], "2001:db8::/64"),
        ([("X-Forwarded-For", "2001:db8:0:1:2::9")], "2001:db8:0:1::/64"),
        ([("X-Forwarded-For", "10.0.0.8")], "10.0.0.8"),
        ([("X-Forwarded-For", "evil, 10.0.0.8")], "10.0.0.8"),
        ([("X-Forwarded-For", "evil")], PROXY),
        ([("X-Forwarded-For", "198.51.100.9, unknown")], PROXY),
        ([("X-Forwarded-For", "")], PROXY),
        ([("Forwarded", "for=198.51.100.9")], "198.51.100.9"),
        ([("Forwarded", 'for=1.1.1.1, For="[2001:db8::1]:99";proto=https')], "2001:db8::/64"),
        ([("Forwarded", "for=1.1.1.1"), ("Forwarded", "for=198.51.100.9;by=10.0.0.8, for=10.0.0.9")], "198.51.100.9"),
        ([("Forwarded", "for=_hidden")], PROXY),
        ([("Forwarded", 'for="198.51.100.9')], PROXY),
        ([("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "198.51.100.9")], PROXY),
        ([("Forwarded", "for=198.51.100.9"), ("X-Forwarded-For", "198.51.100.9")], "198.51.100.9"),
        ([], PROXY),
    ],
)
async def test_a_trusted_proxy_says_whose_request_it_is(headers: list[tuple[str, str]], client: str) -> None:
    for kind in KINDS:
        assert (await seen(*headers, kind=kind))["client"] == client
        assert (await seen(*headers, kind=kind, peer=f"::ffff:{PROXY}"))["client"] == client


@pytest.mark.asyncio
async def test_nobody_else_is_believed() -> None:
    lies = (("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1"), ("X-Forwarded-Proto", "https"))
    for policy, peer in ((PROXIED, "203.0.113.5"), (BARE, PROXY), (BARE, "127.0.0.1")):
        told = await seen(*lies, ("X-Forwarded-Host", "orders.example.com"), peer=peer, policy=policy)
        assert told == {"client": peer, "url": "http://127.0.0.1:3000/x"}


@pytest.mark.asyncio
async def test_a_trusted_proxy_says_under_which_address_it_was_called() -> None:
    headers = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "orders.example.com"))
    assert (await seen(*headers))["url"] == "https://orders.example.com/x"
    assert (await seen(*headers, kind="websocket"))["url"] == "wss://orders.example.com/x"
    element = ("Forwarded", 'for=198.51.100.9;proto=https;host="orders.example.com:8443"')
    assert (await seen(element))["url"] == "https://orders.example.com:8443/x"
    assert (await seen(("X-Forwarded-Proto", "gopher")))["url"] == "http://127.0.0.1:3000/x"
    origin = ("Origin", "https://orders.example.com")
    assert (await seen(*headers, origin))["url"] == "https://orders.example.com/x"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_rebound_name_is_refused_whatever_its_page_says_of_a_proxy(kind: str) -> None:
    # A web page can set these headers, and a proxy on this machine has the same address as its browsers.
    for host, passed in (("evil.example", "localhost"), ("localhost", "evil.example")):
        for header in (("X-Forwarded-Host", passed), ("Forwarded", f"for=127.0.0.1;host={passed}")):
            answer = await ask(PROXIED, kind, ("Host", host), header, client=("127.0.0.1", 1))
            assert answer.status == 421
    odd = await ask(PROXIED, kind, ("Host", "localhost"), ("X-Forwarded-Host", "a b"), client=("127.0.0.1", 1))
    assert odd.status == 400


@pytest.mark.asyncio
async def test_the_public_url_is_the_address_of_every_answer() -> None:
    for kind, scheme in (("http", "https"), ("websocket", "wss")):
        answer = await ask(POLICY, kind, ("Host", "127.0.0.1:3000"), ("X-Forwarded-Proto", "http"), client=(PROXY, 1))
        assert answer.json["url"] == f"{scheme}://engine.example.org/x"


@pytest.mark.asyncio
async def test_neighbours_in_an_ipv6_network_share_a_limit_and_others_do_not() -> None:
    clients = (
        "2001:db8:1:2::3",
        "2001:db8:1:2:ffff::4",
        "2001:db8:1:3::3",
        "::1",
        "::ffff:198.51.100.9",
        "198.51.100.9",
    )
    keys = [(await seen(peer=peer))["client"] for peer in clients]
    assert keys == [*["2001:db8:1:2::/64"] * 2, "2001:db8:1:3::/64", "::1", "198.51.100.9", "198.51.100.9"]
