"""Keeps signed links and private keys out of logs, errors and files."""

from __future__ import annotations

import logging
import re

_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_LINK = re.compile(r"(?P<host>https?://[^/?\s\"'<>\\]+)(?P<rest>[/?][^\s\"'<>]*)?")
_QUERY = re.compile(r"\?[^\s\"'<>=]+=[^\s\"'<>]*")


def redact(text: str) -> str:
    """Returns the text without private keys and with links shortened to their host.

    >>> redact("GET https://bucket.example/a/clip.mp4?sig=abc failed")
    'GET https://bucket.example/… failed'
    >>> redact("retrying /a/clip.mp4?sig=abc")
    'retrying /a/clip.mp4?…'
    """
    text = _LINK.sub(lambda found: found["host"] + ("/…" if found["rest"] not in (None, "/") else ""), text)
    return hide_secrets(text)


def hide_secrets(text: str) -> str:
    """Returns the text without private keys and without link queries, which contain signatures.

    >>> hide_secrets("https://host.example/best.pt?token=abc: not found")
    'https://host.example/best.pt?… not found'
    """
    return _QUERY.sub("?…", _KEY.sub("<private key>", text))


class _LinksRedacted(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_FILTER = _LinksRedacted()


def keep_links_out_of_logs() -> None:
    """Redacts the log lines of urllib3, which contain whole links; repeated calls are harmless."""
    logging.getLogger("urllib3.connectionpool").addFilter(_FILTER)
