"""Damage to files as disks, copies and people do it, and processes that read what was damaged."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.market.processes import hear, running

PAGE: Final = 4096

INDEX_READER: Final = """
import asyncio, hashlib
from llm_trader.errors import LlmTraderError
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.builders import stored

async def content(index):
    info = await index.info()
    digest = hashlib.sha256(repr((info.collection, info.symbols, info.runs)).encode())
    for symbol in info.symbols:
        points = await stored(index, symbol.symbol)
        arrays = points.timestamp_ms, points.values, points.run, *points.vectors.values()
        for array in arrays:
            digest.update(array.tobytes())
    return digest.hexdigest()

while folder := wait().strip():
    try:
        with EmbeddedIndex.open(Path(folder)) as index:
            say(asyncio.run(content(index)))
    except LlmTraderError as error:
        say("refused:", error.message)
"""

STORE_READER: Final = """
import hashlib
from llm_trader.errors import LlmTraderError

def content(store):
    digest = hashlib.sha256(repr((store.exchange, store.symbols())).encode())
    for symbol in store.symbols():
        for timeframe in store.timeframes(symbol):
            candles = store.candles(symbol, timeframe)
            digest.update(str(timeframe).encode())
            add(digest, candles)
        digest.update(repr(store.open_interest_interval_ms(symbol)).encode())
        add(digest, store.funding(symbol))
        add(digest, store.open_interest(symbol))
    return digest.hexdigest()

def add(digest, series):
    digest.update(series.times.tobytes())
    for name, column in series.columns():
        digest.update(column.tobytes())

while folder := wait().strip():
    try:
        with MarketStore.open(Path(folder)) as store:
            say(content(store))
    except LlmTraderError as error:
        say("refused:", error.message)
"""


class Trial(NamedTuple):
    damage: str
    answer: str  # empty where the process died


def flip_a_byte(content: bytearray, rng: random.Random) -> str:
    place = rng.randrange(len(content))
    content[place] ^= rng.randrange(1, 256)
    return f"byte {place} (of page {place // PAGE})"


def flip_a_bit_of_a_header(content: bytearray, rng: random.Random) -> str:
    """In what LMDB itself reads: the first bytes of a page, where numbers and offsets stand."""
    page = rng.randrange(len(content) // PAGE)
    place = page * PAGE + rng.randrange(200 if page < 2 else 64)
    content[place] ^= 1 << rng.randrange(8)
    return f"bit of byte {place % PAGE} of page {page}"


def swap_pages(content: bytearray, rng: random.Random) -> str:
    first, second = rng.sample(range(len(content) // PAGE), 2)
    one, other = (slice(page * PAGE, (page + 1) * PAGE) for page in (first, second))
    content[one], content[other] = content[other], content[one]
    return f"pages {first} and {second} swapped"


def repeat_a_page(content: bytearray, rng: random.Random) -> str:
    """As a write that a disk has lost or put elsewhere."""
    source, target = rng.sample(range(len(content) // PAGE), 2)
    content[target * PAGE : (target + 1) * PAGE] = content[source * PAGE : (source + 1) * PAGE]
    return f"page {source} written over page {target}"


def blank_a_page(content: bytearray, rng: random.Random) -> str:
    page = rng.randrange(len(content) // PAGE)
    content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    return f"page {page} blank"


def cut_short(content: bytearray, rng: random.Random) -> str:
    size = rng.randrange(len(content))
    del content[size:]
    return f"cut to {size} bytes"


KINDS: Final = (
    *(flip_a_byte, flip_a_byte, flip_a_bit_of_a_header, swap_pages, repeat_a_page),
    *(blank_a_page, cut_short),
)


def trials(original: Path, scratch: Path, reader: str, count: int, seed: int) -> Iterator[Trial]:
    """The answers of processes to a store or an index that was damaged in one way each.

    A process that dies is replaced by another. The first trial is of the undamaged original.
    """
    rng = random.Random(seed)
    sound = (original / "data.mdb").read_bytes()
    done = 0
    while done <= count:
        with running(reader, scratch) as process:
            while done <= count:
                content, damage = bytearray(sound), "none"
                if done:
                    damage = KINDS[done % len(KINDS)](content, rng)
                folder = scratch / f"{original.name}-{done}"
                folder.mkdir()
                (folder / "data.mdb").write_bytes(content)
                done += 1
                answer = ask(process, folder)
                yield Trial(damage, answer)
                shutil.rmtree(folder)
                if not answer:
                    break


def ask(process: object, folder: Path) -> str:
    process.stdin.write(f"{folder}\n")  # type: ignore[attr-defined]
    process.stdin.flush()  # type: ignore[attr-defined]
    return hear(process)  # type: ignore[arg-type]
