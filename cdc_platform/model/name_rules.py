"""What names, addresses and URLs may be, and what is wrong with those that look right."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit


class NameRule:
    """A pattern that a whole name has to match, and the same in words for people."""

    def __init__(self, pattern: str, words: str) -> None:
        self._pattern = re.compile(pattern)
        self.words = words

    def allows(self, value: object) -> bool:
        """Whether `value` is text that matches."""
        return isinstance(value, str) and self._pattern.fullmatch(value) is not None


def letters_from_elsewhere(value: object) -> str:
    """` ('а' is CYRILLIC SMALL LETTER A)` of the first letter that is not ASCII: many look as if they were."""
    letter = next((letter for letter in str(value) if not letter.isascii()), None)
    return f" ({letter!r} is {unicodedata.name(letter, 'not a letter')})" if letter else ""


def is_ip_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_url(text: str) -> bool:
    """Whether it is an http or https URL with a host, and a port that exists if it has one."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        return False
    try:
        found = urlsplit(text)
        return bool(found.hostname) and found.port != 0
    except ValueError:
        return False


# HOST or HOST:PORT, an IPv6 address in brackets; the last of a list may have ZooKeeper's own chroot.
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?(/[^,\s]*)?")


def not_a_server(servers: str) -> str | None:
    """The first of HOST:PORT,HOST:PORT that is not an address; None when all are."""
    for server in (each.strip() for each in servers.split(",")):
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found["port"] or 1) < 65536:
            return server
    return None
