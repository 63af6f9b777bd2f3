"""FastEmbed with a real transformer. `make test-text` runs these."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.fastembed_models import listed_models
from llm_trader.embedding.text import FastEmbedEncoder, TextSpace
from llm_trader.errors import ConfigurationError
from llm_trader.snapshot.document import Form, sentences
from tests.embedding import minilm
from tests.embedding.states import simulated_states

pytestmark = pytest.mark.text_model
if reason := minilm.missing():
    pytest.skip(reason, allow_module_level=True)

BGE = "BAAI/bge-small-en-v1.5"

# First eight and last four numbers, from a forward pass written out in NumPy with float64.
GOLDEN = {
    "The market fell sharply while open interest rose.": (
        *(0.098312, 0.008974, 0.019343, 0.058015, 0.060408, -0.008238, -0.058356, 0.118106),
        *(-0.067615, -0.069032, -0.083921, 0.089816),
    ),
    "RSI(7) is 81.3, overbought.": (
        *(-0.011837, -0.005276, -0.034674, 0.036068, 0.038604, -0.085885, -0.076882, 0.106966),
        *(0.099732, -0.080247, -0.11239, 0.016622),
    ),
}


@pytest.fixture(scope="session")
def encoder(minilm_folder: Path) -> FastEmbedEncoder:
    return FastEmbedEncoder.load(TextConfig(model=minilm.NAME, model_path=minilm_folder))


@pytest.fixture
def copied(minilm_folder: Path, tmp_path: Path) -> Path:
    """The model in a folder of the test's own; its weights are a hard link."""
    return Path(shutil.copytree(minilm_folder, tmp_path / "copied", copy_function=_linked))


def _linked(source: str, target: str) -> None:
    if source.endswith(minilm.WEIGHTS):
        os.link(source, target)
    else:
        shutil.copy(source, target)


def load(folder: Path, name: str = minilm.NAME, **more: Any) -> FastEmbedEncoder:
    return FastEmbedEncoder.load(TextConfig(model=name, model_path=folder, **more))


def told(count: int, form: Form = "detailed") -> list[str]:
    return sentences(simulated_states().take(np.arange(count) * 100), form)


def test_the_vectors_are_those_of_an_independent_calculation(encoder: FastEmbedEncoder) -> None:
    vectors = encoder.encode(list(GOLDEN))
    np.testing.assert_allclose(
        np.hstack([vectors[:, :8], vectors[:, -4:]]), list(GOLDEN.values()), atol=1e-5
    )


def test_what_means_the_same_is_nearer_than_what_does_not(encoder: FastEmbedEncoder) -> None:
    rise, same, other = encoder.encode(
        ["The price rose quickly.", "The price went up fast.", "My cat sleeps on the sofa."]
    )
    assert rise @ same > 0.8
    assert rise @ other < 0.3


def test_a_folder_says_what_model_it_holds(encoder: FastEmbedEncoder) -> None:
    assert (encoder.name, encoder.dimension, encoder.max_tokens) == (minilm.NAME, 384, 256)
    assert encoder.version == f"{encoder.digest} float none 256"


@pytest.mark.parametrize("form", ["detailed", "compact"])
def test_a_text_does_not_depend_on_its_batch(encoder: FastEmbedEncoder, form: Form) -> None:
    texts = [*told(20, form), "Short.", "Price is up."]
    together = encoder.encode(texts)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


def test_threads_and_batches_change_nothing_and_all_is_reported(copied: Path) -> None:
    texts, reported = told(21, "compact"), []
    one = load(copied, threads=1, batch_size=1).encode(texts)
    many = load(copied, threads=3, batch_size=4).encode(texts, reported.append)
    assert (one * many).sum(axis=1).min() > 0.99999
    assert sum(reported) == 21
    assert max(reported) == 4


def test_who_stops_in_the_middle_does_not_wait_for_the_rest(
    encoder: FastEmbedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    batch = encoder._batch
    monkeypatch.setattr(encoder, "_batch", lambda texts: encoded.append(1) or batch(texts))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(told(90, "compact") * 10, stop)
    assert len(encoded) < 20


def test_no_texts_are_no_vectors(encoder: FastEmbedEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_no_sentence_of_ours_is_cut_and_one_that_is_is_told_of_once(
    minilm_folder: Path,
) -> None:
    encoder = load(minilm_folder)
    with structlog.testing.capture_logs() as logs:
        encoder.encode([*told(8, "detailed"), *told(8, "compact")])
        assert logs == []
        encoder.encode(["up and down " * 200, "down and up " * 200])
        encoder.encode(["up and down " * 200])
    assert [log["event"] for log in logs] == ["sentence_truncated"]
    assert logs[0]["max_tokens"] == 256


# Which model it is


def test_the_version_changes_with_weights_and_tokenizer_and_not_with_the_place(
    encoder: FastEmbedEncoder, copied: Path
) -> None:
    assert load(copied).version == encoder.version
    tokenizer = copied / "tokenizer_config.json"
    kept = tokenizer.read_text()
    tokenizer.write_text(kept.replace("256", "200"))
    shorter = load(copied)
    assert shorter.version != encoder.version
    assert shorter.max_tokens == 200
    tokenizer.write_text(kept)
    weights = bytearray((copied / minilm.WEIGHTS).read_bytes())
    weights[-100] ^= 1
    (copied / minilm.WEIGHTS).unlink()
    (copied / minilm.WEIGHTS).write_bytes(weights)
    changed = load(copied)
    assert changed.version != encoder.version
    assert TextSpace(changed, "compact").space_id != TextSpace(encoder, "compact").space_id


def test_another_models_weights_under_a_listed_name_are_told_of_and_never_mix(
    encoder: FastEmbedEncoder, copied: Path
) -> None:
    (copied / "model.onnx").rename(copied / "model_optimized.onnx")
    with structlog.testing.capture_logs() as logs:
        wrong = load(copied, BGE)
    assert [log["event"] for log in logs] == ["model_folder_names_another_model"]
    assert wrong.dimension == 384
    assert encoder.digest not in (wrong.digest, wrong.version)


def test_a_listed_model_of_another_dimension_is_refused(copied: Path) -> None:
    (copied / "model.onnx").rename(copied / "model_optimized.onnx")
    with pytest.raises(ConfigurationError, match="has 768 dimensions, but the model in"):
        load(copied, "BAAI/bge-base-en-v1.5")


@pytest.fixture(scope="session")
def unpooled_folder(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm.build(tmp_path_factory.mktemp("model") / "unpooled", pooled=False)


def test_vectors_per_token_are_not_pooled_by_guess(unpooled_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"llm-trader-model\.json"):
        load(unpooled_folder)


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("llm-trader-model.json", {"pooling": "mean"}, True),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}, True),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, False),
        ("llm-trader-model.json", {"pooling": "cls", "graph": "model.onnx"}, False),
    ],
)
def test_a_folder_can_say_how_to_pool(
    unpooled_folder: Path, tmp_path: Path, name: str, content: dict[str, Any], right: bool
) -> None:
    folder = Path(shutil.copytree(unpooled_folder, tmp_path / "m", copy_function=_linked))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    vectors = load(folder).encode(list(GOLDEN))
    assert np.allclose(vectors[:, :8], [v[:8] for v in GOLDEN.values()], atol=1e-5) == right


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("llm-trader-model.json", '{"pooling": "median"}'),
        ("llm-trader-model.json", '{"poling": "mean"}'),
        ("llm-trader-model.json", '{"graph": "absent.onnx"}'),
        ("llm-trader-model.json", '{"output_name": "absent"}'),
        ("model.onnx", "not a graph"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{}"),
    ],
)
def test_files_that_are_no_models_are_refused(copied: Path, name: str, content: str) -> None:
    (copied / name).write_text(content)
    with pytest.raises(ConfigurationError, match="copied"):
        load(copied)


def test_a_folder_that_lacks_files_is_refused_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks model_optimized\.onnx, tokenizer\.json"):
        load(tmp_path, BGE)
    with pytest.raises(ConfigurationError, match=r"looked for model\.onnx"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        load(tmp_path / "absent")


def test_a_name_that_is_not_listed_needs_a_folder() -> None:
    with pytest.raises(ConfigurationError, match="llm-trader models list"):
        FastEmbedEncoder.load(TextConfig(model="nobody/knows-it"))


# Without a network


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("no_network")
def test_a_model_that_is_not_here_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        FastEmbedEncoder.load(TextConfig(model=BGE, cache_dir=tmp_path))
    for remedy in (
        "llm-trader models pull",
        "embedding.text.model_path",
        'retrieval.vector = "state"',
    ):
        assert remedy in refused.value.message


@pytest.mark.usefixtures("no_network")
def test_a_local_folder_is_loaded_and_used_without_asking_the_network(minilm_folder: Path) -> None:
    assert load(minilm_folder).encode(["Price is up."]).shape == (1, 384)


def test_a_model_in_the_cache_is_found_there(minilm_folder: Path, tmp_path: Path) -> None:
    (listed,) = [m for m in listed_models() if m.name == BGE]
    repository = tmp_path / f"models--{str(listed.hub_name).replace('/', '--')}"
    snapshot = repository / "snapshots" / "abc"
    shutil.copytree(minilm_folder, snapshot, copy_function=_linked)
    (snapshot / "model.onnx").rename(snapshot / listed.model_file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert FastEmbedEncoder.load(TextConfig(model=BGE, cache_dir=tmp_path)).dimension == 384
