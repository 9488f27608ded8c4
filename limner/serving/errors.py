"""Errors as OpenAI's clients read them: {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from limner.config import nearest

#: Characters of a wrong value that an error repeats.
SHOWN = 100


class ApiError(Exception):
    """A request that cannot be answered, with the HTTP status to say so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)  # what a copy in another process is made from
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, dict(headers or {})

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        error = {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }  # fmt: skip
        return {"error": error}


#: How Anthropic's clients call errors, by status; every other 4xx is an invalid_request_error.
ANTHROPIC_KINDS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip


def error_body(path: str, error: ApiError, request_id: str) -> dict[str, Any]:
    """The body that says `error`, in the form that the clients of a path read."""
    if not path.startswith("/v1/messages"):
        return error.body
    kind = "api_error" if error.status >= 500 else "invalid_request_error"
    told = {"type": ANTHROPIC_KINDS.get(error.status, kind), "message": error.message}
    return {"type": "error", "error": told, "request_id": request_id}


def server_error(message: str) -> ApiError:
    """An error that is not the client's."""
    return ApiError(500, message, kind="server_error")


def wrong_body(model: type[BaseModel], error: ValidationError) -> ApiError:
    """What is wrong with a request's body, in one line that names the field and the value."""
    details = error.errors(include_url=False, include_context=False)
    # of a field with several forms, the one that was meant says most
    known = (detail for detail in details if detail["type"] == "unsupported_parameter")
    first = next(known, details[0])
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON that can be read: {first['msg']}")
    if first["type"] == "extra_forbidden":
        name = ".".join(map(str, first["loc"]))
        hint = nearest(name, list(model.model_fields)) if len(first["loc"]) == 1 else ""
        return ApiError(400, f"Unrecognized request argument supplied: {name}{hint}", param=param)
    if first["type"] == "missing":
        name = ".".join(map(str, first["loc"]))
        return ApiError(400, f"Missing required parameter: '{name}'", param=param)
    if first["type"] == "unsupported_parameter":
        return ApiError(400, first["msg"], param=param, code="unsupported_parameter")
    return ApiError(400, _wrong_value(param, details), param=param, code="invalid_value")


def _wrong_value(param: str | None, details: Sequence[ErrorDetails]) -> str:
    """One sentence for one field; of a field with several forms, what each form asks for."""
    if param is None:
        return f"the body must be a JSON object: {details[0]['msg']}"
    first = details[0]
    place = ".".join(str(part) for part in first["loc"] if not _is_form(part))
    own = [detail for detail in details if detail["loc"][0] == param]
    asked = list(dict.fromkeys(_lower(detail["msg"]) for detail in own[:4]))
    shown = repr(first["input"])
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"{place}: {', or '.join(asked)}, not {shown}"


def _is_form(part: int | str) -> bool:
    """Whether a part of a location is pydantic's name for one form of several (list[str])."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)


def _lower(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")
