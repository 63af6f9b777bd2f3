"""Serves a workflow, and looks after its runs.

`parts`         what nodes need: broker, decider, RAG client
`paper_prices`  prices for the paper broker
`timetable`     snapshots that the process makes by itself
`server`        takes snapshots, and carries runs out
`runs`          one run; lists; resume and cancel
`backtest`      runs over past states of the store, on paper
"""
