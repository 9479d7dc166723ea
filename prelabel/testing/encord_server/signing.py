"""Keys, and the checks of both kinds of request signatures."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .wire import Request

_SIGNATURE_INPUT = re.compile(
    r'^encord-sig=(?P<params>\("@method" "@request-target" "content-digest"\)'
    r';created=\d+;keyid="(?P<key>[0-9a-f]{64})";alg="ed25519")$'
)
_SIGNATURE = re.compile(r"^encord-sig=:(?P<base64>[A-Za-z0-9+/=]+):$")


class NotAuthenticatedError(Exception):
    """The request carries no known key, or its signature does not fit its content."""


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key: the OpenSSH private-key text that a user holds, the hex that the platform knows."""

    private_text: str
    public_hex: str

    @classmethod
    def make(cls) -> KeyPair:
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        return cls(text, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex())


@dataclass
class Users:
    """Who may call: e-mail by public key (hex) and by bearer token."""

    by_key: dict[str, str] = field(default_factory=dict)
    by_token: dict[str, str] = field(default_factory=dict)

    def authenticate(self, request: Request, *, legacy: bool) -> str:
        """The e-mail of the user who sent this request.

        Raises:
            NotAuthenticatedError: Unknown key or token, or a signature over something else.
        """
        authorization = request.headers.get("Authorization", "")
        if authorization.startswith("Bearer "):
            return self._known(self.by_token, authorization.removeprefix("Bearer "), "token")
        key = _verify_legacy(authorization, request.body) if legacy else _verify_v2(request)
        return self._known(self.by_key, key, "key")

    @staticmethod
    def _known(users: Mapping[str, str], secret: str, kind: str) -> str:
        if secret not in users:
            raise NotAuthenticatedError(f"unknown {kind}")
        return users[secret]


def _verify_legacy(authorization: str, body: bytes) -> str:
    """The public key of a legacy call: Ed25519 over the SHA-256 digest of the body."""
    key, _, signature = authorization.partition(":")
    try:
        _verify(key, bytes.fromhex(signature), hashlib.sha256(body).digest())
    except ValueError as error:
        raise NotAuthenticatedError("Authorization is not '<public key hex>:<signature hex>'") from error
    return key


def _verify_v2(request: Request) -> str:
    """The public key of a v2 call, signed after draft-ietf-httpbis-message-signatures."""
    described = _SIGNATURE_INPUT.match(request.headers.get("Signature-Input", ""))
    signature = _SIGNATURE.match(request.headers.get("Signature", ""))
    if described is None or signature is None:
        raise NotAuthenticatedError("Signature-Input or Signature is missing or malformed")
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(request.body).digest()).decode()}:"
    if request.headers.get("Content-Digest") != digest:
        raise NotAuthenticatedError("Content-Digest is not that of the body")
    signed = "\n".join(
        (
            f'"@method": {request.method}',
            f'"@request-target": {request.target}',
            f'"content-digest": {digest}',
            f'"@signature-params": {described["params"]}',
        )
    )
    _verify(described["key"], base64.b64decode(signature["base64"]), signed.encode())
    return described["key"]


def _verify(public_hex: str, signature: bytes, signed: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(signature, signed)
    except InvalidSignature as error:
        raise NotAuthenticatedError("the signature does not fit the request") from error
