"""The service's OpenAPI document, where FastAPI cannot know it: bodies are read by hand, in two forms."""

from __future__ import annotations

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
# With a key or without one: whether a key is needed is the operator's choice.
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}]

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """The errors that a route may answer, all in one form."""
    content = {PROBLEM: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


METRICS: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401)}


def request_body(operation: Operation[Any, Any]) -> dict[str, Any]:
    """A route's body: JSON with the images inside, or multipart with the images beside a JSON part."""
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
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()  # made once, then kept by FastAPI
        components = document.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | schemas["$defs"]
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change it
