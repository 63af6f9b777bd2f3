"""Deciders on past states: the cases that a server would have made, and what is made of them.

`cases`          each state with its evidence, as it was or altered
`deciding`       many cases decided at once, whatever fails
`model_decider`  a language model through its record, so that nothing is paid twice
`arms`           the arms of a model in an A/B, which `../backtest` trades
`reading`        whether decisions follow the evidence, beyond noise
`results`        what a study of reading finds
"""
