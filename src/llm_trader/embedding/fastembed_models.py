"""Opens text models with FastEmbed from local files: this module never uses the network."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from llm_trader.embedding import model_folder
from llm_trader.embedding.model_folder import Pooling
from llm_trader.errors import ConfigurationError, raised_inside

# FastEmbed, and the libraries whose errors it lets through.
_LIBRARIES: Final = ("fastembed", "onnxruntime", "tokenizers")
_WITHOUT: Final = 'turn text vectors off (no --text, retrieval.vector = "state")'
REMEDY: Final = (
    "get it with `llm-trader models pull`, set embedding.text.model_path to a folder with an ONNX "
    f"model, or {_WITHOUT}"
)

# Custom models are registered with FastEmbed under this prefix and their digest.
_CUSTOM_PREFIX: Final = "llm-trader/"
# The output of graphs that pool their tokens themselves, as sentence-transformers exports them.
_POOLED_OUTPUT: Final = "sentence_embedding"
_FASTEMBED_POOLING: Final = {"mean": "MEAN", "cls": "CLS", "last": "LAST_TOKEN", "none": "DISABLED"}

_log = structlog.get_logger(__name__)


class ListedModel(NamedTuple):
    """A model that FastEmbed lists. `hub_name` is its name on a model hub."""

    name: str
    dimension: int
    size_mb: int
    hub_name: str | None
    model_file: str
    additional_files: tuple[str, ...]


class OpenedModel(NamedTuple):
    """A FastEmbed model. `pooling` is FastEmbed's class of a listed model, else its pooling."""

    name: str
    dimension: int | None
    pooling: str
    folder: Path
    graph: str
    embedding: Any
    tokenizer: Any


def listed_models() -> list[ListedModel]:
    """The models of FastEmbed, smallest first; needs the extra `text` (ConfigurationError)."""
    models = (
        ListedModel(
            *(entry["model"], entry["dim"], round(entry["size_in_GB"] * 1000)),
            *(entry["sources"]["hf"], entry["model_file"], tuple(entry["additional_files"])),
        )
        for entry in fastembed().TextEmbedding.list_supported_models()
        if not entry["model"].startswith(_CUSTOM_PREFIX)
    )
    return sorted(models, key=lambda model: model.size_mb)


def listed_model(name: str) -> ListedModel | None:
    return next((m for m in listed_models() if m.name.lower() == name.lower()), None)


def open_model(model: str, model_path: Path | None, cache_dir: Path | None) -> OpenedModel:
    """Opens a listed model from FastEmbed's cache or a folder, or any other model from a folder.

    Raises ConfigurationError if the `text` extra or the model is missing, or its files are damaged.
    """
    folder = None if model_path is None else model_path.expanduser().absolute()
    listed = listed_model(model)
    if listed is not None:
        if folder is not None:
            files = (listed.model_file, *listed.additional_files, *model_folder.TOKENIZER)
            model_folder.require(folder, files)
            _warn_of_another_name(listed.name, folder)
        embedding = _load_embedding(listed.name, model, folder, cache_dir)
        pooling = type(embedding.model).__name__
        name, dimension = listed.name, listed.dimension
    elif folder is not None:
        registered, pooling = _register(folder)
        embedding = _load_embedding(registered, model, folder, None)
        name, dimension = model, None
    else:
        raise ConfigurationError(
            f"FastEmbed does not list a model {model!r}: choose one of `llm-trader models list`, "
            "or set embedding.text.model_path to its folder"
        )
    inner = embedding.model
    files_of = Path(inner._model_dir), inner.model_description.model_file
    tokenizer = getattr(inner, "tokenizer", None)
    return OpenedModel(name, dimension, pooling, *files_of, embedding, tokenizer)


def fastembed() -> Any:
    """The package, imported at its first use because that takes seconds."""
    try:
        package = importlib.import_module("fastembed")
        loguru = importlib.import_module("loguru")
    except ImportError as error:
        install = "pip install 'llm-trader-rag[text]'"
        problem = f"text vectors need FastEmbed ({error}): {install}, or {_WITHOUT}"
        raise ConfigurationError(problem) from None
    # Its failures become messages of our own errors.
    loguru.logger.disable("fastembed")
    return package


@contextmanager
def configuration_errors(problem: str, remedy: str = "") -> Iterator[None]:
    """Turns failures inside the model's libraries into ConfigurationError; our own bugs pass."""
    try:
        yield
    except Exception as error:
        if not raised_inside(error, _LIBRARIES):
            raise
        raise ConfigurationError(f"{problem} ({error}){remedy}") from error


def _load_embedding(name: str, requested: str, folder: Path | None, cache_dir: Path | None) -> Any:
    where = "on this machine" if folder is None else f"in {folder}"
    with configuration_errors(f"no usable text model {requested} {where}", f": {REMEDY}"):
        return fastembed().TextEmbedding(
            name,
            cache_dir=None if cache_dir is None else str(cache_dir.expanduser()),
            threads=1,
            providers=["CPUExecutionProvider"],
            local_files_only=True,
            specific_model_path=None if folder is None else str(folder),
        )


def _register(folder: Path) -> tuple[str, str]:
    """Registers the model of a folder once; returns FastEmbed's name for it and its pooling."""
    model_folder.require(folder, ())
    recipe = model_folder.read_recipe(folder)
    output, pooling, dimension = _output(folder, recipe)
    name = f"{_CUSTOM_PREFIX}{model_folder.files_digest(folder, recipe.graph)}-{output}-{pooling}"
    text_embedding = fastembed().TextEmbedding
    if name not in {model["model"] for model in text_embedding.list_supported_models()}:
        kinds = importlib.import_module("fastembed.common.model_description")
        text_embedding.add_custom_model(
            model=name,
            pooling=kinds.PoolingType[_FASTEMBED_POOLING[pooling]],
            normalization=True,
            sources=kinds.ModelSource(hf=name),  # required, but never contacted
            dim=dimension,
            model_file=recipe.graph,
            output_name=output,
        )
    return name, pooling


def _output(folder: Path, recipe: model_folder.Recipe) -> tuple[str, Pooling, int]:
    """The output of the graph to use, its pooling, and its dimension, 0 if left open."""
    shapes = _output_shapes(folder / recipe.graph)
    pooled = len(shapes.get(_POOLED_OUTPUT, ())) == 2
    output = recipe.output_name or (_POOLED_OUTPUT if pooled else next(iter(shapes)))
    path = folder / model_folder.RECIPE
    if output not in shapes:
        names = ", ".join(shapes)
        raise ConfigurationError(f"{path} names the output {output}; the graph has {names}")
    shape = shapes[output]
    pooling = "none" if len(shape) == 2 else recipe.pooling
    if pooling is None or (pooling == "none" and len(shape) != 2):
        raise ConfigurationError(
            f"the output {output} of {folder / recipe.graph} has a vector per token, and no file "
            f'names their pooling: write {{"pooling": "mean"}} (or cls, last) into {path}, as the '
            "model's own page says"
        )
    return output, pooling, shape[-1] if isinstance(shape[-1], int) else 0


def _output_shapes(graph: Path) -> dict[str, list[int | str]]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    with configuration_errors(f"{graph} is not a usable ONNX model"):
        session = runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return {output.name: list(output.shape) for output in session.get_outputs()}


def _warn_of_another_name(name: str, folder: Path) -> None:
    folder_name = model_folder.declared_name(folder)
    if folder_name is not None and not model_folder.share_a_word(name, folder_name):
        names = {"model": name, "folder": str(folder), "folder_name": folder_name}
        _log.warning("model_folder_names_another_model", **names)
