"""From one state and what retrieval says of it to a decision.

`decision`    long, short or hold, and why a hold is a hold
`decider`     what a decision is made from, and the protocol of those who make it
`aggregator`  the decider that follows the neighbours' outcomes by fixed thresholds
`rules`       baselines: hold the asset, RSI, MACD
"""
