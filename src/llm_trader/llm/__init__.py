"""Decides on a trade from one state and its evidence.

`decision`    the input of a decision, who makes it, and the result: long, short or hold and why
`aggregator`  follows the outcomes of the neighbours by fixed thresholds
`rules`       baselines: hold the asset, RSI, MACD
`prompt`      what a language model is asked
`reply`       what its reply says, read strictly
`expiry`      whether a decision still holds
`cases`       states of the past with their series
`providers/`  language models behind one protocol: Anthropic, OpenAI, and compatible ones
`model_settings`  a model's settings, resolved by what it takes
`cost`        what calls cost, and at most will; `budget`: whether they may
`record/`     every call and every decision, on disk before it is used
`recorded_calls`  calls through the record: reuse, budget, one call for one request
`replayed_calls`  answers from the record alone
`llm_decider`  a language model as a decider; `recorder` puts what it decides on record
`replay`      a recorded decision, made again
"""
