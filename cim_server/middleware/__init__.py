"""Pure ASGI middleware: nothing here reads, wraps or holds back a response body."""
