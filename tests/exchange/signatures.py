"""Requests with what a venue needs to check who sent them."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

API_KEY = "fake-key"
SECRET = "fake-secret"
# The programs of tests find the keys there.
KEY_VARIABLES = {"FAKE_API_KEY": API_KEY, "FAKE_API_SECRET": SECRET}


@dataclass(frozen=True)
class SignedRequest:
    """`parameters` are those of the query and of the body, whatever its form."""

    method: str
    path: str
    raw_query: str
    body: str
    headers: dict[str, str]
    query: dict[str, str]

    @property
    def parameters(self) -> dict[str, str]:
        if self.body.startswith("{"):
            return {**self.query, **{k: _text(v) for k, v in json.loads(self.body).items()}}
        return {**self.query, **dict(parse_qsl(self.body))}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def signed_request(request: web.Request) -> SignedRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return SignedRequest(
        request.method,
        request.path,
        request.rel_url.raw_query_string,
        await request.text(),
        headers,
        dict(request.query),
    )


def digest(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
