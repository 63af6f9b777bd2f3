"""What the commands and the server do: the only room that wires the others together, from settings.

`market_data`      fills, describes and checks a market store
`ingestion`        market store to index
`indexes`          opens the embedded index or Qdrant, and a retriever on it
`index_versions`   rebuilds an index beside the live one, swaps and prunes versions, copies an index
                   to another backend and proves the copy
`index_checks`     checks an index for damage and leaks, measures recall, compares vectors
`index_watch`      notices that the index of a running server was deleted, remade or damaged
`backups`          creates, verifies and restores backups of store and index
`text_models`      lists, fetches and tries text models
`server`           serves index and market store over JSON-RPC
`queries`          sends queries to a running server
`calibration_fit`  fits a calibration from a market store
`evaluation`       turns a plan and a market store into metrics and a report
`job`              the surroundings of a command's work, and coroutines as plain functions
"""
