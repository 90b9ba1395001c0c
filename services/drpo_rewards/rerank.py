"""The JSON body of `POST /v1/rerank`: the shape of Cohere, Jina and vLLM, so that their clients work unchanged.

A document is an image: `{"image": "data:..."}` (or plain base64), `{"content": [{"type": "image_url", "image_url":
{"url": "data:..."}}]}`, or a bare `data:` URI. Text documents are refused; nothing is fetched.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from drpo_rewards.api.contract import MAX_IMAGES
from drpo_rewards.errors import InvalidImageError
from drpo_rewards.operations import RerankOptions

_URI = {"type": "string", "format": "uri", "description": "A data: URI, or base64, of a PNG, JPEG or WebP file."}
_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {"url": _URI, "detail": {"type": "string", "description": "Ignored."}},
        },
    },
}


def _object(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [key], "additionalProperties": False, "properties": {key: schema}}


_DOCUMENT = {
    "anyOf": [
        _object("image", _URI),
        _object("content", {"type": "array", "items": _PART, "minItems": 1, "maxItems": 1}),
        _URI,
    ]
}
Document = Annotated[Any, WithJsonSchema(_DOCUMENT)]
Ignored = Annotated[Any, Field(default=None, description="Taken and ignored: it means something for text only.")]


class RerankRequest(RerankOptions):
    """The JSON body of `POST /v1/rerank`."""

    documents: list[Document] = Field(min_length=1, max_length=MAX_IMAGES)
    return_documents: bool = False
    max_tokens_per_doc: Ignored
    max_chunks_per_doc: Ignored
    truncation: Ignored
    truncate_prompt_tokens: Ignored
    priority: Ignored
    user: Ignored

    def split(self) -> tuple[RerankOptions, list[str]]:
        return self, [_image_of(document, self.image_field(index)) for index, document in enumerate(self.documents)]

    def document(self, index: int) -> Any | None:
        return self.documents[index] if self.return_documents else None


def _image_of(document: Any, field: str) -> str:
    """The base64 text (or URI, refused later) of one document; InvalidImageError where it has none."""
    if isinstance(document, str) and document[:5].lower() == "data:":
        return document
    if isinstance(document, dict):
        if set(document) == {"image"} and isinstance(document["image"], str):
            return document["image"]
        content = document.get("content")
        if set(document) == {"content"} and isinstance(content, list) and len(content) == 1:
            part = content[0] if isinstance(content[0], dict) else {}
            target = part.get("image_url")
            if part.get("type") == "image_url" and isinstance(target, dict) and isinstance(target.get("url"), str):
                return target["url"]
    raise InvalidImageError(
        f'{field} is no image document; write {{"image": "data:image/png;base64,..."}} or {{"content": [{{"type": '
        f'"image_url", "image_url": {{"url": "data:..."}}}}]}} with one image (this service ranks images, not text)',
        field=field,
    )
