"""Fetching from the network, one request at a time, from checked addresses only.

A name is resolved once, every address it resolves to is checked, and the connection goes to a checked address: a name
that answers differently a moment later (DNS rebinding) changes nothing. Redirects are returned, not followed, so that
whoever follows one comes back here and is checked again. Proxies that the environment names are not used.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from midtrain_dagster.collect.records import because

PIECE = 64 << 10
REDIRECTS = (301, 302, 303, 307, 308)
EMBEDDING = [
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")
]  # IPv4 in the last 32 bits
PATH = "/%:@!$&'()*+,;=~-._"


class NotFetched(Exception):
    """Why an address gave no response; its arguments are a reason and a detail, as a reject has them."""


class Response(NamedTuple):
    """What a server answered; the body as sent, its content encoding still on."""

    url: str
    status: int
    fields: Mapping[str, str]  # names in lower case
    body: bytes


class Fetch(Protocol):
    """What collectors need of a network."""

    def __call__(self, url: str, limit: int, headers: Mapping[str, str] | None = None) -> Response:
        """The response to GET; raises NotFetched, also for a body of more than `limit` bytes."""


class Network:
    """A Fetch over HTTP and HTTPS."""

    def __init__(self, agent: str, allow_private: bool = False, seconds: float = 30.0):
        """`seconds`: for one whole request. `allow_private`: private, loopback and link-local addresses too."""
        self.agent, self.allow_private, self.seconds = agent, allow_private, seconds

    def __call__(self, url: str, limit: int, headers: Mapping[str, str] | None = None) -> Response:
        parts, host, port = _split(url)
        address = checked(host, port, self.allow_private)
        connection = http.client.HTTPConnection(host, port, timeout=self.seconds)
        timer: threading.Timer | None = None
        try:
            raw = socket.create_connection((address, port), timeout=self.seconds)
            connection.sock = raw
            timer = threading.Timer(self.seconds, _cut, [raw])  # a server that sends a byte now and then never times out
            timer.daemon = True
            timer.start()
            if parts.scheme == "https":
                connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
            target = quote(parts.path or "/", safe=PATH) + (f"?{quote(parts.query, safe=PATH + '?')}" if parts.query else "")
            name = f"[{host}]" if ":" in host else host
            shown = name if parts.port is None else f"{name}:{port}"
            fields = {
                "Host": shown,
                "User-Agent": self.agent,
                "Accept-Encoding": "gzip",
                "Connection": "close",
                **(headers or {}),
            }
            connection.request("GET", target, headers=fields)
            return _received(url, connection.getresponse(), limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotFetched("not fetched", f"{url}: {because(error)}"[:300]) from None
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()


def _split(url: str) -> tuple[SplitResult, str, int]:
    """An address and its host and port; raises NotFetched for what is none of the web."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").encode("idna").decode("ascii") if ":" not in (parts.hostname or "") else parts.hostname
    except (ValueError, UnicodeError) as error:
        raise NotFetched("bad address", f"{url}: {because(error)}"[:300]) from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise NotFetched("bad address", f"{url}: not a plain http or https address"[:300])
    return parts, host, port


def checked(host: str, port: int, allow_private: bool) -> str:
    """An IP address of a host; raises NotFetched where any of its addresses is not one of the public internet."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotFetched("unknown host", f"{host}: {because(error)}"[:300]) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    private = [address for address in addresses if not public(address)]
    if private and not allow_private:
        raise NotFetched("private address", f"{host} is {private[0]}; allow_private in the source's settings permits it"[:300])
    return addresses[0]


def public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where it carries an IPv4 address inside."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and any(ip in network for network in EMBEDDING):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _received(url: str, response: http.client.HTTPResponse, limit: int) -> Response:
    fields = {name.lower(): value for name, value in response.getheaders()}
    body = bytearray()
    while piece := response.read1(PIECE):
        body += piece
        if len(body) > limit:
            raise NotFetched("record too large", f"{url}: more than {limit} bytes"[:300])
    if response.length:
        raise NotFetched("truncated response", f"{url}: {response.length} bytes are missing"[:300])
    fields.pop("transfer-encoding", None)  # undone here
    return Response(url, response.status, fields, bytes(body))


def redirection(response: Response) -> str | None:
    """Where a response redirects to, as a full address; None where it does not."""
    target = response.fields.get("location")
    try:
        return urljoin(response.url, target) if response.status in REDIRECTS and target else None
    except ValueError:
        return None


def followed(fetch: Fetch, url: str, limit: int, headers: Mapping[str, str] | None = None, hops: int = 5) -> Response:
    """The response at the end of at most `hops` redirects; raises NotFetched."""
    for _ in range(hops + 1):
        response = fetch(url, limit, headers)
        target = redirection(response)
        if target is None:
            return response
        url = target
    raise NotFetched("too many redirects", url[:300])
