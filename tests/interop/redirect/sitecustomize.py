"""Loaded by Python where no namespace is allowed: the names under test lead to the ports on which the service listens.

Nothing else of a process is changed.
"""

import os
import socket

_names = set(os.environ.get("INTEROP_NAMES", "").split())
_ports = dict(tuple(map(int, pair.split("="))) for pair in os.environ.get("INTEROP_REDIRECT", "").split(",") if pair)
_getaddrinfo = socket.getaddrinfo


def _redirected(host, port, *args, **kwargs):
    if host in _names and port is not None and int(port) in _ports:
        host, port = "127.0.0.1", _ports[int(port)]
    return _getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = _redirected
