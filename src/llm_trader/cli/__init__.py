"""What a person types: `llm-trader ...`, and the aliases `rag-ingest` and `rag-rpc-server`.

`main`      the commands under one roof, and what happens on errors
`options`   options that several commands share, and settings made of them
`data`, `index`, `models`, `backup`           several commands each
`ingest`, `serve`, `query`, `leaks`, `demo`   a command each
`show`, `show_index`   answers, reports, stores and indexes as readable tables
"""
