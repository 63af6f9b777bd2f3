"""A local exchange for tests: real HTTP in the formats of Binance USD-M and Bybit v5.

`server.py` runs it in a thread, with a clock of its own; `listings.py` has the markets that it
serves. `binance.py` and `bybit.py` answer as the venues do, and `faults.py` has the ways in which
it fails when told to.
"""
