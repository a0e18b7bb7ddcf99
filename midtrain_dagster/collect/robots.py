"""robots.txt as RFC 9309 has it: the group of the agent, the longest matching rule, `*` and `$` in paths."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

LARGEST = 500 << 10  # bytes that must be read, RFC 9309 section 2.5
LONGEST = 2000  # characters of a rule
SAFE = "/*$%?&=+:;,@!~'()-._"


class Rules(NamedTuple):
    """What an agent may fetch of a host."""

    rules: tuple[tuple[str, bool], ...] = ()  # path pattern, whether it allows
    delay: float | None = None  # seconds between requests that the host asks for
    sitemaps: tuple[str, ...] = ()

    def allow(self, url: str) -> bool:
        """Whether the address may be fetched: the longest rule that matches decides, allow before disallow."""
        parts = urlsplit(url)
        path = _normal((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        if path == "/robots.txt":
            return True
        matching = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, path)]
        return max(matching)[1] if matching else True


ALL = Rules()
NONE = Rules((("/", False),))


def parse(data: bytes, agent: str) -> Rules:
    """The rules for an agent (its product name, `midtrain`): those of all groups that name it, else of those for `*`."""
    own: list[tuple[str, str]] = []
    everyone: list[tuple[str, str]] = []
    sitemaps: list[str] = []
    named, agents, open_group = False, set[str](), False
    for line in data[:LARGEST].decode("utf-8-sig", "replace").splitlines():
        field, _, value = line.split("#", 1)[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if field == "user-agent":
            agents = (agents if open_group else set()) | {value.lower().split("/")[0]}
            open_group = True
            named |= agent.lower() in agents
        elif field == "sitemap" and value:
            sitemaps.append(value)
        elif field in ("allow", "disallow", "crawl-delay"):
            open_group = False
            if agent.lower() in agents:
                own.append((field, value))
            elif "*" in agents:
                everyone.append((field, value))
    return _rules(own if named else everyone, sitemaps)


def _rules(entries: list[tuple[str, str]], sitemaps: list[str]) -> Rules:
    rules = tuple((_normal(value[:LONGEST]), field == "allow") for field, value in entries if field != "crawl-delay" and value)
    delays = [
        float(value) for field, value in entries if field == "crawl-delay" and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value)
    ]
    return Rules(rules, max(delays, default=None), tuple(dict.fromkeys(sitemaps)))


def _normal(path: str) -> str:
    """A path with the same octets encoded the same way (RFC 9309 section 2.2.2)."""
    kept = re.sub(r"%(2[5aAfF4]|3[fF])", r"%25\1", path)  # an encoded %, *, /, $ or ? is not the character itself
    return quote(unquote_to_bytes(kept), safe=SAFE)


@lru_cache(maxsize=4096)
def _parts(pattern: str) -> tuple[tuple[str, ...], bool]:
    anchored = pattern.endswith("$")
    return tuple(pattern.removesuffix("$").split("*")), anchored


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path from its start; in time linear in both, whatever the stars."""
    parts, anchored = _parts(pattern)
    if not path.startswith(parts[0]):
        return False
    at = len(parts[0])
    if len(parts) == 1:
        return not anchored or at == len(path)
    for part in parts[1:-1]:
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if anchored:
        return len(path) - at >= len(parts[-1]) and path.endswith(parts[-1])
    return path.find(parts[-1], at) >= 0
