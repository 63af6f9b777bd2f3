"""Creates, verifies and restores backups of the market store and the index."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal, TypeAlias

from llm_trader.app.indexes import backend_of, qdrant_server
from llm_trader.app.job import Job
from llm_trader.backup.cluster import QdrantNodes
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Manifest, Places, checked_name, read_manifest
from llm_trader.backup.restore import RestoreReport, restore_backup
from llm_trader.backup.verify import VerifyReport, verify_backup
from llm_trader.errors import InvalidInputError
from llm_trader.progress import Progress
from llm_trader.timeframe import SECOND_MS, iso8601

Part: TypeAlias = Literal["market", "index"]


def make_backup(job: Job, folder: Path, name: str | None, *, only: Part | None = None) -> Manifest:
    """Copy the store and the index, or one of them. The default name is the time."""
    settings = job.settings
    # Whole seconds, because the time is also the default name.
    created_at = iso8601(job.now_ms // SECOND_MS * SECOND_MS)
    embedded = backend_of(settings) == "embedded"
    sources = Places(
        market=settings.market.store if only != "index" else None,
        index=settings.index.path if only != "market" and embedded else None,
        qdrant=_nodes(job) if only != "market" and not embedded else None,
    )
    # Some file systems allow no colon in a name.
    name = name or created_at.replace(":", "")
    work = create_backup(folder, name, sources, created_at=created_at, progress=job.progress)
    return asyncio.run(work)


def check_backup(folder: Path, name: str, progress: Progress) -> VerifyReport:
    return asyncio.run(verify_backup(folder / checked_name(name), progress))


def restore(
    job: Job,
    folder: Path,
    name: str,
    *,
    only: Part | None = None,
    swap: bool = False,
    to_qdrant: bool = False,
) -> RestoreReport:
    """Restore a backup to empty places. `to_qdrant` means that the user named a server."""
    backup = folder / checked_name(name)
    manifest = read_manifest(backup)
    if to_qdrant and manifest.index and only != "market":
        raise InvalidInputError(
            "this backup holds an embedded index: restore it with --index and without "
            "--qdrant-url, then copy it with: llm-trader index migrate"
        )
    qdrant = only != "market" and manifest.qdrant is not None
    targets = Places(
        market=job.settings.market.store if only != "index" else None,
        index=job.settings.index.path if only != "market" else None,
        qdrant=_nodes(job) if qdrant else None,
    )
    return asyncio.run(restore_backup(backup, targets, swap=swap, progress=job.progress))


def _nodes(job: Job) -> QdrantNodes:
    server = qdrant_server(job.settings, job.environ)
    return QdrantNodes(server, job.settings.index.qdrant.node_urls)
