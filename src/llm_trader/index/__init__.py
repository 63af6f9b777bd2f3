"""Where labelled states are kept and searched.

`asof`       the one rule that decides which points a query may see
`points`     points on arrays: what is stored with each vector
`protocol`   what every index backend does
`memory`     one symbol's points in memory, searched exactly
`embedded`   the default backend: LMDB for durability, arrays in memory for exact search
`qdrant`     a Qdrant server or cluster, with the same answers
`folders`    versions of an embedded index, side by side
`ingestion`  market store to points, resumable
`migration`  all points of one index into another
`config`     settings of the index and of the ingestion
"""
