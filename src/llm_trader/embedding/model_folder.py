"""A folder with an ONNX text model: its files, their digest, and the pooling of its output."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_trader.errors import ConfigurationError

Pooling = Literal["mean", "cls", "last", "none"]

RECIPE: Final = "llm-trader-model.json"
TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json")

_GRAPHS: Final = ("model.onnx", "onnx/model.onnx", "model_optimized.onnx")
_SENTENCE_TRANSFORMERS_POOLING: Final = "1_Pooling/config.json"
# Operators that only quantised graphs use.
_QUANTISED: Final = (b"DynamicQuantizeLinear", b"MatMulInteger", b"QLinearMatMul", b"MatMulNBits")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `llm-trader-model.json`, for a model that FastEmbed does not list."""

    graph: str = ""
    pooling: Pooling | None = None
    output_name: str | None = None


def read_recipe(folder: Path) -> Recipe:
    """The folder's recipe, completed from its other files; pooling stays None if no file names it.

    Raises ConfigurationError if the recipe is invalid, or the folder has no graph.
    """
    recipe = Recipe()
    if (folder / RECIPE).is_file():
        try:
            recipe = msgspec.json.decode((folder / RECIPE).read_bytes(), type=Recipe)
        except msgspec.MsgspecError as error:
            problem = f"{folder / RECIPE} is not a model's recipe: {error}"
            raise ConfigurationError(problem) from None
    candidates = (recipe.graph,) if recipe.graph else _GRAPHS
    graph = next((name for name in candidates if (folder / name).is_file()), None)
    if graph is None:
        names = ", ".join(candidates)
        raise ConfigurationError(f"{folder} holds no ONNX model; looked for {names}")
    require(folder, TOKENIZER)
    pooling = recipe.pooling or _sentence_transformers_pooling(folder)
    return Recipe(graph, pooling, recipe.output_name)


def require(folder: Path, files: Iterable[str]) -> None:
    """Raises ConfigurationError if the folder lacks one of these files."""
    if not folder.is_dir():
        raise ConfigurationError(
            f"embedding.text.model_path is no folder: {folder}; it names a folder with an ONNX "
            "model and its tokenizer"
        )
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(f"the model in {folder} lacks {', '.join(missing)}")


def files_digest(folder: Path, graph: str) -> str:
    """16 hex digits of the SHA-256 of graph, weights and tokenizer."""
    total = hashlib.sha256()
    tokenizer = (*TOKENIZER, "special_tokens_map.json")
    present = [name for name in tokenizer if (folder / name).is_file()]
    for name in sorted({graph, *_external_data(folder, graph), *present}):
        with (folder / name).open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def precision_of(folder: Path, graph: str) -> str:
    """`quantised` if the graph computes in integers, else `float`."""
    contents = (folder / graph).read_bytes()
    return "quantised" if any(kind in contents for kind in _QUANTISED) else "float"


def declared_name(folder: Path) -> str | None:
    """The model's name in the folder's config.json, else the heading of its README.md."""
    config, readme = folder / "config.json", folder / "README.md"
    if config.is_file():
        name = _read_json_object(config).get("_name_or_path")
        if isinstance(name, str) and name:
            return name
    if readme.is_file():
        heading = re.search(r"^# +(.+)$", readme.read_text(errors="replace"), re.MULTILINE)
        return heading[1].strip() if heading else None
    return None


def share_a_word(name: str, other: str) -> bool:
    """Whether two names of models share a word, such as `bge` or `minilm`."""
    words, other_words = (set(re.findall(r"[a-z]{3,}", n.lower())) for n in (name, other))
    return not words.isdisjoint(other_words)


def _external_data(folder: Path, graph: str) -> Iterator[str]:
    """Files that the graph refers to: ONNX writes the path of external data in plain bytes."""
    contents = (folder / graph).read_bytes()
    graph_folder = (folder / graph).parent
    for path in graph_folder.rglob("*"):
        if path.is_file() and path.relative_to(graph_folder).as_posix().encode() in contents:
            yield path.relative_to(folder).as_posix()


def _sentence_transformers_pooling(folder: Path) -> Pooling | None:
    path = folder / _SENTENCE_TRANSFORMERS_POOLING
    if not path.is_file():
        return None
    config = _read_json_object(path)
    pooling_by_key: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    return pooling_by_key.get(chosen[0]) if len(chosen) == 1 else None


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} is not a JSON object: {error}") from None
