"""The manifests of deploy/kuberay: what they name is there, and they agree with the compose cluster.

KUBERAY_CRDS=FOLDER (helm-chart/kuberay-operator/crds of a copy of KubeRay) has them checked against its schemas too.
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

from drpo.cli.common import parse_overrides
from drpo.config import load_config

DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "kuberay").glob("*.yaml"))
DOCUMENTS = {
    (document["kind"], document["metadata"]["name"]): document
    for file in FILES
    for document in yaml.safe_load_all(file.read_text())
}
SERVICE, JOB = DOCUMENTS["RayService", "drpo-rewards"], DOCUMENTS["RayJob", "drpo-sd-turbo"]
CLUSTERS = {"rewards": SERVICE["spec"]["rayClusterConfig"], "training": JOB["spec"]["rayClusterSpec"]}

KUBERNETES = "1.37"

# What KubeRay knows at these places (ray-operator/apis/ray/v1, 1.5.1); an unknown key would be dropped without a word.
KNOWN = {
    "RayService": {"serveService", "serveConfigV2", "rayClusterConfig"},
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
    """(name, group) of every head and worker group."""
    for name, cluster in CLUSTERS.items():
        yield f"{name} head", cluster["headGroupSpec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group


def walk(value: Any) -> Iterator[Any]:
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
def test_pods_are_confined_probed_and_have_what_they_mount(name: str, group: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings only"
    pod = group["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 10001
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    resources = container["resources"]
    assert resources["requests"] == resources["limits"], "Ray hands out what it sees, so a pod must have all of it"


def test_the_service_is_the_clusters_own_configuration() -> None:
    assert SERVICE["spec"]["serveConfigV2"].strip() == (DEPLOY / "cluster" / "serve-gpu.yaml").read_text().strip()
    ports = {port["name"]: port["port"] for port in SERVICE["spec"]["serveService"]["spec"]["ports"]}
    serve = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
    assert ports == {"serve": serve["http_options"]["port"], "grpc": serve["grpc_options"]["port"]}


def test_rewards_and_trainers_find_their_nodes() -> None:
    for name, group in groups():
        if not name.endswith("head"):
            resource = {"rewards": "rewards", "trainers": "trainer"}[group["groupName"]]
            assert group["rayStartParams"]["resources"] == f'"{{\\"{resource}\\": 1000}}"'
            (container,) = group["template"]["spec"]["containers"]
            assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1


def test_the_jobs_command_is_one_that_drpo_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRPO_SITE", str(DEPLOY / "cluster" / "site.yaml"))
    command, resume = re.fullmatch(r"python -m drpo train --preset (.*) \$\((.*)\)", JOB["spec"]["entrypoint"]).groups()
    preset, *options = shlex.split(command)
    config = load_config(preset, parse_overrides(options))
    service = SERVICE["spec"]["serveService"]["metadata"]["name"]
    assert config.rewards.address == f"grpc://{service}:9000"
    assert resume == f"test -f {config.run.folder}/{config.run.name}/config.yaml && echo --resume {config.run.name}"
    for _, group in groups():
        if group.get("groupName") == "trainers":
            (container,) = group["template"]["spec"]["containers"]
            assert config.rewards.api_key_env in {variable["name"] for variable in container["env"]}
            assert config.training.num_workers <= group["maxReplicas"]


def test_claims_and_secrets_that_are_named_are_made() -> None:
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


def kubernetes_own() -> Iterator[Any]:
    """Every part of the manifests whose type is Kubernetes' own: whole documents, and what is inside KubeRay's."""
    for (kind, name), document in DOCUMENTS.items():
        if document not in (SERVICE, JOB):
            yield pytest.param(document, id=f"{kind} {name}")
    service = {"apiVersion": "v1", "kind": "Service", **SERVICE["spec"]["serveService"]}
    yield pytest.param(service, id="Service of the rewards")
    for name, group in groups():
        yield pytest.param({"apiVersion": "v1", "kind": "Pod", **group["template"]}, id=f"Pod of {name}")


@pytest.mark.parametrize("document", list(kubernetes_own()))
def test_kubernetes_schema_takes_it(document: dict[str, Any]) -> None:
    """With no key that it does not know."""
    assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def test_kubernetes_schema_refuses_a_slip_of_the_pen() -> None:
    pod = copy.deepcopy(SERVICE["spec"]["rayClusterConfig"]["headGroupSpec"]["template"])
    pod["spec"]["containers"][0]["readinesProbe"] = pod["spec"]["containers"][0].pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, KUBERNETES, strict=True)


@pytest.mark.skipif(not os.environ.get("KUBERAY_CRDS"), reason="KUBERAY_CRDS names no folder with KubeRay's schemas")
@pytest.mark.parametrize("document", [SERVICE, JOB], ids=lambda document: document["kind"])
def test_kuberays_schema_takes_it(document: dict[str, Any]) -> None:
    file = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{document['kind'].lower()}s.yaml"
    (version,) = (one for one in yaml.safe_load(file.read_text())["spec"]["versions"] if one["name"] == "v1")
    jsonschema.validate(document, closed(version["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    """The schema, with objects whose keys it lists taking no others; Kubernetes drops those without a word."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made
