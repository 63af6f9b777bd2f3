"""What the commands and the server do: the one place that wires the rooms together, from settings.

`market_data`      a market store: filled, described, checked
`ingestion`        market store to index
`indexes`          the embedded index or Qdrant, for reading or writing
`index_versions`   an index rebuilt beside the live one, swapped, pruned
`index_migration`  an index copied to another backend, with a proof
`index_checks`     leaks, recall, and how vectors compare, on an index
`backups`          copies of store and index: made, listed, verified, restored
`text_vectors`     the text model and its caches, where text vectors are wanted
`text_models`      text models: listed, fetched, tried
`retrievers`       what answers queries from an index
`server`           index and market store behind JSON-RPC
`queries`          queries to a running server
`calibration`      a calibration, as a server loads it
`calibration_fit`  the same, fitted from a store
`evaluation`       a plan and a store to metrics and a report
"""
