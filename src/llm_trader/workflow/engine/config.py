"""Settings of runs: where they are kept, and how they go by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from llm_trader.config_types import EnvName, Folder, Url


class RunsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of a workflow."""

    folder: Annotated[
        Folder,
        Meta(description="Folder of the runs, in SQLite; one process at a time serves from it."),
    ] = Path("var/workflow")
    postgres_url: Annotated[
        Url | None,
        Meta(
            description="Postgres database that keeps the runs instead, from the second process "
            "on.",
            examples=["postgresql://trader@127.0.0.1:5432/workflow"],
        ),
    ] = None
    postgres_password_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds its password.",
            examples=["WORKFLOW_DB_PASSWORD"],
        ),
    ] = None
    at_once: Annotated[
        int, Meta(ge=1, le=1000, description="Runs that one process has under way at once.")
    ] = 64
    poll_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=60_000,
            description="Milliseconds between two looks for runs that wait; on Postgres half of it "
            "is what a run waits on average. On SQLite a run begins at once, and what a crash left "
            "over is looked for every 500 ms at most often.",
        ),
    ] = 50
    sweep_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Seconds between two looks for runs of processes that died, on Postgres.",
        ),
    ] = 5.0
    keep_days: Annotated[
        int, Meta(ge=1, le=36_500, description="Days for which ended runs are kept.")
    ] = 90
    shadow: Annotated[bool, Meta(description="Decide and record, and execute nothing.")] = False
    ab: Annotated[
        Literal["off", "rag", "baseline"],
        Meta(
            description="Ask the model with both prompts on each snapshot, and execute the "
            "decision of the one that is named here; off asks with one prompt."
        ),
    ] = "off"
    rag_url: Annotated[
        Url | None,
        Meta(
            description="Address of the RAG server instead of the one in the graph.",
            examples=["tcp://127.0.0.1:7879"],
        ),
    ] = None
    rag_token_env: Annotated[
        EnvName | None,
        Meta(
            description="Name of the environment variable that holds the RAG server's token.",
            examples=["RAG_TOKEN"],
        ),
    ] = None
