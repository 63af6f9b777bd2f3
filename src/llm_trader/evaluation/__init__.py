"""How good the forecasts of past neighbours are, and how sure one can be of that.

The inner rooms read as a sentence, and each imports only the ones before it:

`forecast/`   neighbours of every past query, forecasts made from them, their losses and skills
`backtest/`   what decisions made from these forecasts would have earned
`controls/`   the same on data with a known answer, and probes for knowledge of the future
`conformal/`  corrected 80 % bands, and the calibration that a server loads
`verdict/`    what the numbers mean, allowing for how much was tried; the gate for CI
`report/`     the results in words and charts

`plan` says what is evaluated, `dataset` holds the labelled states, `significance` the statistics,
`results` what is written. `symbol_study` runs everything for one symbol; `study` runs all symbols,
in the processes of `workers`; `judge_study` judges forecasts from elsewhere; `result_files` writes
the outcome.
"""
