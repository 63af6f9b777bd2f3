"""LLM Trader RAG: what followed when the market looked like this before.

Data flows from `market` to `snapshot`, `embedding`, `index`, `retrieval` and `serving`; a package
imports only those before it. ARCHITECTURE.md lists all packages and what each of them does.
"""

__version__ = "0.1.0"
