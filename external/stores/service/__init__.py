"""The server's side of the TCP store: what happens to a request, and what lies on the disk."""
