"""Fetching from exchanges over HTTP.

`venue.py` says what every venue offers and opens one by name. `binance.py` and `bybit.py` know the
endpoints, page limits and formats of theirs; `replies.py` reads numbers out of replies. `client.py`
is the only module that uses ccxt: it sends requests, keeps to the rate limit, and waits and asks
again as `backoff.py` says. `instruments.py` finds a symbol however it is written.
"""
