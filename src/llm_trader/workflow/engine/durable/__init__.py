"""The durable engine: DBOS on SQLite or Postgres. Its library takes a second to import.

`database`   where runs are kept; SQLite is for one process
`run_log`    accepts, lists, shows and cancels runs, from any process
`engine`     carries runs out
`carrying`   walks the graph of one run
`direct`     on SQLite begins a run at once, without waiting for the queue
`journal`    its stages, until the library has a record of them
`records`    what a run stores of its stages
`executors`  which processes are alive, and the runs of dead ones, on Postgres
"""
