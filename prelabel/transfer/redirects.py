"""Where a link may lead on to: another http(s) address, and none of this machine's own or of its cloud's metadata."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import requests

MAX_REDIRECTS = 10


class RefusedRedirectError(Exception):
    """A link leads to where it must not; the reason holds no link."""


def get_following(
    session: requests.Session, link: str, headers: Mapping[str, str], timeouts: tuple[float, float]
) -> requests.Response:
    """Returns the streamed answer at the end of all redirects.

    Raises:
        RefusedRedirectError: a redirect leads to where it must not, or there is no end.
        requests.RequestException: no answer, or the link is none.
    """
    for _ in range(MAX_REDIRECTS + 1):
        response = session.get(link, headers=headers, stream=True, timeout=timeouts, allow_redirects=False)
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(link, response.headers["Location"])
        check_redirect(link, target)
        link = target
    raise RefusedRedirectError(f"its link leads on and on, {MAX_REDIRECTS} times and more")


def check_redirect(link: str, target: str) -> None:
    """Returns if a link may lead to the target.

    A name that is looked up again when it is used may lead elsewhere then; whoever controls the link's own host could
    as well serve what lies behind it.

    Raises:
        RefusedRedirectError: it may not.
    """
    here, there = urlsplit(link), urlsplit(target)
    if there.scheme not in {"http", "https"} or not there.hostname:
        raise RefusedRedirectError("its link leads on to what is not an http(s) address")
    if here.scheme == "https" and there.scheme == "http":
        raise RefusedRedirectError("its link leads on from https to http, where others can read it")
    if _is_inside(there.hostname) and not _is_inside(here.hostname or ""):
        raise RefusedRedirectError("its link leads on to an address of this machine's own")


def _is_inside(host: str) -> bool:
    """Tells whether a host is this machine, or link-local, where clouds keep their metadata (169.254.169.254)."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # only a proxy may know it
        return False
    addresses = map(ipaddress.ip_address, found)
    return any(address.is_loopback or address.is_link_local or address.is_unspecified for address in addresses)
