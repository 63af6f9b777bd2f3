"""Each error that the SDKs can raise has a kind."""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType
from typing import Any

import httpx2
import pytest

from llm_trader.llm.providers.protocol import FailureKind
from llm_trader.llm.providers.sdk_failures import failure_of, kind_of_status

REQUEST = httpx2.Request("POST", "http://127.0.0.1/")


@pytest.fixture(params=["anthropic", "openai"])
def sdk(request: pytest.FixtureRequest) -> ModuleType:
    """Imported when a test asks for it, as the two take two seconds."""
    return importlib.import_module(request.param)


def errors_of(sdk: ModuleType) -> list[type[Exception]]:
    # `inspect.isclass` would load every resource of the SDK, which looks like a class until then.
    classes = [value for value in vars(sdk).values() if type(value) is type]
    return [value for value in classes if issubclass(value, sdk.APIError)]


def raised(error: Any) -> Exception:
    """One of the class, whatever it is made of."""
    status = getattr(error, "status_code", 500)
    response = httpx2.Response(status if isinstance(status, int) else 500, request=REQUEST)
    for arguments, names in (
        (("x",), {"response": response, "body": None}),
        ((), {"response": response, "body": None}),
        (("x", REQUEST), {"body": None}),
        ((), {"request": REQUEST}),
    ):
        with contextlib.suppress(TypeError):
            return error(*arguments, **names)
    raise AssertionError(f"how is {error} made?")


@pytest.mark.parametrize(
    "status", [300, 307, 400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 429, 500, 502, 503, 529]
)
def test_an_error_reply_has_the_kind_of_its_status(sdk: ModuleType, status: int):
    response = httpx2.Response(status, request=REQUEST)
    error = sdk.APIStatusError("x", response=response, body={"message": "y"})
    assert failure_of(error) == (kind_of_status(status), f"{status}: y")


@pytest.mark.parametrize(
    ("name", "kind"), [("APIConnectionError", "connection"), ("APITimeoutError", "timeout")]
)
def test_an_error_without_a_reply_has_the_kind_of_its_cause(
    sdk: ModuleType, name: str, kind: FailureKind
):
    failure = failure_of(getattr(sdk, name)(request=REQUEST))
    assert failure is not None
    assert failure[0] == kind


def test_no_error_class_of_the_sdk_is_without_a_kind(sdk: ModuleType):
    classes = errors_of(sdk)
    assert len(classes) >= 10
    assert [one.__name__ for one in classes if failure_of(raised(one)) is None] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ReadTimeout("x"), "timeout"),
        (httpx2.RemoteProtocolError("x"), "connection"),
        (httpx2.ReadError("x"), "connection"),
        (httpx2.DecodingError("x"), "connection"),
        (AttributeError("x"), "bad_reply"),
    ],
)
def test_what_happens_below_the_sdk_has_a_kind(error: Exception, kind: FailureKind):
    failure = failure_of(error)
    assert failure is not None
    assert failure[0] == kind


async def test_an_error_of_the_event_loop_below_the_client_is_one_of_the_connection():
    async def broken(request: httpx2.Request) -> httpx2.Response:
        raise RuntimeError("unable to perform operation on a closed transport")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(broken)) as client:
        with pytest.raises(RuntimeError) as raised:
            await client.send(REQUEST)
    failure = failure_of(raised.value)
    assert failure is not None
    assert failure[0] == "connection"


def test_an_error_that_no_reply_explains_stays_what_it_is():
    assert failure_of(ZeroDivisionError("x")) is None
    assert failure_of(MemoryError()) is None
