"""The server's own description, in OpenAPI 3.1, from the records that read requests and write answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bunny.serve.replies import ChatCompletion, ChatCompletionChunk, ErrorReply, Health, Model, ModelList
from bunny.serve.schema import ChatCompletionRequest

REASONS = {
    400: "The request is wrong; `param` names what.",
    401: "No key, or a wrong one.",
    403: "Asked for by another site, or under another name.",
    404: "No such model or address.",
    405: "Another method is meant.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not plain JSON.",
    429: "Too much at once; Retry-After says when to come again.",
    500: "The model failed.",
    503: "The models are being loaded, or the server is stopping.",
    504: "The answer took too long.",
}
REPLIES: tuple[type[BaseModel], ...] = (ChatCompletion, ChatCompletionChunk, ErrorReply, Health, Model, ModelList)


def document(version: str, keyed: bool) -> dict[str, Any]:
    """The whole document. keyed: whether a key is demanded."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bunny",
            "version": version,
            "description": "Chat with vision-language models. The part of OpenAI's API that they can do.",
        },
        "paths": _paths(keyed),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths(keyed: bool) -> dict[str, Any]:
    safe: list[Mapping[str, Any]] = [{"key": []}] if keyed else []
    key = (401,) if keyed else ()
    completion = _json("ChatCompletion", "The answer; with `stream`, its pieces and then `[DONE]`.")
    completion["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    plain = {"description": "Prometheus's text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/v1/chat/completions": {
            "post": {
                "operationId": "create_chat_completion",
                "summary": "Answer a conversation",
                "security": safe,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _ref("ChatCompletionRequest")}},
                },
                "responses": {
                    "200": completion,
                    **_errors(400, *key, 403, 404, 408, 413, 415, 429, 500, 503, 504),
                },
            }
        },
        "/v1/models": {"get": _get("list_models", "The models", _json("ModelList"), (*key, 403), safe)},
        "/v1/models/{id}": {
            "get": {
                **_get("get_model", "One model", _json("Model"), (*key, 403, 404), safe),
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                ],
            }
        },
        "/health": {"get": _get("health", "Whether the process lives", _json("Health"), (403,))},
        "/ready": {"get": _get("ready", "Whether questions are taken", _json("Health"), (403, 503))},
        "/metrics": {"get": _get("metrics", "Figures for Prometheus", plain, (*key, 403), safe)},
    }


def _get(
    name: str, summary: str, good: Mapping[str, Any], errors: Sequence[int], security: Sequence[Any] = ()
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": list(security),
        "responses": {"200": good, **_errors(*errors)},
    }


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _json("ErrorReply", REASONS[status]) for status in statuses}


def _json(name: str, description: str = "") -> dict[str, Any]:
    return {"description": description or f"A {name}.", "content": {"application/json": {"schema": _ref(name)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    _, read = models_json_schema([(ChatCompletionRequest, "validation")], ref_template=template)
    _, written = models_json_schema([(reply, "serialization") for reply in REPLIES], ref_template=template)
    found: dict[str, Any] = {**written["$defs"], **read["$defs"]}
    return found
