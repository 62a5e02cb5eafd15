"""The client of the TCP store: connections, uploads, downloads, the lease."""

from .tcp_store import TcpStore

__all__ = ["TcpStore"]
