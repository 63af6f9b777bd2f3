"""Snapshots of the market as it was known at a time, and their outcomes.

`model`       `MarketSnapshot`: every field with its unit and the data it needs
`table`       many snapshots of one symbol in arrays; fields that follow from other fields
`indicators`  RSI, EMA, MACD and ATR over runs of candles
`builder`     candles, funding and open interest to a table
`source`      the state at any time, from a store; it keeps the states of days
`affected`    which snapshots read data that changed since
`outcome`     price changes 15 minutes, 1, 4 and 24 hours after a snapshot
`document`    a snapshot as a sentence
"""
