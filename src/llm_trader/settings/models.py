"""Pydantic models of the rooms' configs, for validation while loading.

pydantic reports all mistakes at once and reads numbers from text, which msgspec Structs cannot, so
the models are built from the fields of the Structs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from llm_trader.config_types import Check, NotASetting

M = TypeVar("M", bound=BaseModel)

_METADATA: Final = ("ge", "le", "pattern", "min_length", "description", "examples")

# The type of errors whose rejected value may be a secret.
HIDDEN_VALUE: Final = "hidden_value"


class SectionModel(BaseModel):
    """A section of the settings while it is validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation in (int, float):
            raise PydanticCustomError("number_type", "should be a number")
        return value


def model_of(config: type[Struct], base: type[M]) -> type[M]:
    """A model with the keys, types, bounds, descriptions and defaults of a config."""
    hints = get_type_hints(config, include_extras=True)
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(config):
        if isinstance(field.default, Struct):
            section = model_of(type(field.default), SectionModel)
            fields[field.name] = (section, section())
        elif NotASetting not in getattr(hints[field.name], "__metadata__", ()):
            fields[field.name] = (_pydantic_type(hints[field.name]), field.default)
    return create_model(config.__name__, __base__=base, __doc__=config.__doc__, **fields)


def _pydantic_type(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(_pydantic_type(arguments[0]), *map(_pydantic_metadata, arguments[1:]))]
    if origin in (Union, UnionType):
        return Union[tuple(map(_pydantic_type, arguments))]  # noqa: UP007  a union of many
    if origin is tuple:
        return tuple.__class_getitem__((_pydantic_type(arguments[0]), ...))
    return hint


def _pydantic_metadata(metadata: Meta | Check) -> Any:
    if isinstance(metadata, Check):
        return AfterValidator(_raising_pydantic_errors(metadata))
    return Field(**{name: getattr(metadata, name) for name in _METADATA})


def _raising_pydantic_errors(check: Check) -> Callable[[Any], Any]:
    kind: Any = HIDDEN_VALUE if check.secret else "check"

    def apply(value: Any) -> Any:
        try:
            return check.apply(value)
        except ValueError as error:
            raise PydanticCustomError(kind, "{message}", {"message": str(error)}) from None

    return apply
