from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from llm_trader.embedding import model_folder
from llm_trader.embedding.fastembed_models import OpenedModel
from llm_trader.embedding.text import FastEmbedEncoder
from llm_trader.errors import ConfigurationError, EmbeddingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files as a model has them: a graph that names its weights, and a tokenizer."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph, location: weights.bin")
    (tmp_path / "onnx" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text('{"truncation": null}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\ntags: [x]\n---\n# bge-small-en\n## Usage")
    return tmp_path


def digest(folder: Path) -> str:
    return model_folder.files_digest(folder, "onnx/model.onnx")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("onnx/model.onnx", True),
        ("onnx/weights.bin", True),
        ("tokenizer.json", True),
        ("tokenizer_config.json", True),
        ("README.md", False),
        ("onnx/model_quantised.onnx", False),
    ],
)
def test_the_digest_is_of_the_files_that_decide_a_vector(
    folder: Path, name: str, counts: bool
) -> None:
    before = digest(folder)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert (digest(folder) != before) == counts


def test_a_folder_without_a_recipe_is_read_as_sentence_transformers_wrote_it(folder: Path) -> None:
    assert model_folder.read_recipe(folder) == model_folder.Recipe("onnx/model.onnx", None, None)
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    for text, expected in (
        ('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "mean"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', "cls"),
        ('{"pooling_mode_lasttoken": true}', "last"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}', None),
        ('{"pooling_mode_max_tokens": true}', None),
    ):
        pooling.write_text(text)
        assert model_folder.read_recipe(folder).pooling == expected
    (folder / model_folder.RECIPE).write_text('{"pooling": "last"}')
    assert model_folder.read_recipe(folder).pooling == "last"
    pooling.write_text("[]")
    (folder / model_folder.RECIPE).unlink()
    with pytest.raises(ConfigurationError, match="not a JSON object"):
        model_folder.read_recipe(folder)


def test_a_folder_tells_its_models_name(folder: Path) -> None:
    assert model_folder.declared_name(folder) == "bge-small-en"
    (folder / "config.json").write_text('{"_name_or_path": "nreimers/MiniLM-L6-H384-uncased"}')
    assert model_folder.declared_name(folder) == "nreimers/MiniLM-L6-H384-uncased"
    (folder / "config.json").write_text("{}")
    (folder / "README.md").unlink()
    assert model_folder.declared_name(folder) is None


def test_names_of_one_model_family_share_a_word() -> None:
    assert model_folder.share_a_word("BAAI/bge-small-en-v1.5", "/root/cache/BAAI_bge-small-en/")
    assert model_folder.share_a_word(
        "sentence-transformers/all-MiniLM-L6-v2", "nreimers/MiniLM-L6-H384"
    )
    assert not model_folder.share_a_word(
        "BAAI/bge-small-en-v1.5", "nreimers/MiniLM-L6-H384-uncased"
    )


class Embedding:
    """Stands in for FastEmbed's: a vector of the batch's size and the text's length."""

    def __init__(self, per_batch: float = 0.0, times: float = 1.0) -> None:
        self._per_batch = per_batch
        self._times = times

    def embed(self, batch: list[str], batch_size: int) -> Iterator[Any]:
        for text in batch:
            yield np.array([len(text), 1 + self._per_batch * batch_size, 50]) * self._times


def encoder_of(folder: Path, embedding: Embedding, dimension: int | None = 3) -> FastEmbedEncoder:
    opened = OpenedModel("some-model", dimension, "cls", folder, "onnx/model.onnx", embedding, None)
    return FastEmbedEncoder(opened, threads=2, batch_size=4)


def test_whatever_length_a_model_gives_its_vectors_they_become_unit(folder: Path) -> None:
    vectors = encoder_of(folder, Embedding()).encode(["a", "bb", "ccc", "dd", "e"])
    expected = np.array([[n, 1, 50] for n in (1, 2, 3, 2, 1)])
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


@pytest.mark.parametrize("times", [0.0, np.nan, np.inf])
def test_a_model_that_gives_no_direction_is_refused_at_once(folder: Path, times: float) -> None:
    with pytest.raises(EmbeddingError, match="some-model returned"):
        encoder_of(folder, Embedding(times=times))


def test_a_model_whose_vectors_depend_on_their_batch_is_told_of(folder: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        encoder_of(folder, Embedding())
        assert logs == []
        encoder_of(folder, Embedding(per_batch=20))
    assert [log["event"] for log in logs] == ["vector_depends_on_batch"]


def test_a_model_of_another_dimension_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="has 384 dimensions"):
        encoder_of(folder, Embedding(), 384)


def test_the_version_says_files_precision_pooling_and_limit(folder: Path) -> None:
    assert encoder_of(folder, Embedding()).version == f"{digest(folder)} float cls None"
    (folder / "onnx" / "model.onnx").write_bytes(b"MatMulInteger weights.bin")
    assert encoder_of(folder, Embedding()).version == f"{digest(folder)} quantised cls None"
