"""The runs in DBOS's database: accept, list, show, cancel. Any process may have one open.

A run is a workflow of DBOS whose id is that of the run. It waits in the queue `decisions`, which is
partitioned by symbol, so that no symbol has two runs under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus
from dbos import error as dbos_errors

from llm_trader.batches import Batches
from llm_trader.errors import InvalidInputError, StoreError
from llm_trader.timeframe import Millis, iso8601
from llm_trader.workflow.engine.durable.database import RunDatabase
from llm_trader.workflow.engine.durable.records import input_record, records_of, stage_of
from llm_trader.workflow.engine.protocol import (
    Accepted,
    NodeRecord,
    RunDetails,
    RunNotFoundError,
    RunResult,
    RunStart,
    RunState,
    RunSummary,
    event_of,
)
from llm_trader.workflow.engine.summaries import summary_of
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.kinds import ScriptFunction
from llm_trader.workflow.graph.loading import graph_of_text
from llm_trader.workflow.graph.model import Graph, GraphText
from llm_trader.workflow.values import plain

T = TypeVar("T")

QUEUE: Final = "decisions"
WORKFLOW: Final = "llm_trader_run"
APPLICATION: Final = "llm-trader"
# Of how a run is stored and walked. It changes only where `walk` would go another way with the
# same graph and records; runs of the former version then wait for a process of the former program.
VERSION: Final = "runs-2"

_STATES: Final[dict[str, RunState]] = {
    "ENQUEUED": "queued",
    # In the hands of the process that accepted it, which began it at once.
    "DELAYED": "running",
    "PENDING": "running",
    "CANCELLED": "cancelled",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
}
_OF_STATE: Final[dict[RunState, list[str]]] = {
    "queued": ["ENQUEUED"],
    "running": ["PENDING", "DELAYED"],
    "done": ["SUCCESS"],
    "failed": ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
    "cancelled": ["CANCELLED"],
}
_UNENDED: Final = ["ENQUEUED", "DELAYED", "PENDING"]
_ENDED: Final = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_LOOK_AGAIN_S: Final = 0.05
# The library's record of an ended run follows within its delay and a look into the queue.
_FOLLOWS_WITHIN_S: Final = 10.0


class _Entry(NamedTuple):
    run: RunStart
    delay_s: float | None


class RunLog:
    """Blocking calls of the library run in threads.

    What the journal has of a run is newer than the library's record.
    """

    def __init__(self, database: RunDatabase, scripts: dict[str, ScriptFunction]) -> None:
        self._scripts = scripts
        self._journal = database.journal()
        self._graphs: dict[str, Graph] = {}
        self._client = DBOSClient(
            system_database_url=database.url,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
            lazy=True,
        )
        # The client has no transaction of its own to offer for several runs.
        self._engine = _engine(database)
        self._starts: Batches[_Entry, Accepted] = Batches(self._start_all)
        self._depths: Batches[None, int] = Batches(self._depth_for_all)

    def close(self) -> None:
        self._client.destroy()
        self._engine.dispose()
        if self._journal is not None:
            self._journal.close()

    def graph(self, text: GraphText) -> Graph:
        """The checked graph of a run; the same text is checked once."""
        digest = text.digest
        if digest not in self._graphs:
            self._graphs[digest] = graph_of_text(text, self._scripts)
        return self._graphs[digest]

    async def start(self, run: RunStart) -> Accepted:
        return await self._accept(run, None)

    async def wait(self, run_id: str) -> RunResult:
        while True:
            if _has_ended(*await self._look_up(run_id)):
                details = await self.show(run_id)
                failed = details.summary.state != "done"
                return RunResult(
                    run_id=run_id,
                    state="failed" if failed else "done",
                    records=details.records,
                    error=details.summary.error,
                )
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def depth(self) -> int:
        return await self._depths.add(None)

    async def runs(self, *, limit: int, state: RunState | None = None) -> Sequence[RunSummary]:
        ends = await self._noted_ends()
        found = await self._call(
            self._client.list_workflows,
            # What the journal says may differ.
            status=None if state is None else [*_OF_STATE[state], *_UNENDED],
            name=WORKFLOW,
            sort_desc=True,
            # What DBOS calls a success may be a run that ended at a node.
            limit=limit if state is None else None,
        )
        summaries = [
            _summary_of_end(ends[status.workflow_id])
            if status.status in _UNENDED and status.workflow_id in ends
            else _summary(status)
            for status in found
        ]
        return [one for one in summaries if state in (None, one.state)][:limit]

    async def show(self, run_id: str) -> RunDetails:
        status, end = await self._look_up(run_id)
        start = _start(status)
        records = await self._records(start)
        return RunDetails(
            summary=_summary_of_end(end) if end else _summary(status, records),
            records=records,
            graph=start.graph,
            event=start.event,
        )

    async def cancel(self, run_id: str) -> None:
        if _has_ended(*await self._look_up(run_id)):
            raise InvalidInputError(f"run {run_id} has ended, so it cannot be cancelled")
        await self._call(self._client.cancel_workflow, run_id)

    async def resume(self, run_id: str) -> None:
        """A cancelled run goes on; a failed one begins again at the node that failed."""
        status = await self.completed(run_id)
        summary = _summary(status)
        key = summary.symbol or run_id
        if summary.state == "cancelled":
            await self._call(self._client.resume_workflow, run_id, queue_name=QUEUE)
        elif summary.state == "failed":
            await self._forget_stages(run_id)
            await self._call(
                self._client.rewind_workflow,
                run_id,
                start_step=await self._failed_step(run_id),
                queue_name=QUEUE,
                queue_partition_key=key,
            )
        elif summary.state == "done":
            raise InvalidInputError(f"run {run_id} has ended well; there is nothing to resume")
        else:
            raise InvalidInputError(
                f"run {run_id} is {summary.state}; one whose process has died is resumed by the "
                "next `workflow serve`, on Postgres by any that runs"
            )

    async def remove_ended(self, before_ms: Millis) -> int:
        """Deletes runs that ended before a time, a thousand at most; returns how many."""
        found = await self._call(
            self._client.list_workflows,
            status=_ENDED,
            name=WORKFLOW,
            completed_before=iso8601(before_ms),
            limit=1000,
            load_input=False,
            load_output=False,
        )
        if found:
            await self._call(self._client.delete_workflows, [one.workflow_id for one in found])
        return len(found)

    async def executors_of_running(self) -> dict[str, list[str]]:
        """The ids of runs under way by the process that has them."""
        found = await self._call(
            self._client.list_workflows,
            status=["PENDING"],
            name=WORKFLOW,
            load_input=False,
            load_output=False,
        )
        running: dict[str, list[str]] = {}
        for status in found:
            running.setdefault(status.executor_id or "", []).append(status.workflow_id)
        return running

    async def of_other_versions(self) -> dict[str, int]:
        """How many runs have not ended that another version of the program accepted, by version."""
        found = await self._call(
            self._client.list_workflows,
            status=_UNENDED,
            name=WORKFLOW,
            load_input=False,
            load_output=False,
        )
        return Counter(
            status.app_version for status in found if status.app_version not in (None, VERSION)
        )

    async def requeue(self, run_ids: Sequence[str]) -> None:
        await self._call(self._client.resume_workflows, list(run_ids), queue_name=QUEUE)

    async def _accept(self, run: RunStart, delay_s: float | None) -> Accepted:
        """With a delay the queue leaves the run alone for so long."""
        return await self._starts.add(_Entry(run, delay_s))

    async def _start_all(self, entries: Sequence[_Entry]) -> list[Accepted]:
        return await self._call(self._enqueue_all, entries)

    def _enqueue_all(self, entries: Sequence[_Entry]) -> list[Accepted]:
        """In one transaction: all of them are on disk, or none."""
        with self._engine.begin() as connection:
            return [self._enqueue(connection, *entry) for entry in entries]

    def _enqueue(
        self, connection: sqlalchemy.Connection, run: RunStart, delay_s: float | None
    ) -> Accepted:
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": run.run_id,
            "workflow_id_reuse_policy": "reject",
            "queue_partition_key": run.symbol or run.run_id,
            "app_version": VERSION,
        }
        if delay_s is not None:
            options["delay_seconds"] = delay_s
        try:
            self._client.enqueue_in_transaction(connection, options, plain(run))
        except dbos_errors.DBOSWorkflowIDInUseError:
            return Accepted(run.run_id, is_new=False)
        return Accepted(run.run_id, is_new=True)

    async def unended(self) -> list[RunStart]:
        """The runs of this version that the library has not ended, in the order of acceptance."""
        found = await self._call(
            self._client.list_workflows,
            status=_UNENDED,
            name=WORKFLOW,
            app_version=VERSION,
            load_output=False,
        )
        return sorted(map(_start, found), key=lambda run: run.accepted_at_ms)

    async def stages_of(self, run_id: str) -> dict[str, str]:
        """What is stored of each stage that has ended."""
        noted = {}
        if self._journal is not None:
            noted = await asyncio.to_thread(self._journal.stages, run_id)
        steps = await self._call(self._client.list_workflow_steps, run_id)
        return noted | {s["function_name"]: s["output"] for s in steps if s["output"] is not None}

    async def cancelled(self, run_ids: Sequence[str]) -> set[str]:
        found = await self._call(
            self._client.list_workflows,
            workflow_ids=list(run_ids),
            status=["CANCELLED"],
            load_input=False,
            load_output=False,
        )
        return {one.workflow_id for one in found}

    async def _depth_for_all(self, callers: Sequence[None]) -> list[int]:
        ends = await self._noted_ends()
        found = await self._call(
            self._client.list_workflows,
            status=_UNENDED,
            name=WORKFLOW,
            load_input=False,
            load_output=False,
        )
        return [sum(status.workflow_id not in ends for status in found)] * len(callers)

    async def _noted_ends(self) -> dict[str, str]:
        """Looked for before the library's record: what leaves the journal is there already."""
        return {} if self._journal is None else await asyncio.to_thread(self._journal.ends)

    async def _look_up(self, run_id: str) -> tuple[WorkflowStatus, str | None]:
        """With the end that the library does not have yet."""
        ends = await self._noted_ends()
        status = await self._status(run_id)
        return status, ends.get(run_id) if status.status in _UNENDED else None

    async def completed(self, run_id: str) -> WorkflowStatus:
        """Returns for a run that has ended once the library has all of its record.

        Raises `InvalidInputError` where no process completes it.
        """
        looks = int(_FOLLOWS_WITHIN_S / _LOOK_AGAIN_S)
        for _ in range(looks):
            status, end = await self._look_up(run_id)
            if end is None:
                return status
            await asyncio.sleep(_LOOK_AGAIN_S)
        raise InvalidInputError(
            f"the record of run {run_id} is not complete; a process that serves completes it, so "
            "start `workflow serve` and try again"
        )

    async def _forget_stages(self, run_id: str) -> None:
        if self._journal is not None:
            await asyncio.to_thread(self._journal.remove, [run_id])

    async def _failed_step(self, run_id: str) -> int:
        steps = await self._call(self._client.list_workflow_steps, run_id)
        failed = [
            step["function_id"]
            for step in steps
            if any(one["status"] == "failed" for one in stage_of(step["output"]))
        ]
        return failed[-1] if failed else 1

    async def _records(self, start: RunStart) -> list[NodeRecord]:
        graph = self.graph(start.graph)
        stages = await self.stages_of(start.run_id)
        inputs = [
            input_record(node, start)
            for node in graph.nodes
            if isinstance(node.document, InputNode) and node.document.config.method == start.method
        ]
        order = {node.name: number for number, node in enumerate(graph.nodes)}
        return inputs + [
            record
            for name in sorted(stages, key=lambda name: order.get(name, len(order)))
            for record in records_of(stages[name], graph)
            if record.status != "skipped"
        ]

    async def _status(self, run_id: str) -> WorkflowStatus:
        found = await self._call(self._client.list_workflows, workflow_ids=[run_id])
        if not found or found[0].name != WORKFLOW:
            raise RunNotFoundError(f"there is no run {run_id}; see `llm-trader workflow list`")
        return found[0]

    async def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except dbos_errors.DBOSNonExistentWorkflowError as error:
            raise RunNotFoundError(str(error)) from error
        except (sqlalchemy.exc.SQLAlchemyError, dbos_errors.DBOSException) as error:
            raise StoreError(f"the database of runs does not answer: {error}") from error


def _engine(database: RunDatabase) -> sqlalchemy.Engine:
    url = sqlalchemy.make_url(database.url)
    if database.is_shared:
        return sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg"))
    engine = sqlalchemy.create_engine(url)

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # As the library has it: writers queue up instead of failing in the middle.
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")

    return engine


def _has_ended(status: WorkflowStatus, end: str | None) -> bool:
    return end is not None or status.status not in _UNENDED


def _summary_of_end(end: str) -> RunSummary:
    return msgspec.json.decode(end, type=RunSummary)


def start_of(stored: Any) -> RunStart:
    start = msgspec.convert(stored, RunStart)
    return msgspec.structs.replace(start, event=event_of(start.method, start.event))


def _start(status: WorkflowStatus) -> RunStart:
    if status.input is None:
        raise StoreError(f"run {status.workflow_id} has lost what it began with")
    return start_of(status.input["args"][0])


def _summary(status: WorkflowStatus, records: Sequence[NodeRecord] = ()) -> RunSummary:
    if status.status == "SUCCESS" and status.output is not None:
        end = msgspec.convert(status.output, RunSummary)
        return msgspec.structs.replace(end, executor=status.executor_id)
    state = _STATES.get(status.status, "failed")
    summary = summary_of(
        _start(status),
        state,
        records,
        ended_at_ms=status.completed_at,
        executor=status.executor_id,
    )
    if status.error is not None and summary.error is None:
        summary = msgspec.structs.replace(summary, error=str(status.error))
    return summary
