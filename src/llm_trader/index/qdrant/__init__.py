"""A Qdrant server or cluster as the index; the only place that knows its client.

`place`       where it is and how it is asked
`backend`     the index: searches, scans, writes
`search`      one search: what is asked, and hits out of the reply
`mirror`      columns of the points, kept in the process
`turns`       one at a time, and a failure for all who waited
`heads`       what was written last, read once for all who wait
`reader`      rows, vectors, times and runs of one collection
`pages`       many points at once, page by page
`writer`      runs and transactions; gives way to a later ingestion
`versions`    collections built beside each other, swapped and pruned
`snapshots`   snapshots of a node's collections, to files and back
`catalog`     collections found, made, described and aliased
`layout`      metadata and payloads, to and fro
`requests`    filters, queries and configurations in the client's models
`connection`  the client; calls tried again while the connection is lost
`failures`    the table of errors
"""
