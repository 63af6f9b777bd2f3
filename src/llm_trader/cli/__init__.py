"""What a person types: `llm-trader ...`, and the aliases `rag-ingest` and `rag-rpc-server`.

`main`           all commands, and the handling of errors
`options`        the flags of settings, options that commands share, the decorator of all commands
`output`         JSON or tables, and progress
`pipeline`       from stored data to trusted answers: ingest, serve, query, leak-check, calibrate
`decide`, `decisions`                      decisions by language models, and the record of them
`data`, `data_store`                       market data: filling a store, and caring for one
`assistants`     tools for assistants, and receipts of their answers
`index`, `models`, `backup`, `evaluate`    the other groups of commands
`demo`                                     a command alone
`show_answer`, `show_decisions`, `show_evaluation`, `show_store`   the long descriptions of a result

A command is a function of a `Job` and its options: it calls one function of `app/` and returns a
`Result`, which the decorator of `options` presents.
"""
