"""Text vectors: encoding against bare ONNX Runtime, and a query whose sentence is in memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from tests.embedding import minilm

from benchmarks.timing import Figure
from benchmarks.workload import START_MS, WARM_UP_DAYS
from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.market.simulation import simulate
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.document import sentences
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M5, M15

_TEXTS = 96
_THREADS = 2
_BATCH = 8
_ROUNDS = 5


def text(folder: Path) -> list[Figure]:
    """Figures of the model in LLM_TRADER_TEXT_MODEL, else of a small one that is built here."""
    named = os.environ.get("LLM_TRADER_TEXT_MODEL")
    reason = None if named else minilm.missing()
    if reason is not None:
        return [Figure("text vectors", f"skipped: {reason}", "", None)]
    model = Path(named) if named else minilm.build(folder / "text-model")
    encoder = FastEmbedEncoder.load(
        TextConfig(model=minilm.NAME, model_path=model, threads=_THREADS, batch_size=_BATCH)
    )
    table = _states()
    return [_throughput(encoder, model, table), asyncio.run(_warm_query(encoder, table))]


def _states() -> SnapshotTable:
    market = simulate("BTCUSDT", start_ms=START_MS, days=WARM_UP_DAYS + 2, seed=1, timeframe=M5)
    start_ms = START_MS + WARM_UP_DAYS * DAY_MS
    return build_snapshots(market, start_ms + np.arange(_TEXTS) * M15.ms)


def _throughput(encoder: FastEmbedEncoder, model: Path, table: SnapshotTable) -> Figure:
    texts = sentences(table, "compact")
    bare = _bare_onnx_runtime(model)
    # Wall time, as threads are part of the subject; in turn, so that both meet the same machine.
    pairs = [
        (_seconds(lambda: encoder.encode(texts)), _seconds(lambda: bare(texts)))
        for _ in range(_ROUNDS + 1)
    ][1:]
    ratio = median(floor / subject for subject, floor in pairs)
    rate = _TEXTS / median(subject for subject, _ in pairs)
    return Figure(
        "text vectors at ingestion, against bare ONNX Runtime",
        f"{ratio:.2f} ({rate:.0f} texts/s, {_THREADS} threads)",
        "0.9",
        ratio >= 0.9,
    )


async def _warm_query(encoder: FastEmbedEncoder, table: SnapshotTable) -> Figure:
    texts = QueryTexts(TextSpace(encoder, "compact"))
    rows = [table.take(np.array([row])) for row in range(16)]
    for row in rows:
        await texts.vector(row)
    took = []
    for _ in range(100):
        started = time.process_time()
        for row in rows:
            await texts.vector(row)
        took.append((time.process_time() - started) / len(rows) * 1000)
    await texts.aclose()
    return Figure(
        "text vector of a query, sentence in memory",
        f"{median(took):.3f} ms",
        "0.2 ms",
        median(took) < 0.2,
    )


def _bare_onnx_runtime(model: Path) -> Callable[[list[str]], object]:
    """The same texts in batches of the same size and as many threads, and nothing else."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = {given.name for given in session.get_inputs()}
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_padding()

    def encode(batch: list[str]) -> object:
        encoded = tokenizer.encode_batch(batch)
        ids = np.array([one.ids for one in encoded])
        mask = np.array([one.attention_mask for one in encoded])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(None, {name: inputs[name] for name in names})[0]

    def encode_all(texts: list[str]) -> object:
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        with ThreadPoolExecutor(_THREADS) as pool:
            return np.vstack(list(pool.map(encode, batches)))

    return encode_all


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
