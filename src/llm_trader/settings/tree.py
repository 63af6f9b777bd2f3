"""The settings: the rooms' configs as the sections of one frozen tree.

The tree never contains a secret, only the names of environment variables that hold secrets. While
it is loaded, pydantic models validate it: they report all mistakes at once and read numbers from
text, which msgspec Structs cannot. The models are built from the fields of the Structs.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from llm_trader.audit.config import AuditConfig
from llm_trader.config_types import Check, NotASetting
from llm_trader.delivery.config import DeliveryConfig
from llm_trader.embedding.config import EmbeddingConfig, VectorCacheConfig
from llm_trader.forecasts.config import ForecastsConfig
from llm_trader.index.config import IndexConfig, IngestConfig
from llm_trader.llm.config import LlmConfig
from llm_trader.llm.record.config import DecisionsConfig
from llm_trader.logs import LoggingConfig
from llm_trader.market.config import MarketConfig
from llm_trader.retrieval.config import RetrievalConfig
from llm_trader.serving.config import ServingConfig
from llm_trader.snapshot.config import SnapshotConfig
from llm_trader.volatility.config import VolatilityConfig
from llm_trader.workflow.config import WorkflowConfig
from llm_trader.workflow.intake_config import IntakeConfig

M = TypeVar("M", bound=BaseModel)

ENV_PREFIX: Final = "LLM_TRADER_"
_METADATA: Final = ("ge", "gt", "le", "lt", "pattern", "min_length", "description", "examples")

# The type of errors whose rejected value may be a secret.
HIDDEN_VALUE: Final = "hidden_value"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `load_settings` reads them; the constructor takes defaults and arguments."""

    market: MarketConfig = MarketConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    volatility: VolatilityConfig = VolatilityConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    cache: VectorCacheConfig = VectorCacheConfig()
    index: IndexConfig = IndexConfig()
    ingest: IngestConfig = IngestConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    serving: ServingConfig = ServingConfig()
    audit: AuditConfig = AuditConfig()
    forecasts: ForecastsConfig = ForecastsConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    llm: LlmConfig = LlmConfig()
    decisions: DecisionsConfig = DecisionsConfig()
    workflow: WorkflowConfig = WorkflowConfig()
    intake: IntakeConfig = IntakeConfig()
    logging: LoggingConfig = LoggingConfig()

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all values; equal settings have equal digests."""
        values = {key: functools.reduce(getattr, key.split("."), self) for key in SETTINGS}
        canonical = json.dumps(values, default=Path.as_posix, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class SectionModel(BaseModel):
    """A section of the settings while it is validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1, and a switch where a number belongs is a mistake.
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
    if isinstance(metadata, Meta):
        return Field(**{name: getattr(metadata, name) for name in _METADATA})

    def apply(value: Any) -> Any:
        try:
            return metadata.apply(value)
        except ValueError as error:
            kind: Any = HIDDEN_VALUE if metadata.secret else "check"
            raise PydanticCustomError(kind, "{message}", {"message": str(error)}) from None

    return AfterValidator(apply)


class _Sources(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )


SettingsModel = model_of(Settings, _Sources)


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield prefix + name, type(field.default)
            yield from _sections(type(field.default), f"{prefix}{name}.")


# Sections and settings by their dotted keys, such as `index.qdrant` and `index.qdrant.url`.
SECTIONS: Final[dict[str, type[BaseModel]]] = dict(_sections(SettingsModel))
SETTINGS: Final[dict[str, FieldInfo]] = {
    f"{section}.{name}": field
    for section, model in SECTIONS.items()
    for name, field in model.model_fields.items()
    if not isinstance(field.default, BaseModel)
}


def env_name(key: str) -> str:
    """The environment variable of a setting: `serving.port` is `LLM_TRADER_SERVING__PORT`."""
    return ENV_PREFIX + key.replace(".", "__").upper()
