"""Errors as the real server words and numbers them, on gRPC and on REST."""

from __future__ import annotations

from typing import NoReturn

import grpc


class QdrantError(Exception):
    """What a call answers instead of a result."""

    def __init__(self, code: grpc.StatusCode, http_status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        self.message = message


def wrong_input(message: str) -> QdrantError:
    return QdrantError(grpc.StatusCode.INVALID_ARGUMENT, 400, f"Wrong input: {message}")


def bad_request(message: str) -> QdrantError:
    return QdrantError(grpc.StatusCode.INVALID_ARGUMENT, 400, f"Bad request: {message}")


def not_found(message: str) -> QdrantError:
    return QdrantError(grpc.StatusCode.NOT_FOUND, 404, f"Not found: {message}")


def no_collection(name: str) -> QdrantError:
    return not_found(f"Collection `{name}` doesn't exist!")


def already_exists(name: str) -> QdrantError:
    return QdrantError(
        grpc.StatusCode.ALREADY_EXISTS, 409, f"Wrong input: Collection `{name}` already exists!"
    )


def checksum_mismatch(expected: str, actual: str) -> QdrantError:
    message = f"Checksum mismatch: expected {expected}, actual {actual}"
    return QdrantError(grpc.StatusCode.DATA_LOSS, 400, message)


def unauthorized(given: str | None) -> QdrantError:
    message = (
        "Must provide an API key or an Authorization bearer token"
        if given is None
        else "Invalid API key or JWT"
    )
    return QdrantError(grpc.StatusCode.UNAUTHENTICATED, 401, message)


def unsupported(what: str) -> NoReturn:
    raise QdrantError(grpc.StatusCode.UNIMPLEMENTED, 501, f"the stub does not know {what}")


def from_engine(error: Exception) -> QdrantError:
    """The engine raises plain exceptions, nearly all about the request."""
    text = str(error)
    if text.startswith("Service runtime error"):
        return QdrantError(grpc.StatusCode.INTERNAL, 500, f"Service internal error: {text}")
    return wrong_input(text)
