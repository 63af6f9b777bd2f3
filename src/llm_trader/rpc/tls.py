"""TLS of a server: its certificate, that of clients if asked for, and reloading without a restart.

asyncio's TLS has no half-close. A client that ends its side ends the connection, and replies that
are not made yet are lost; it should read its replies first.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc.certificate_dates import end_of_certificate_ms
from llm_trader.rpc.config import RpcConfig
from llm_trader.timeframe import DAY_MS, Millis, iso8601

# Most authorities renew at 30 days; one that has not by now has a problem.
_WARNED_BEFORE_MS: Final = 14 * DAY_MS

_log = structlog.get_logger(__name__)


def tls_of(config: RpcConfig, now_ms: Callable[[], Millis] | None) -> ServerTls | None:
    """None where the settings name nothing of TLS. Raises like `ServerTls`."""
    wanted = config.tls_certificate or config.tls_key or config.tls_client_ca
    return None if wanted is None else ServerTls(config, now_ms)


class ServerTls:
    """The TLS of new connections; `load` takes up changed files. Open connections stay as they are.

    `now_ms` is the clock by which certificates end; without one their end is not looked at.
    """

    def __init__(self, config: RpcConfig, now_ms: Callable[[], Millis] | None = None) -> None:
        if config.tls_certificate is None:
            raise ConfigurationError(
                "serving.tls_key and serving.tls_client_ca are of no use without "
                "serving.tls_certificate; set it as well"
            )
        self._certificate = config.tls_certificate
        self._key = config.tls_key or config.tls_certificate
        self._client_ca = config.tls_client_ca
        self._now_ms = now_ms
        self._context: ssl.SSLContext | None = None
        self._end_ms: Millis | None = None
        self._next_warning_ms: Millis = 0

    @property
    def paths(self) -> list[Path]:
        paths = [self._certificate, self._key, self._client_ca]
        return list(dict.fromkeys(path for path in paths if path is not None))

    @property
    def context(self) -> ssl.SSLContext:
        if self._context is None:
            raise ConfigurationError("the certificate is not loaded")
        self._warn_of_end()
        return self._context

    def load(self) -> None:
        """Raises `ConfigurationError`, and keeps what is in use, if the files are of no use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        end_ms = _end_ms(self._certificate)
        if self._now_ms is not None and end_ms <= self._now_ms():
            raise ConfigurationError(
                f"the certificate {self._certificate} ended at {iso8601(end_ms)}; renew it"
            )
        try:
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise _unusable(
                f"the certificate {self._certificate} with the key {self._key}",
                error,
                "give a PEM certificate and its own key without a password",
            ) from None
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                remedy = "give a PEM file of the authority that signs the clients' certificates"
                raise _unusable(f"the client CA {self._client_ca}", error, remedy) from None
        self._context, self._end_ms, self._next_warning_ms = context, end_ms, 0
        self._warn_of_end()

    def _warn_of_end(self) -> None:
        """Logs a warning once a day, from two weeks before the end on."""
        if self._now_ms is None or self._end_ms is None:
            return
        now_ms = self._now_ms()
        if now_ms < max(self._end_ms - _WARNED_BEFORE_MS, self._next_warning_ms):
            return
        self._next_warning_ms = now_ms + DAY_MS
        _log.warning(
            "certificate_ends",
            path=str(self._certificate),
            ends=iso8601(self._end_ms),
            ended=self._end_ms <= now_ms,
            remedy="renew it and replace the file; no restart is needed",
        )


def pinned_context(certificate: Path) -> ssl.SSLContext:
    """For a client that has a copy of the server's certificate: trusts that one and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The name does not matter where only this very certificate is accepted.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ValueError) as error:
        remedy = "give the PEM file of the server's certificate"
        raise _unusable(f"the certificate {certificate}", error, remedy) from None
    return context


def _end_ms(path: Path) -> Millis:
    try:
        return end_of_certificate_ms(path.read_text("ascii"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the certificate {path}: {error.strerror}") from None
    except (ValueError, LlmTraderError):
        raise ConfigurationError(f"{path} has no PEM certificate") from None


def _unusable(what: str, error: Exception, remedy: str) -> ConfigurationError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return ConfigurationError(f"cannot use {what}: {reason}; {remedy}")
