"""Runs of a graph.

`protocol`  what an engine is asked, and what a run is
`walk`      1 the order of the nodes, and the inputs of each
`attempts`  2 one node: timeout, retries, and its error as a value
`memory`    an engine without memory of its own, for backtests and tests
`dbos_runs` the durable one, on SQLite or Postgres
"""
