"""Whether a server answers, before a library waits for it."""

import socket
import urllib.request
from urllib.parse import urlsplit


def can_connect(url: str) -> bool:
    """Return whether the server of a URL, or the proxy that leads to it, accepts connections.

    Args:
        url: Address such as ``https://host:port``.
    """
    address = urlsplit(url)
    host = address.hostname or ""
    proxy = urllib.request.getproxies().get(address.scheme)
    target = urlsplit(proxy) if proxy and not urllib.request.proxy_bypass(host) else address
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True
