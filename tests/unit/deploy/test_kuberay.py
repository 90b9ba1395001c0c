"""The manifests in deploy/kuberay are complete, and agree with the compose cluster.

With KUBERAY_CRDS=FOLDER (helm-chart/kuberay-operator/crds of a copy of KubeRay) they are also checked against KubeRay's
schemas.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support import ROOT

from drpo.cli.common import parse_settings
from drpo.config import load_config

DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "kuberay").glob("*.yaml"))
DOCUMENTS = {
    (document["kind"], document["metadata"]["name"]): document
    for file in FILES
    for document in yaml.safe_load_all(file.read_text())
}
SERVICE, JOB = DOCUMENTS["RayService", "drpo-rewards"], DOCUMENTS["RayJob", "drpo-sd-turbo"]
RANKING = DOCUMENTS["Service", "drpo-ranking"]
CLUSTERS = {"rewards": SERVICE["spec"]["rayClusterConfig"], "training": JOB["spec"]["rayClusterSpec"]}

KUBERNETES = "1.37"

# The keys that KubeRay knows in each section (ray-operator/apis/ray/v1, 1.5.1). It ignores unknown keys silently.
KNOWN = {
    "RayService": {"serveConfigV2", "rayClusterConfig"},
    "RayJob": {
        "submissionMode", "entrypoint", "entrypointResources", "backoffLimit", "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished", "rayClusterSpec",
    },
    "cluster": {
        "rayVersion", "authOptions", "gcsFaultToleranceOptions", "enableInTreeAutoscaling", "autoscalerOptions",
        "headGroupSpec", "workerGroupSpecs",
    },
    "gcsFaultToleranceOptions": {"redisAddress", "redisPassword", "redisUsername", "externalStorageNamespace"},
    "autoscalerOptions": {"idleTimeoutSeconds", "upscalingMode", "resources", "image", "env"},
    "head": {"rayStartParams", "template"},
    "workers": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}  # fmt: skip


def groups() -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the settings of every head and worker group."""
    for name, cluster in CLUSTERS.items():
        yield f"{name} head", cluster["headGroupSpec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group


def walk(value: Any) -> Iterator[Any]:
    """A value, and all values inside it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


def test_every_key_is_one_that_kuberay_knows() -> None:
    for document in (SERVICE, JOB):
        assert document["apiVersion"] == "ray.io/v1"
        assert document["spec"].keys() <= KNOWN[document["kind"]]
    for cluster in CLUSTERS.values():
        assert cluster.keys() <= KNOWN["cluster"]
        assert cluster["authOptions"] == {"mode": "token"}
        for options in ("gcsFaultToleranceOptions", "autoscalerOptions"):
            assert cluster.get(options, {}).keys() <= KNOWN[options]
        assert cluster["headGroupSpec"].keys() <= KNOWN["head"]
        for group in cluster["workerGroupSpecs"]:
            assert group.keys() <= KNOWN["workers"]
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("name", "group"), list(groups()))
def test_pods_are_restricted_have_probes_and_their_volumes(name: str, group: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes only strings"
    pod = group["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 10001
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    resources = container["resources"]
    assert resources["requests"] == resources["limits"], "Ray assigns all that it sees, so a pod must own all of it"


def test_the_service_has_the_config_of_the_compose_cluster() -> None:
    assert SERVICE["spec"]["serveConfigV2"].strip() == (DEPLOY / "cluster" / "serve-gpu.yaml").read_text().strip()
    (application,) = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["applications"]
    ports = {port["name"]: port["targetPort"] for port in RANKING["spec"]["ports"]}
    assert ports == {"http": application["args"]["http_port"], "grpc": application["args"]["grpc_port"]}


def test_gateways_rewards_and_trainers_find_their_nodes() -> None:
    for name, group in groups():
        if not name.endswith("head"):
            resource, amount = {
                "gateways": ("gateways", 1),
                "rewards": ("rewards", 1000),
                "trainers": ("trainer", 1000),
            }[group["groupName"]]
            assert group["rayStartParams"]["resources"] == f'"{{\\"{resource}\\": {amount}}}"'
            (container,) = group["template"]["spec"]["containers"]
            assert container["resources"]["limits"].get("nvidia.com/gpu", 0) >= (resource != "gateways")
            ports = {port["containerPort"] for port in container["ports"]}
            assert ({8000, 9000} <= ports) == (RANKING["spec"]["selector"] == {"ray.io/group": group["groupName"]})


def test_drpo_accepts_the_command_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRPO_SITE", str(DEPLOY / "cluster" / "site.yaml"))
    command, resume = re.fullmatch(r"python -m drpo train --preset (.*) \$\((.*)\)", JOB["spec"]["entrypoint"]).groups()
    preset, *options = shlex.split(command)
    config = load_config(preset, parse_settings(options, {})[1])
    assert config.rewards.address == f"grpc://{RANKING['metadata']['name']}:9000"
    assert resume == f"test -f {config.run.folder}/{config.run.name}/config.yaml && echo --resume {config.run.name}"
    for _, group in groups():
        if group.get("groupName") == "trainers":
            (container,) = group["template"]["spec"]["containers"]
            assert config.rewards.api_key_env in {variable["name"] for variable in container["env"]}
            assert config.training.num_workers <= group["maxReplicas"]


def test_every_named_claim_and_secret_exists() -> None:
    claims, keys = set(), set()
    for part in walk(list(DOCUMENTS.values())):
        if isinstance(part, dict):
            claims |= {part["persistentVolumeClaim"]["claimName"]} if "persistentVolumeClaim" in part else set()
            if "secretKeyRef" in part:
                assert part["secretKeyRef"]["name"] == "drpo"
                keys.add(part["secretKeyRef"]["key"])
            if part.get("secretName") == "drpo":
                keys |= {item["key"] for item in part["items"]}
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= DOCUMENTS.keys()
    guide = (DEPLOY / "README.md").read_text()
    assert {key for key in keys if f"--from-literal={key}=" in guide} == keys


def kubernetes_documents() -> Iterator[Any]:
    """Every part of the manifests with a Kubernetes type: whole documents, and parts of KubeRay's documents."""
    for (kind, name), document in DOCUMENTS.items():
        if document not in (SERVICE, JOB):
            yield pytest.param(document, id=f"{kind} {name}")
    for name, group in groups():
        yield pytest.param({"apiVersion": "v1", "kind": "Pod", **group["template"]}, id=f"Pod of {name}")


@pytest.mark.parametrize("document", list(kubernetes_documents()))
def test_kubernetes_schema_accepts_it(document: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def test_kubernetes_schema_refuses_a_misspelt_key() -> None:
    pod = copy.deepcopy(SERVICE["spec"]["rayClusterConfig"]["headGroupSpec"]["template"])
    pod["spec"]["containers"][0]["readinesProbe"] = pod["spec"]["containers"][0].pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, KUBERNETES, strict=True)


@pytest.mark.skipif(not os.environ.get("KUBERAY_CRDS"), reason="KUBERAY_CRDS names no folder of KubeRay's schemas")
@pytest.mark.parametrize("document", [SERVICE, JOB], ids=lambda document: document["kind"])
def test_kuberay_schema_accepts_it(document: dict[str, Any]) -> None:
    file = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{document['kind'].lower()}s.yaml"
    (version,) = (item for item in yaml.safe_load(file.read_text())["spec"]["versions"] if item["name"] == "v1")
    jsonschema.validate(document, forbid_other_keys(version["schema"]["openAPIV3Schema"]))


def forbid_other_keys(schema: Any) -> Any:
    """The schema, changed so that objects accept only the keys it lists. Kubernetes ignores other keys silently."""
    if isinstance(schema, list):
        return [forbid_other_keys(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: forbid_other_keys(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
