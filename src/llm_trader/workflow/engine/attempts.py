"""One node: its attempts within its timeout, and a failure as a value."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from llm_trader.errors import InsufficientMatchesError, InvalidInputError, LlmTraderError
from llm_trader.timeframe import SECOND_MS
from llm_trader.workflow.engine.protocol import NodeRecord
from llm_trader.workflow.graph.model import GraphNode
from llm_trader.workflow.nodes.running import NodeRun, Services, run_node
from llm_trader.workflow.values import NodeError

# They would fail again in the same way.
_FINAL: Final = (InvalidInputError, InsufficientMatchesError)

_log = structlog.get_logger(__name__)


async def attempt_node(
    node: GraphNode, inputs: Any, run: NodeRun, services: Services
) -> NodeRecord:
    """Never raises but for a cancellation."""
    document = node.document
    started_at_ms = services.clock.now_ms()
    output, error, attempt = None, None, 0
    for attempt in range(1, document.attempts + 1):
        output, error, is_final = await _attempt(node, inputs, run, services)
        if error is None or is_final or attempt == document.attempts:
            break
        _log.info(
            "workflow_node_retried",
            node=node.name,
            run_id=run.run_id,
            attempt=attempt,
            reason=error.message,
        )
        await services.clock.sleep(document.wait_between_tries / SECOND_MS)
    if error is not None:
        counted = services.counts_fallbacks and document.on_error != "stop"
        log = _log.info if counted else _log.warning
        log(
            "workflow_node_failed",
            node=node.name,
            run_id=run.run_id,
            attempts=attempt,
            on_error=document.on_error,
            reason=error.message,
        )
    return NodeRecord(
        node=node.name,
        status="done" if error is None else "failed",
        output=output,
        error=error,
        attempts=attempt,
        started_at_ms=started_at_ms,
        ended_at_ms=services.clock.now_ms(),
    )


async def _attempt(
    node: GraphNode, inputs: Any, run: NodeRun, services: Services
) -> tuple[Any, NodeError | None, bool]:
    """The output, or the error and whether another attempt would fail in the same way."""
    limit_ms = node.document.timeout
    try:
        async with asyncio.timeout(limit_ms / SECOND_MS):
            return await run_node(node, inputs, run, services), None, False
    except LlmTraderError as failure:
        return None, NodeError(failure.code, failure.message), isinstance(failure, _FINAL)
    except TimeoutError:
        return None, NodeError("timeout", f"{node.name} took longer than {limit_ms} ms"), False
    except Exception as failure:  # noqa: BLE001  a fault of a script must not take others' runs with it
        _log.exception("workflow_node_broke", node=node.name, run_id=run.run_id)
        return None, NodeError("internal", f"{type(failure).__name__}: {failure}"), False
