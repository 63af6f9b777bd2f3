"""`llm-trader models`; those that need a model run in `make test-text`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from llm_trader.cli import models
from llm_trader.embedding.config import TextConfig
from llm_trader.embedding.text import FastEmbedEncoder
from llm_trader.errors import ConfigurationError
from tests.embedding import minilm
from tests.embedding.hub import serving_hub

needs_model = [
    pytest.mark.text_model,
    pytest.mark.skipif(minilm.missing() is not None, reason=minilm.missing() or ""),
]

# The commands alone, as `llm-trader models` mounts them.
PLAIN_HTTP = {"HF_HUB_DISABLE_XET": "1"}
_PROGRAM = "from llm_trader.cli import main, models; main._run(models.app)"


def typed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def small_model(folder: Path) -> Path:
    """Adds up random directions of tokens, in the form of all-MiniLM-L6-v2."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rows = np.random.default_rng(1).standard_normal((64, 384)).astype(np.float32)
    weights = [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.array(64), "64")]
    nodes = [
        helper.make_node("Mod", ["input_ids", "64"], ["row"]),
        helper.make_node("Gather", ["rows", "row"], ["last_hidden_state"]),
    ]
    given = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 384]
    )
    graph = helper.make_graph(nodes, "small", [given], [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(minilm.package_folder() / name, folder)
    return folder


def test_every_command_names_its_options() -> None:
    shown = {}
    for name in ("pull", "list", "check"):
        with pytest.raises(SystemExit), redirect_stdout(StringIO()) as out:
            models.app([name, "--help"])
        shown[name] = out.getvalue()
    assert all("--cache-dir" in text for text in shown.values())
    assert "--model-path" in shown["check"]
    assert "--json" in shown["list"]


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    for command in (models.pull, models.list_models, models.check):
        with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[text\]'"):
            command()


class TestWithAModel:
    pytestmark = needs_model

    def test_check_tells_what_the_model_is(self, tmp_path: Path) -> None:
        folder = minilm.build(tmp_path / "model")
        ran = typed("check", "--model", minilm.NAME, "--model-path", folder, "--json")
        assert ran.returncode == 0, ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        encoder = FastEmbedEncoder.load(TextConfig(model=minilm.NAME, model_path=folder))
        assert found.pop("texts_per_second") > 0
        assert found.pop("one_sentence_ms") > 0
        assert 100 < found.pop("longest_sentence_tokens") < 256
        assert found == {
            "model": minilm.NAME,
            "dimension": 384,
            "digest": encoder.digest,
            "max_tokens": 256,
        }

    def test_list_tells_what_is_here(self, tmp_path: Path) -> None:
        def here() -> dict[str, bool]:
            ran = typed("list", "--cache-dir", tmp_path, "--json")
            return {row["model"]: row["here"] for row in json.loads(ran.stdout)}

        name = "sentence-transformers/all-MiniLM-L6-v2"
        assert not any(here().values())
        repository = tmp_path / "models--Qdrant--all-MiniLM-L6-v2-onnx"
        minilm.build(repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
        assert [model for model, found in here().items() if found] == [name]
        assert name in typed("list").stdout

    @pytest.fixture(params=["closed", "silent"])
    def no_hub(self, request: pytest.FixtureRequest) -> Iterator[str]:
        """A place where no hub is: nobody listens, or nobody ever answers."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            if request.param == "silent":
                listening.listen(16)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"

    def test_pull_without_a_hub_says_how_to_bring_a_model(
        self, no_hub: str, tmp_path: Path
    ) -> None:
        ran = typed("pull", "--cache-dir", tmp_path, HF_ENDPOINT=no_hub)
        assert ran.returncode == 2
        assert "cannot be fetched" in ran.stderr
        assert "embedding.text.model_path" in ran.stderr
        assert "Traceback" not in ran.stderr

    def test_pull_fetches_a_model_that_then_loads(self, tmp_path: Path) -> None:
        source, cache = small_model(tmp_path / "source"), tmp_path / "cache"
        name = "sentence-transformers/all-MiniLM-L6-v2"
        with serving_hub("Qdrant/all-MiniLM-L6-v2-onnx", source) as hub:
            ran = typed("pull", name, "--cache-dir", cache, HF_ENDPOINT=hub, **PLAIN_HTTP)
        assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0), ran.stderr
        encoder = FastEmbedEncoder.load(TextConfig(model=name, cache_dir=cache))
        assert ran.stdout == f"{name}: 384 dimensions, version {encoder.version}\n"

    def test_pull_knows_no_hub_for_a_model_that_is_not_listed(self) -> None:
        ran = typed("pull", "nobody/knows-it")
        assert ran.returncode == 2
        assert "llm-trader models list" in ran.stderr
