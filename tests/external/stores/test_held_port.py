import socket

import pytest

from curitorch.external.stores.testing.held_port import hold_port


def test_a_held_port_is_for_one_server_after_the_other_and_for_nobody_else():
    with hold_port() as holding:
        address = holding.getsockname()
        for _ in range(2):
            with (
                socket.create_server(address) as server,  # which sets SO_REUSEADDR
                socket.create_connection(address),
                server.accept()[0],
            ):
                pass
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
        with socket.socket() as another, pytest.raises(OSError, match="already in use"):
            another.bind(address)
