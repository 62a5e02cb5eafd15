"""A port that stays one's own: nobody else is given it while nothing listens there."""

import socket


def hold_port() -> socket.socket:
    """Return a socket that holds a free port of 127.0.0.1 until it is closed.

    A server that sets SO_REUSEADDR, as asyncio does, can listen there, end and listen again; until
    it does, connections are refused. Linux only.
    """
    holding = socket.socket()
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holding.bind(("127.0.0.1", 0))
    return holding
