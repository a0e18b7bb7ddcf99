"""Chat completions over the wire: what the endpoint answered, or why it did not.

The openai client says where and as whom: address, key and headers are its own, whatever the environment adds to them. It does not
send the requests: that takes it 3 ms of a core each, so one core could keep no more than 300 a second in flight. aiohttp takes
0.5 ms.
"""

import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

COMPLETIONS = "chat/completions"
DETAIL = 1000  # characters of an error's body that are read
CONNECT = 30.0  # seconds to get a connection


class Unanswered(Exception):
    """No answer came: `reason` is `timeout` or `connection`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass
class Refused(Exception):
    """The endpoint answered with a status other than success."""

    status: int
    retry_after: str | None
    detail: str


class Wire:
    """An endpoint's connections, kept open between requests, from `open` to `close`."""

    def __init__(self, base_url: str | None, key: str, timeout: float):
        self._base_url, self._key, self._timeout = base_url, key, timeout
        self._session: Any = None
        self._url = ""

    async def open(self) -> None:
        """Make ready to post."""
        import aiohttp
        import openai

        async with openai.AsyncOpenAI(api_key=self._key, base_url=self._base_url) as client:
            self._url = f"{str(client.base_url).rstrip('/')}/{COMPLETIONS}"
            told = {**client.default_headers, **client.auth_headers}
            headers = {name: value for name, value in told.items() if isinstance(value, str)}
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),  # how many are in flight is the caller's matter
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(CONNECT, self._timeout)),
            proxy=_proxy(self._url),  # once: aiohttp would ask the environment anew for each request, in a thread
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, body: dict[str, Any]) -> Any:
        """The answer to a chat completion's body, as JSON has it.

        Raises Refused for a status that is no success, Unanswered where nothing came, ValueError for what is no JSON.
        """
        import aiohttp

        try:
            async with self._session.post(self._url, json=body) as answer:
                if answer.status >= 300:
                    said = (await answer.text(errors="replace"))[:DETAIL]
                    raise Refused(answer.status, answer.headers.get("retry-after"), said)
                return await answer.json(content_type=None)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unanswered("connection", f"no connection in time: {error}") from None
        except TimeoutError:
            raise Unanswered("timeout", f"no answer within {self._timeout:g} seconds") from None
        except aiohttp.ClientError as error:
            raise Unanswered("connection", f"{type(error).__name__}: {error}") from None


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL; None: go there directly."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
