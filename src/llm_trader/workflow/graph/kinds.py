"""What each type of node takes and gives: structs whose fields are its inputs and outputs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, get_type_hints

from msgspec import Struct

from llm_trader.errors import InvalidInputError
from llm_trader.workflow import values
from llm_trader.workflow.graph.document import (
    ExecuteNode,
    GuardNode,
    InputNode,
    LlmNode,
    NodeDocument,
    ScriptNode,
    ToolNode,
)


class NoInputs(Struct, frozen=True):
    """What a node takes that begins a run."""


class Signature(NamedTuple):
    inputs: type[Struct]
    output: type[Struct]


# Takes the inputs and a `ScriptContext`.
ScriptFunction = Callable[[Any, Any], Any]

_EVENTS: Final[dict[str, type[Struct]]] = {
    "snapshot.post": values.Received,
    "ingest.push": values.Pushed,
}
_FIXED: Final[dict[type[NodeDocument], Signature]] = {
    ToolNode: Signature(values.QueryInputs, values.Retrieval),
    LlmNode: Signature(values.DecideInputs, values.Decided),
    GuardNode: Signature(values.GuardInputs, values.Checked),
    ExecuteNode: Signature(values.ExecuteInputs, values.Executed),
}


def signature_of(node: NodeDocument, scripts: Mapping[str, ScriptFunction]) -> Signature:
    """Raises `InvalidInputError` for a script that cannot be found or has no such hints."""
    if isinstance(node, InputNode):
        return Signature(NoInputs, _EVENTS[node.config.method])
    if isinstance(node, ScriptNode):
        return _script_signature(node.function, find_script(node.function, scripts))
    return _FIXED[type(node)]


def find_script(name: str, scripts: Mapping[str, ScriptFunction]) -> ScriptFunction:
    module_name, _, function_name = name.partition(":")
    if not function_name:
        if name not in scripts:
            known = ", ".join(sorted(scripts))
            raise InvalidInputError(
                f"there is no script {name!r}; registered are {known}, and a function of your own "
                "is called package.module:function"
            )
        return scripts[name]
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise InvalidInputError(f"the script {name!r} cannot be imported: {error}") from error
    except AttributeError:
        raise InvalidInputError(f"{module_name} has no function {function_name}") from None
    script: ScriptFunction = function
    return script


def _script_signature(name: str, function: ScriptFunction) -> Signature:
    try:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidInputError(f"the script {name!r} is no function: {error}") from error
    kinds = [hints.get(parameters[0]) if parameters else None, hints.get("return")]
    if len(parameters) != 2 or not all(_is_struct(kind) for kind in kinds):
        raise InvalidInputError(
            f"the script {name!r} should be a function (inputs, context) whose inputs and result "
            "have type hints that are msgspec Structs"
        )
    inputs, output = kinds
    return Signature(inputs, output)  # type: ignore[arg-type]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)
