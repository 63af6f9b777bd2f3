"""What a person types: `llm-trader ...`, and the aliases `rag-ingest` and `rag-rpc-server`.

`main`           all commands, and the handling of errors
`setting_flags`  the table from flags to settings, and the decorator of all commands
`options`        other options that several commands share
`output`         JSON or tables, and progress
`pipeline`       the commands from stored data to an answer: ingest, serve, query, leak-check
`data`, `index`, `models`, `backup`, `evaluate`   the other groups of commands
`calibrate`, `demo`                               a command each
`show_answer`, `show_evaluation`                  the two long descriptions of a result

A command is a function of a `Job` and its options: it calls one function of `app/` and returns a
`Result`, which the decorator of `setting_flags` presents.
"""
