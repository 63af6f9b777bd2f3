from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.fastembed_models import fastembed
from llm_trader.embedding.text import FastEmbedEncoder, SentenceEncoder, TextSpace
from llm_trader.errors import ConfigurationError, EmbeddingError
from llm_trader.snapshot.document import sentences
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.embedding.encoders import HashedWords
from tests.embedding.states import FIXED, of_fields, simulated_states

TABLE = of_fields(FIXED)


def some_states(count: int) -> SnapshotTable:
    return simulated_states().take(np.arange(count) * 7)


def test_a_stand_in_encoder_is_a_sentence_encoder() -> None:
    encoder: SentenceEncoder = HashedWords()
    told: list[int] = []
    vectors = encoder.encode(["a b", "b a", "c", *"defghijk"], told.append)
    assert vectors.shape == (11, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-6)
    assert told == [8, 3]


def test_states_become_unit_vectors_in_their_order() -> None:
    table, space = some_states(20), TextSpace(HashedWords(), "compact")
    vectors = space.embed(table)
    assert vectors.shape == (20, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    expected = HashedWords().encode(sentences(table, "compact"))
    np.testing.assert_array_equal(vectors, expected)


def test_a_sentence_that_occurs_often_is_encoded_once_and_all_rows_are_reported() -> None:
    encoder, told = HashedWords(), []
    table = some_states(5).take(np.array([0, 1, 0, 2, 1, 0]))
    vectors = TextSpace(encoder, "detailed").embed(table, told.append)
    assert len(encoder.encoded) == 3
    assert sum(told) == 6
    np.testing.assert_array_equal(vectors[0], vectors[5])


def test_a_query_has_the_vector_of_the_same_state_at_ingestion() -> None:
    encoder, table = HashedWords(), some_states(9)
    space = TextSpace(encoder, "detailed")
    ingested = space.embed(table)
    one = table.take(np.array([4]))
    np.testing.assert_array_equal(space.encode([space.sentence(one)])[0], ingested[4])


def test_no_states_are_no_vectors() -> None:
    assert TextSpace(HashedWords(), "detailed").embed(some_states(0)).shape == (0, 32)


def test_a_state_that_says_nothing_is_refused() -> None:
    space = TextSpace(HashedWords(), "detailed")
    silent = SnapshotTable.unknown("BTCUSDT", M5, np.array([0]))
    with pytest.raises(EmbeddingError, match="no field that a sentence mentions"):
        space.sentence(silent)
    with pytest.raises(EmbeddingError, match="1 of 1 states"):
        space.embed(silent)


def test_the_space_id_changes_with_all_that_decides_a_vector() -> None:
    encoders = [
        HashedWords(),
        HashedWords(name="other"),
        HashedWords(version="2"),
        HashedWords(dimension=16),
    ]
    ids = [TextSpace(e, "detailed").space_id for e in encoders]
    ids.append(TextSpace(HashedWords(), "compact").space_id)
    assert len(set(ids)) == 5
    assert all(re.fullmatch("text-[0-9a-f]{12}", space_id) for space_id in ids)
    assert TextSpace(HashedWords(), "detailed").space_id == ids[0]


def test_the_space_id_changes_with_the_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TextSpace(HashedWords(), "detailed").space_id
    monkeypatch.setattr("llm_trader.embedding.text.TEMPLATE_VERSION", "words-of-another-day")
    assert TextSpace(HashedWords(), "detailed").space_id != before


class Broken(HashedWords):
    def __init__(self, spoil: Any) -> None:
        super().__init__()
        self._spoil = spoil

    def encode(self, sentences: Sequence[str], done: Any = None) -> Any:
        return self._spoil(super().encode(sentences))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda vectors: vectors * np.nan,
        lambda vectors: vectors * np.inf,
        lambda vectors: vectors * 1.01,
        lambda vectors: vectors * 0,
        lambda vectors: vectors[:, :-1],
        lambda vectors: vectors[:0],
    ],
)
def test_a_model_that_gives_no_unit_vectors_is_refused(spoil: Any) -> None:
    with pytest.raises(EmbeddingError, match="hashed-words returned"):
        TextSpace(Broken(spoil), "detailed").embed(TABLE)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    for load in (fastembed, lambda: FastEmbedEncoder.load(TextConfig(model="any"))):
        with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[text\]'"):
            load()


def test_what_is_optional_is_not_imported_before_it_is_used() -> None:
    found = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, llm_trader.embedding.text_cache, llm_trader.cli.models\n"
            "print([m for m in ('fastembed', 'onnxruntime', 'redis', 'tokenizers', "
            "'huggingface_hub') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_the_vector_does_not_depend_on_symbol_or_time() -> None:
    space = TextSpace(HashedWords(), "detailed")
    other = replace(TABLE, symbol="ETHUSDT", as_of_ms=TABLE.as_of_ms + 900_000)
    np.testing.assert_array_equal(space.embed(TABLE), space.embed(other))
