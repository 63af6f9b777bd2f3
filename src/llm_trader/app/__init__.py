"""The one place that wires the rooms together, from settings.

`indexes`         the embedded index or Qdrant, for reading or writing
`texts`           the text model and its caches, where they are wanted
`ingestion`       market store to index
`server`          index and market store behind JSON-RPC
`calibration`     what past evidence is worth, loaded for a server
`calibrating`     the same, fitted from a store
`evaluation`      a plan and a store to an evaluation
`checks`          leaks, recall, and how vectors compare, on an index
`administration`  moving, rebuilding and pruning indexes
"""
