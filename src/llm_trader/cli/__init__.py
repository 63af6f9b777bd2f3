"""What a person types: `llm-trader ...`, and the aliases `rag-ingest` and `rag-rpc-server`.

`main`           all commands, and the handling of errors
`setting_flags`  the table from flags to settings
`options`        other options that several commands share
`output`         JSON or tables, and progress
`data`, `index`, `models`, `backup`, `evaluate`            several commands each
`ingest`, `serve`, `query`, `leaks`, `calibrate`, `demo`   a command each
`show`, `show_...`   results as readable tables

A command reads its options, calls one function of `app/`, and prints the result.
"""
