"""Parts of the OpenAPI document that FastAPI cannot derive, because bodies are read by hand, in two forms."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from drpo_rewards.api.contract import Model, Problem
from drpo_rewards.operations import Operation
from drpo_rewards.serving.gateway.problem_documents import PROBLEM
from drpo_rewards.serving.gateway.request_body import RGB8

REFERENCE = "#/components/schemas/{model}"
# With a key or without one, because the operator decides whether a key is needed.
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}]

Responses = dict[int | str, dict[str, Any]]

# The sections of a docstring are for readers of the code; fields have descriptions of their own.
_DOCSTRING_SECTION = re.compile(r"^(?:Attributes|Example):$", re.MULTILINE)


def problems(*statuses: int) -> Responses:
    """Describe the errors of a route, which are all problem documents."""
    content = {PROBLEM: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


METRICS: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401, 403)}


def request_body(operation: Operation[Any, Any]) -> dict[str, Any]:
    """Describe a route's body: JSON with the images inside, or multipart with one JSON part and the images."""
    options = operation.options
    images = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": options.min_images,
        "maxItems": options.max_images,
    }
    multipart = {
        "type": "object",
        "required": ["request", "images"],
        "additionalProperties": False,
        "properties": {"request": {"$ref": REFERENCE.format(model=options.__name__)}, "images": images},
    }
    files = f"image/png, image/jpeg, image/webp, {RGB8}"
    encoding = {"request": {"contentType": "application/json"}, "images": {"contentType": files}}
    content = {
        "application/json": {"schema": {"$ref": REFERENCE.format(model=operation.body.__name__)}},
        "multipart/form-data": {"schema": multipart, "encoding": encoding},
    }
    return {"requestBody": {"required": True, "content": content}, "security": SECURITY}


def complete(app: FastAPI, operations: Iterable[Operation[Any, Any]]) -> None:
    """Complete the document with the models that `request_body` and `problems` refer to."""
    models: list[type[Model] | type[Problem]] = [Problem]
    for operation in operations:
        models += [operation.body, operation.options]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    build_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = build_document()  # FastAPI builds it once and keeps it
        components = document.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | schemas["$defs"]
        for schema in components["schemas"].values():
            if "description" in schema:
                schema["description"] = _DOCSTRING_SECTION.split(schema["description"], maxsplit=1)[0].rstrip()
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents
