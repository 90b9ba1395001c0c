"""The clients of rerank services that the guide names: their packages, and how each calls this service."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        name: for the table.
        packages: with exact versions. Clients with the same packages share an environment.
        setup: what comes before the call.
        call: the call as the guide shows it. It sees URL, QUERY and DOCUMENTS, a list of data: URIs.
        order: an expression of `answer`, the call's result: the indices of the documents, best first.
        own: which of the packages is the client's own, for the table.
    """

    name: str
    packages: tuple[str, ...]
    setup: str
    call: str
    order: str = "[one.index for one in answer.results]"
    own: int = 0

    @property
    def environment(self) -> str:
        """The name of its environment."""
        return self.packages[0].replace("==", "-")

    @property
    def version(self) -> str:
        """Its package and version, for the table."""
        return re.sub(r"(?<=.)(==|@)", " ", self.packages[self.own])


COHERE = ("cohere==7.3.1",)
LANGCHAIN = ("langchain-cohere==0.6.0",)
LLAMA_INDEX = (
    "llama-index-postprocessor-cohere-rerank==0.10.0",
    "llama-index-postprocessor-jinaai-rerank==0.6.0",
    "llama-index-postprocessor-tei-rerank==0.6.0",
)
HAYSTACK = ("haystack-ai==3.4.1", "cohere-haystack==11.0.0", "jina-haystack==2.0.1")
LITELLM = ("litellm==1.105.7",)
NODES = "nodes = [NodeWithScore(node=TextNode(text=uri, metadata={'i': i})) for i, uri in enumerate(DOCUMENTS)]"
NODE_ORDER = "[one.node.metadata['i'] for one in answer]"
RANKER_ORDER = "[one.meta['i'] for one in answer['documents']]"
RANKER_DOCUMENTS = "documents = [Document(content=uri, meta={'i': i}) for i, uri in enumerate(DOCUMENTS)]"


def _litellm(provider: str, path: str = "") -> Client:
    return Client(
        f"LiteLLM, `{provider}`",
        LITELLM,
        "from litellm import rerank",
        f'rerank(model="{provider}/geneval", query=QUERY, documents=DOCUMENTS, api_base=URL{path}, api_key="KEY")',
        "[one['index'] for one in answer.results]",
    )


CLIENTS = (
    Client(
        "Cohere's SDK, v1",
        COHERE,
        "import cohere",
        'cohere.Client("KEY", base_url=URL).rerank(model="geneval", query=QUERY, '
        'documents=[{"text": uri} for uri in DOCUMENTS], return_documents=True)',
    ),
    Client(
        "Cohere's SDK, v2",
        COHERE,
        "import cohere",
        'cohere.ClientV2("KEY", base_url=URL).rerank(model="geneval", query=QUERY, documents=DOCUMENTS)',
    ),
    Client(
        "LangChain, `CohereRerank`",
        LANGCHAIN,
        "from langchain_cohere import CohereRerank\n"
        "from langchain_core.documents import Document\n"
        'documents = [Document(page_content=uri, metadata={"i": i}) for i, uri in enumerate(DOCUMENTS)]',
        'CohereRerank(model="geneval", base_url=URL, cohere_api_key="KEY").compress_documents(documents, QUERY)',
        "[one.metadata['i'] for one in answer]",
    ),
    Client(
        "LangChain, `CohereRerank` with dicts",
        LANGCHAIN,
        "from langchain_cohere import CohereRerank",
        'CohereRerank(model="geneval", base_url=URL, cohere_api_key="KEY").rerank('
        '[{"title": "a picture", "image": uri} for uri in DOCUMENTS], QUERY)',
        "[one['index'] for one in answer]",
    ),
    Client(
        "LlamaIndex, `CohereRerank`",
        LLAMA_INDEX,
        "from llama_index.core.schema import NodeWithScore, TextNode\n"
        f"from llama_index.postprocessor.cohere_rerank import CohereRerank\n{NODES}",
        'CohereRerank(model="geneval", base_url=URL, api_key="KEY", top_n=3).postprocess_nodes(nodes, query_str=QUERY)',
        NODE_ORDER,
    ),
    Client(
        "LlamaIndex, `JinaRerank`",
        LLAMA_INDEX,
        "from llama_index.core.schema import NodeWithScore, TextNode\n"
        f"from llama_index.postprocessor.jinaai_rerank import JinaRerank\n{NODES}",
        'JinaRerank(model="geneval", base_url=URL + "/v1", api_key="KEY", top_n=3)'
        ".postprocess_nodes(nodes, query_str=QUERY)",
        NODE_ORDER,
        own=1,
    ),
    Client(
        "LlamaIndex, `TextEmbeddingInference`",
        LLAMA_INDEX,
        "from llama_index.core.schema import NodeWithScore, TextNode\n"
        f"from llama_index.postprocessor.tei_rerank import TextEmbeddingInference\n{NODES}",
        "TextEmbeddingInference(base_url=URL, top_n=3).postprocess_nodes(nodes, query_str=QUERY)",
        NODE_ORDER,
        own=2,
    ),
    Client(
        "Haystack, `CohereRanker`",
        HAYSTACK,
        "from haystack import Document\nfrom haystack.utils import Secret\n"
        f"from haystack_integrations.components.rankers.cohere import CohereRanker\n{RANKER_DOCUMENTS}",
        'CohereRanker(model="geneval", api_base_url=URL, api_key=Secret.from_token("KEY"))'
        ".run(query=QUERY, documents=documents)",
        RANKER_ORDER,
        own=1,
    ),
    Client(
        "Haystack, `JinaRanker`",
        HAYSTACK,
        "from haystack import Document\nfrom haystack.utils import Secret\n"
        f"from haystack_integrations.components.rankers.jina import JinaRanker\n{RANKER_DOCUMENTS}",
        'JinaRanker(model="geneval", base_url=URL + "/v1/rerank", api_key=Secret.from_token("KEY"))'
        ".run(query=QUERY, documents=documents)",
        RANKER_ORDER,
        own=2,
    ),
    _litellm("cohere"),
    _litellm("jina_ai"),
    _litellm("hosted_vllm"),
    _litellm("infinity", ' + "/infinity"'),
    _litellm("huggingface"),
    Client(
        "infinity's client",
        ("infinity-client==0.0.78",),
        "from infinity_client import Client\nfrom infinity_client.api.default import rerank\n"
        "from infinity_client.models import RerankInput",
        "rerank.sync(client=Client(base_url=URL), body=RerankInput(query=QUERY, documents=DOCUMENTS))",
    ),
    Client(
        "Voyage's client",
        ("voyageai==0.5.0",),
        "import voyageai",
        'voyageai.Client(api_key="KEY", base_url=URL + "/v1").rerank(QUERY, DOCUMENTS, model="geneval")',
    ),
)

VERCEL = Client(
    "Vercel's AI SDK",
    ("ai@6.0.326", "@ai-sdk/cohere@3.0.63"),
    'import { rerank } from "ai";\nimport { createCohere } from "@ai-sdk/cohere";',
    'rerank({ model: createCohere({ baseURL: URL + "/v2", apiKey: "KEY" }).reranking("geneval"), '
    "query: QUERY, documents: DOCUMENTS })",
    "answer.ranking.map((one) => one.originalIndex)",
)

OPENAI = ("openai==3.57.0",)
