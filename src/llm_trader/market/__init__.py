"""Room 1, collect: market series, and the store that keeps them.

Computing only: `candles.py` and `samples.py` hold series (candles; funding and open interest),
`history.py` bundles one symbol's, `simulation.py` draws a made-up market.

Storing: `store.py` is the LMDB store. `keys.py` says under which keys a record stands, `records.py`
in which bytes, `stored_series.py` how records become a series again; `reading.py` walks the keys
within a transaction, `catalog.py` keeps provenance and gaps, `writer_lock.py` admits one writer.

Importing: `files.py` brings Parquet and CSV files in, whose columns `columns.py` reads.
"""
