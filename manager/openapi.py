"""The API's description, OpenAPI 3.1, made of the table that serves it: it cannot say something else than what is done.

`document()` is served as `/api/v1/openapi.json`; `python -m manager.openapi` writes docs/openapi.json, and a test holds the two together.
"""

from functools import cache
from typing import Any, Final

import msgspec

from manager.api_types import Nothing, Problem
from manager.callers import Scope
from manager.operations import OPERATIONS, WORDS, Operation

PROBLEM: Final = "application/problem+json"
IDEMPOTENCY: Final = "Idempotency-Key"
IDEMPOTENCY_PATTERN: Final = "^[!-~]{1,64}$"

_ABOUT: Final = """Everything that the pages do. An API key (`parley_…`, made on one's account page, with scopes) or the token of a sign-in
(`session_…`, from `/sign-in`) goes into `Authorization: Bearer`. Bodies are JSON of at most 64 KiB; a field that is not listed is refused.
A refusal is RFC 9457, and its `name` is the same in logs, pages and programs; what is wrong with a field stands in `fields`. A meeting's
password has no place here: no server gets it."""


@cache
def document() -> dict[str, Any]:
    """The whole description, as JSON values."""
    kinds = {operation.takes for operation in OPERATIONS} | {op.gives for op in OPERATIONS if not isinstance(op.gives, str)} | {Problem}
    _, schemas = msgspec.json.schema_components(sorted(kinds, key=lambda kind: kind.__name__), ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Parley", "version": "1", "description": _ABOUT, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An API key with scopes ({', '.join(Scope)}), or a sign-in's token.",
                }
            },
        },
        "tags": [{"name": name} for name in dict.fromkeys(_tag(operation) for operation in OPERATIONS)],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [_tag(operation)],
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): {"description": "Done.", "content": _content(operation)},
            "default": {
                "description": "A refusal, by name.",
                "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if operation.scope is not None:
        said["security"] = [{"bearer": [operation.scope.value]}]
    elif operation.people:
        said["security"] = [{"bearer": []}]
    if operation.method != "GET" and operation.takes is not Nothing:
        schema = {"$ref": f"#/components/schemas/{operation.takes.__name__}"}
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema, "example": operation.example}}}
    return said


def _content(operation: Operation) -> dict[str, Any]:
    if isinstance(operation.gives, str):
        return {operation.gives: {"schema": {"type": "string"}}}
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.gives.__name__}"}}}
    if "format" in operation.query:
        content["text/csv"] = {"schema": {"type": "string"}}
    return content


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    said = [_word(name, "path") for name in in_path] + [_word(name, "query") for name in operation.query]
    if operation.replays:
        schema = {"type": "string", "pattern": IDEMPOTENCY_PATTERN}
        text = "A repetition with the same key, within a day, gets the first answer and does nothing."
        said.append({"name": IDEMPOTENCY, "in": "header", "required": False, "schema": schema, "description": text})
    return said


def _word(name: str, place: str) -> dict[str, Any]:
    word = WORDS[name]
    schema = {"type": "string", "pattern": f"^({word.pattern})$"}
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": word.what, "example": word.example}


def _tag(operation: Operation) -> str:
    return operation.path.split("/")[3]


def text() -> str:
    """The document as it stands in docs/."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1).decode() + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parent.parent / "docs" / "openapi.json").write_text(text())
