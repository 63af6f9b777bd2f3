"""Where labelled states are kept and searched.

`asof`       the one rule that decides which points a query may see
`points`     points on arrays: what is stored with each vector
`protocol`   what every index backend does
`embedded`   the default backend: LMDB for durability, arrays in memory for exact search
`ingestion`  market store to points, resumable
`qdrant`     a Qdrant server or cluster, with the same answers
`migration`  all points of one index into another
`folders`    versions of an embedded index beside each other
`recall`     how much an approximate search finds of an exact one
"""
