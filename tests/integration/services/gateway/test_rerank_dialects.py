"""Requests of rerank services' clients, as they arrive over HTTP, and the members of the answers that they read."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from support.service import PICTURES, REDS

from drpo_rewards import serving
from drpo_rewards.api.images import encode_png

pytestmark = pytest.mark.integration

URIS = [f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}" for picture in PICTURES[:4]]
PLAIN = [uri.partition(",")[2] for uri in URIS]
ORDER = np.argsort(-REDS[:4]).tolist()
BEST = ORDER[0]


def part(uri: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri, "detail": "auto"}}


@pytest.fixture(scope="module")
def http(service: serving.RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(service.http_url), timeout=30, trust_env=False) as client:
        yield client


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = http.post(path, json={"model": "redness", "query": "p"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


DOCUMENTS = {
    "bare URIs": URIS,
    "URIs in lines": [f"data:image/png;base64,{textwrap.fill(text, 76)}\n" for text in PLAIN],
    "URIs in lines of Java": [
        f"data:image/png;base64, {textwrap.fill(text, 64)}".replace("\n", "\r\n") for text in PLAIN
    ],
    "Jina's images": [{"image": uri} for uri in URIS],
    "images in base64": [{"image": text} for text in PLAIN],
    "Jina's URLs": [{"url": uri} for uri in URIS],
    "Cohere v1's texts": [{"text": uri} for uri in URIS],
    "Cohere v1's fields": [{"title": "a cat", "snippet": uri, "year": 2024} for uri in URIS],
    "vLLM's parts": [{"content": [part(uri)]} for uri in URIS],
    "vLLM's parts with a text": [{"content": [part(uri), {"type": "text", "text": "a cat"}]} for uri in URIS],
    "an image and a text": [{"image": uri, "text": "a cat"} for uri in URIS],
    "vLLM's one message": {"content": [part(uri) for uri in URIS]},
    "a message of a user": {"role": "user", "content": [{"type": "image", "image": uri} for uri in URIS]},
    "LlamaIndex's nodes": [f"i: {index}\n\n{uri}" for index, uri in enumerate(URIS)],
    "LlamaIndex's nodes with text behind": [f"{uri}\n\nsource: a.png" for uri in URIS],
    "LangChain's dicts": [f"page_content: {uri}\nmetadata:\n  source: a.png\n" for uri in URIS],
    "LangChain's quoted dicts": [f"title: 'x'\npage_content: '{uri}'\n" for uri in URIS],
}


@pytest.mark.parametrize("form", DOCUMENTS)
def test_documents_in_every_form(http: httpx.Client, form: str) -> None:
    answer = post(http, "/v1/rerank", {"documents": DOCUMENTS[form], "return_documents": True})
    assert [one["index"] for one in answer["results"]] == ORDER
    assert [one["relevance_score"] for one in answer["results"]] == pytest.approx(REDS[ORDER].tolist())
    sent: Any = DOCUMENTS[form]["content"] if isinstance(DOCUMENTS[form], dict) else DOCUMENTS[form]
    expected = [{"text": sent[i]} if isinstance(sent[i], str) else sent[i] for i in ORDER]
    assert [one["document"] for one in answer["results"]] == expected


@pytest.mark.parametrize(
    "query",
    [
        {"text": "p"},
        {"content": [{"type": "text", "text": "p"}]},
        [{"type": "text", "text": "p"}],
        {"role": "user", "content": "p"},
        ["p"],
    ],
)
def test_queries_in_every_form(http: httpx.Client, query: Any) -> None:
    assert post(http, "/rerank", {"query": query, "documents": URIS})["results"][0]["index"] == BEST


KEYS: dict[str, dict[str, Any]] = {
    "Cohere v1": {"rank_fields": ["text"], "return_documents": False, "max_chunks_per_doc": 10},
    "Cohere v2": {"max_tokens_per_doc": 4096, "priority": 0},
    "Jina": {"max_doc_length": 1024, "max_query_length": 512, "return_documents": False, "truncation": True},
    "vLLM": {
        "top_n": 0,
        "activation": True,
        "use_activation": False,
        "softmax": None,
        "mm_processor_kwargs": {"num_crops": 4},
        "truncate_prompt_tokens": -1,
        "truncation_side": "left",
        "priority": 0,
        "user": "u",
    },
    "Voyage": {"top_k": None, "truncation": True},
    "Dify": {"top_n": 4, "return_documents": True},
    "no model": {"model": None},
    "infinity": {"model": "default/not-specified", "raw_scores": False},
}


@pytest.mark.parametrize("client", KEYS)
def test_keys_of_every_client(http: httpx.Client, client: str) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/rerank/", "/v1/rerank/"):
        answer = post(http, path, {"documents": URIS, **KEYS[client]})
        assert [one["index"] for one in answer["results"]] == ORDER
        assert answer["model"] == KEYS[client].get("model", "redness") or answer["model"] == "default"


def test_the_common_answer(http: httpx.Client) -> None:
    """Cohere's clients read `meta`, Vercel's checks it, infinity's needs `usage.prompt_tokens`."""
    answer = post(http, "/v2/rerank", {"documents": URIS, "top_n": 2})
    assert set(answer) == {"id", "model", "results", "usage", "meta"}
    assert answer["meta"] == {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    assert answer["usage"] == {"images": 4, "prompt_tokens": 0, "total_tokens": 0}
    assert [set(one) for one in answer["results"]] == [{"index", "relevance_score"}] * 2
    assert answer["id"]


def test_text_embeddings_inference(http: httpx.Client) -> None:
    """LiteLLM's `huggingface` sends these keys, and no model."""
    keys = {"raw_scores": False, "truncate": False, "truncation_direction": "Right", "return_text": True, "top_n": 3}
    answer = post(http, "/rerank", {"texts": URIS, **keys})
    assert answer == [{"index": i, "score": pytest.approx(REDS[i]), "text": URIS[i]} for i in ORDER[:3]]
    bare = http.post("/rerank", json={"query": "p", "texts": URIS}).json()
    assert [set(one) for one in bare] == [{"index", "score"}] * 4


def test_infinity(http: httpx.Client) -> None:
    """Its documents are strings. LiteLLM's `infinity` sends no key of its own, so it needs a path of its own."""
    for path, more in (("/v1/rerank", {"raw_scores": False}), ("/infinity/rerank", {})):
        for documents in (URIS, [{"text": uri} for uri in URIS], [{"image": uri} for uri in URIS]):
            answer = post(http, path, {"documents": documents, "return_documents": True, **more})
            assert [one["document"] for one in answer["results"]] == [URIS[i] for i in ORDER]
        assert (answer["object"], answer["usage"]["prompt_tokens"]) == ("rerank", 0)
        assert answer["created"] > 1.7e9


def test_voyage(http: httpx.Client) -> None:
    answer = post(http, "/v1/rerank", {"documents": URIS, "top_k": 2, "return_documents": True})
    scores = [{"index": i, "relevance_score": pytest.approx(REDS[i])} for i in ORDER[:2]]
    assert answer["data"] == [one | {"document": URIS[one["index"]]} for one in scores]
    assert answer["object"] == "list"
    assert len(answer["results"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "p", "text_2": URIS},
        {"text_1": ["p"], "text_2": {"content": [part(uri) for uri in URIS]}},
        {"data_1": {"content": [{"type": "text", "text": "p"}]}, "data_2": URIS},
        {"queries": "p", "documents": [{"content": [part(uri)]} for uri in URIS]},
        {"queries": "p", "items": URIS, "use_activation": True},
    ],
)
def test_vllms_scores(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = http.post("/score", json={"model": "redness"} | body).json()
    assert answer["data"] == [
        {"index": i, "object": "score", "score": pytest.approx(REDS[i])} for i in range(len(URIS))
    ]
    assert (answer["object"], answer["model"]) == ("list", "redness")
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_one_image_for_vllms_scores(http: httpx.Client) -> None:
    answer = http.post("/score", json={"model": "redness", "text_1": "p", "text_2": URIS[0]}).json()
    assert [one["score"] for one in answer["data"]] == [pytest.approx(REDS[0])]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"documents": URIS, "texts": URIS}, "documents", "or else as `texts`"),
    ({}, "documents", "or else as `texts`"),
    ({"documents": []}, "documents", "1 to 256"),
    ({"documents": URIS * 65}, "documents", "1 to 256"),
    ({"documents": {"content": "text"}}, "documents", "1 to 256"),
    ({"documents": URIS, "top_n": 1, "top_k": 2}, "top_k", "differ"),
    ({"documents": URIS, "top_n": -1}, "top_n", "greater than or equal to 0"),
    ({"documents": URIS, "query": ["a", "b"]}, "query", "one text"),
    ({"documents": URIS, "query": {"image": URIS[0]}}, "query", "one text"),
    ({"documents": URIS, "query": None}, "query", "one text"),
    ({"documents": URIS, "query": ""}, "query", "at least 1 character"),
    ({"documents": URIS, "instruction": "prefer cats"}, "instruction", "no such key"),
    ({"documents": URIS, "max_chunk_per_doc": 1}, "max_chunk_per_doc", "did you mean max_chunks_per_doc"),
    ({"texts": ["a cat"]}, "texts[0]", "not an image document"),
    ({"documents": [f"{URIS[0]} {URIS[1]}"]}, "documents[0]", "has 2 images"),
    ({"documents": [{"content": [part(URIS[0]), part(URIS[1])]}]}, "documents[0]", "has 2 images"),
    ({"documents": [[part(URIS[0])]]}, "documents[0]", "not an image document"),
]


@pytest.mark.parametrize(("body", "field", "reason"), REFUSED)
def test_what_has_no_one_meaning_is_refused(http: httpx.Client, body: dict[str, Any], field: str, reason: str) -> None:
    response = http.post("/v1/rerank", json={"model": "redness", "query": "p"} | body)
    problem = response.json()
    assert (response.status_code, problem["field"]) == (422, field)
    assert reason in problem["detail"]
    assert len(problem["detail"]) < 500


def test_several_queries_for_vllms_scores_are_refused(http: httpx.Client) -> None:
    response = http.post("/score", json={"text_1": ["p", "q"], "text_2": URIS[:2]})
    assert (response.status_code, response.json()["field"]) == (422, "query")


def test_vllms_scores_at_our_own_path_name_theirs(http: httpx.Client) -> None:
    response = http.post("/v1/score", json={"model": "redness", "text_1": "p", "text_2": URIS})
    assert (response.status_code, "takes at POST /score" in response.json()["detail"]) == (422, True)


def test_models_as_other_clients_list_them(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == [one["name"] for one in listed["models"]]
    one = http.get("/v1/models/redness").json()
    assert (one["id"], one["object"], one["kind"]) == ("redness", "model", "reward")
    assert http.get("/v1/models/both/").json()["weights"] == {"redness": 3.0, "darkness": 1.0}
    unknown = http.get("/v1/models/beauty")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_reward")
    assert http.get("/health").status_code == 200
