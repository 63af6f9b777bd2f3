"""What forked processes have loaded already; see `processes.py`."""

import gc

import anthropic
import ccxt.async_support
import ccxt.async_support.base.ws.cache
import ccxt.pro
import grpc
import qdrant_client
import uvloop

import llm_trader.app.index_checks
import llm_trader.app.ingestion
import llm_trader.app.server
import llm_trader.app.workers
import llm_trader.cli.main
import llm_trader.index.embedded
import llm_trader.index.qdrant.backend
import llm_trader.workflow.engine.durable.engine
import tests.exchange.collecting
import tests.index.builders
import tests.market.builders
import tests.workflow.processes

# A server that starts looks for garbage once. In what was loaded here there is none, and a look
# would copy all of it into the memory of the forked process: a third of a second of CPU each time.
gc.collect()
gc.freeze()

__all__ = ["anthropic", "ccxt", "grpc", "llm_trader", "qdrant_client", "tests", "uvloop"]
