"""Keeps a store up to date with an exchange while time goes on.

`collector.py` goes through the steps: it brings the store up to date, then `streams.py` keeps the
connections, `candles.py` stores what closes and asks for what is missing, and `samples.py` polls
funding and open interest. `candle_closing.py` decides which candles are final, without any I/O;
`surroundings.py` has what they share.
"""
