"""Room 1, collect: market series, and the store that keeps them.

Series: `candles.py` and `samples.py` (funding, open interest) build on `series.py`; `history.py`
bundles those of a symbol, `candle_runs.py` goes on across short holes, `resampling.py` builds
coarser candles, `simulation.py` draws a market. `jumps.py` and `frozen.py` find what markets
hardly do.

Storing: `store.py` is the LMDB store. `keys.py` has the layout of its keys, `value_codecs.py` of
its values; `stored_series.py` converts a series to records, `record_ranges.py` seeks them.
`series_records.py` and `symbol_versions.py` keep what each write updates, `series_changes.py` what
it changed, `jump_records.py` the jumps that were accepted; `store_check.py` compares with a count,
`store_findings.py` words what is wrong, `missing_rows.py` says why rows are missing, and
`store_info.py` describes a store. `series_ledgers.py` is what an export carries beside the rows.

Importing: `file_import.py` writes files to the store. `file_table.py` opens one, `file_columns.py`
finds its columns, `file_values.py` reads their cells, and `file_rows.py` puts the rows in order.
`funding_intervals.py` tells how long settlements hold.

Fetching: `fetching.py` asks an exchange for what the store lacks, `fetched_rows.py` checks what it
sends, `absent_spans.py` notes what it has not, and `refused_rows.py` what was refused.
`exchange/` speaks to the venues.
"""
