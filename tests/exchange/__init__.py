"""A local exchange for tests: real HTTP and WebSocket in the formats of Binance USD-M and Bybit v5.

`server.py` runs it in a thread; `clock.py` is a clock of its own, and `listings.py` has the markets
that it serves. `binance.py` and `bybit.py` answer requests as the venues do, `binance_streams.py`
and `bybit_streams.py` speak their WebSocket. `streams.py` says what candle streams push and when,
`sockets.py` has the connections. `faults.py` and `stream_faults.py` have the ways in which it fails
when told to. `process.py` runs it as a process of its own; `hearing.py` is a plain client.
"""
