"""When a certificate ends, read from its DER by hand: the standard library does not say so."""

from __future__ import annotations

import ssl
from typing import Final

from llm_trader.timeframe import Millis, parse_rfc3339

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


def end_of_certificate_ms(pem: str) -> Millis:
    """The end of the first certificate in a PEM file. Raises `ValueError` if there is none.

    RFC 5280: Certificate ::= { tbs { [0] version, serial, algorithm, issuer, validity, … }, … }
    """
    begin = pem.index(_BEGIN)
    der = ssl.PEM_cert_to_DER_cert(pem[begin : pem.index(_END, begin) + len(_END)])
    tbs = _inside(_inside(der, _SEQUENCE), _SEQUENCE)
    skipped = 4 if tbs[:1] == bytes([_VERSION]) else 3
    for _ in range(skipped):
        tbs = _element(tbs)[2]
    validity = _inside(tbs, _SEQUENCE)
    kind, end, _ = _element(_element(validity)[2])
    digits = end.decode("ascii").removesuffix("Z")
    if kind == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    date, clock = digits[:8], digits[8:14]
    return parse_rfc3339(f"{date[:4]}-{date[4:6]}-{date[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z")


def _inside(der: bytes, kind: int) -> bytes:
    actual_kind, content, _ = _element(der)
    if actual_kind != kind:
        raise ValueError(f"a certificate has {kind:#x} where this file has {actual_kind:#x}")
    return content


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The kind and content of the first element, and what follows it."""
    if len(der) < 2:
        raise ValueError("the certificate ends too early")
    kind, length, begin = der[0], der[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin], "big")
    return kind, der[begin : begin + length], der[begin + length :]
