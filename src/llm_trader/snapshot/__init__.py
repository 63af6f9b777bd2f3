"""Snapshots of the market as it was known at a time, and what happened afterwards.

`model`       `MarketSnapshot`: every field with its unit and what it needs
`table`       many snapshots of one symbol on arrays; fields derived from others
`indicators`  RSI, EMA, MACD and ATR over gapless runs
`builder`     candles, funding and open interest to a table: one path for history and for now
`source`      the state at any time, from a store that is being written to
`outcome`     what followed in the 15 minutes, 1, 4 and 24 hours after
"""
