"""Expected volatility of the coming horizons, from candles and constants.

`model`     the constants of a model, its id, and its file
`expected`  the expected volatility at any time, and what it is computed from
`fit`       a model fitted to a user's own candles
"""
