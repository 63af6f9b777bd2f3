"""Speed, as ratios against floors measured in the same run. `make bench`, or
`python -m benchmarks --only search`; nothing here is a test and nothing asserts a time.

`workload`   a simulated market of three symbols and 182 days, in a store and an index
`timing`     a subject and its floor in turn, so that a throttled core slows both
`computing`  snapshots with outcomes; search; growth with the number of points
`processes`  ingestion and the server as whole processes: CPU, memory, throughput
`load`       the client that puts the server under load, and the floor it is compared with
"""
