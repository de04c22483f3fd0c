"""The address of a server: whether only this machine reaches it, and a socket that is bound to it."""

import socket

from alignlab.errors import mistake

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def in_url(host: str) -> str:
    """Return a host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


def address(host: str, port: int) -> str:
    """Return the URL of a server."""
    return f"http://{in_url(host)}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that does not listen yet; raises a `Mistake` where the address cannot be used."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        what = f"{address(host, port)} cannot be used ({error.strerror})"
        now = "task.port=0 takes a free port; task.host names an address of this machine"
        raise mistake("task.port", what, now) from error
    return bound
