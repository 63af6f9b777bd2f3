"""Decides on a trade from one state and its evidence.

`decision`    long, short or hold, and the reason for a hold
`decider`     the input of a decision, and the protocol of deciders
`aggregator`  follows the outcomes of the neighbours by fixed thresholds
`rules`       baselines: hold the asset, RSI, MACD
"""
