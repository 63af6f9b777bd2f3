"""LLM Trader RAG: what followed when the market looked like this before.

Data flows through the packages in this order; a package imports only those above it.

1. `market`     stores candles, funding and open interest in LMDB
2. `snapshot`   computes market states, and their outcomes, which become known later
3. `embedding`  turns a snapshot into a `state` vector, and its sentence into a `text` vector
4. `index`      stores vectors with their payload, in a folder or on Qdrant
5. `retrieval`  finds past states that were known at the query's time, and weighs the evidence
6. `serving`    answers queries over JSON-RPC

ARCHITECTURE.md lists all packages.
"""

__version__ = "0.1.0"
