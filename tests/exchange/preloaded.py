"""What a forked collector has loaded already; see `collecting.py`."""

import ccxt.async_support
import ccxt.async_support.base.ws.cache
import ccxt.pro

import llm_trader.index.embedded
import tests.exchange.collecting

__all__ = ["ccxt", "llm_trader", "tests"]
