"""A Qdrant server or cluster as the index; the only package that knows its client.

`config`                address, limits and layout of a server
`backend`               the index: searches, scans, writes
`search`                one nearest-neighbour search
`column_cache`          columns of the points, kept in the process
`single_flight`         work that one caller does at a time, with a shared failure; the newest head
`reader`                rows, vectors, times and runs of one collection, read page by page
`writer`                runs and transactions; gives way to a later ingestion
`versions`              collections built side by side, swapped and pruned
`collection_snapshots`  snapshots of a node's collections, to files and back
`catalog`               collections: looked up, created, described, aliased
`layout`                metadata and payloads, encoded and decoded
`requests`              filters, queries and configurations in the client's models
`connection`            the client; calls repeated while the connection is lost
`errors`                the table of errors
"""
