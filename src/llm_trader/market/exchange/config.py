"""Settings of the connection to exchanges."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from llm_trader.config_types import Url

# Those that can be asked for data.
VENUES: Final = ("binance", "bybit")


class ExchangeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests to exchanges, of `data fetch` and `data collect`."""

    binance_url: Annotated[
        Url | None,
        Meta(description="Address instead of https://fapi.binance.com, such as of a proxy."),
    ] = None
    bybit_url: Annotated[
        Url | None,
        Meta(
            description="Address instead of https://api.bybit.com, such as https://api.bytick.com."
        ),
    ] = None
    binance_ws_url: Annotated[
        Url | None,
        Meta(description="Address of WebSockets instead of wss://fstream.binance.com."),
    ] = None
    bybit_ws_url: Annotated[
        Url | None,
        Meta(description="Address of WebSockets instead of wss://stream.bybit.com."),
    ] = None
    silence_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="A stream without any candle for this many seconds is given up, and "
            "connected anew.",
        ),
    ] = 60.0
    streams_per_connection: Annotated[
        int,
        Meta(
            ge=1,
            le=200,
            description="Candle streams, one for each symbol and timeframe, that share a "
            "WebSocket connection; Binance takes 200 at most in one message.",
        ),
    ] = 200
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=300, description="Seconds until a request counts as failed.")
    ] = 20.0
    max_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="How often a request is sent before its series fails; the waits between "
            "grow from a second to a minute.",
        ),
    ] = 8
    max_wait_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="Longest wait, in seconds, that an exchange may ask for; after a longer "
            "one, such as a ban of hours, the command ends and says until when.",
        ),
    ] = 300.0
    close_margin_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="A candle is taken this many seconds after its end, by the clock of the "
            "exchange: trades of its last moment come late.",
        ),
    ] = 5.0
