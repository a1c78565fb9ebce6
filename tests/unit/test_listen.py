"""The address that the API listens on."""

import socket

import pytest

from order_engine.serve import listen


def test_all_addresses_are_all_of_ipv4_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no sockets for both kinds of addresses")
    with listen("::", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
        assert client.getpeername()[0] == "127.0.0.1"
