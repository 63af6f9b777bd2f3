"""Decides on a trade from one state and its evidence.

`decision`    the input of a decision, who makes it, and the result: long, short or hold and why
`aggregator`  follows the outcomes of the neighbours by fixed thresholds
`rules`       baselines: hold the asset, RSI, MACD
`providers/`  language models behind one protocol: Anthropic, OpenAI, and compatible ones
`model_settings`  a model's settings, resolved by what it takes
`cost`        what calls cost, and at most will; `budget`: whether they may
"""
