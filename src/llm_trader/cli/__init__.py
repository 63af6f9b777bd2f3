"""What a person types: `llm-trader ...`, and the aliases `rag-ingest` and `rag-rpc-server`.

`main`      the commands under one roof, and what happens on errors
`options`   options that several commands share, and settings made of them
`data`      import, info, simulate
`ingest`, `serve`, `query`, `leaks`, `demo`   a command each
`show`      answers, reports and stores as readable tables
"""
