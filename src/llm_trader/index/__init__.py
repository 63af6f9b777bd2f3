"""Where labelled states are kept and searched.

`asof`       the one rule that decides which points a query may see
`points`     points on arrays: what is stored with each vector
`protocol`   what every index backend does
`embedded`   the default backend: LMDB for durability, arrays in memory for exact search
`ingestion`  market store to points, resumable
"""
