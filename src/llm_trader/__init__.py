"""LLM Trader RAG: what followed when the market looked like this before.

Data flows through the packages in this order; a package imports those above it, never below.

1. COLLECT   `market`     candles, funding and open interest from files or a simulation, into LMDB
2. SNAPSHOT  `snapshot`   indicators known at `as_of`, one `MarketSnapshot` per quarter-hour
3. LABEL     `snapshot`   outcomes of the 15m, 1h, 4h and 24h after it, known at `resolved_at`
4. EMBED     `embedding`  snapshot to `state` vector: cosine is a weighted mean over features;
                          and to `text` vector: its wording, embedded by a transformer
5. INDEX     `index`      vectors and payload, embedded or on Qdrant; resumable ingestion
6. RETRIEVE  `retrieval`  neighbours known at the query's time, statistics, evidence
7. SERVE     `serving`    JSON-RPC 2.0 over TCP

`backup` copies stores and indexes, and proves the copies. `errors` and `timeframe` are shared by
all; `settings` holds the configuration, `app` wires the packages together, `cli` is what a person
types.
"""

__version__ = "0.1.0"
