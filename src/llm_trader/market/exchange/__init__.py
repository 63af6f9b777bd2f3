"""Fetching from exchanges over HTTP, and hearing their streams.

`venue.py` says what every venue offers and opens one by name. `binance.py` and `bybit.py` know the
endpoints, page limits and formats of theirs; `replies.py` reads numbers out of replies. Two modules
use ccxt: `client.py` sends requests, keeps to the rate limit, and waits and asks again as
`backoff.py` says; `stream.py` is a connection of candles. `instruments.py` finds a symbol however
it is written.
"""
