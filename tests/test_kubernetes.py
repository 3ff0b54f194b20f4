"""The manifests of docker/k8s, read without a cluster: valid, hardened, in step with each other."""

import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.metrics import Metrics
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for path in sorted((ROOT / "docker" / "k8s").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
WORKLOADS = [m for m in MANIFESTS if m["kind"] in ("Deployment", "StatefulSet", "Job")]


def name(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in MANIFESTS if manifest["kind"] == kind]


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


def labels(manifest: dict[str, Any]) -> dict[str, str]:
    return manifest["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name)
def test_a_manifest_is_what_the_api_of_kubernetes_takes(manifest):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("manifest", WORKLOADS, ids=name)
def test_a_pod_is_an_ordinary_user_that_can_write_nothing_but_its_volumes(manifest):
    spec = pod(manifest)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("manifest", WORKLOADS, ids=name)
def test_an_image_is_of_one_version_and_ours_is_built_here(manifest):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for container in pod(manifest)["containers"]:
        image, _, tag = container["image"].partition(":")
        if image.startswith("whence-"):
            assert tag == version
            assert (ROOT / "docker" / f"{image.removeprefix('whence-')}.Dockerfile").is_file()
        else:
            assert re.match(r"\d+\.\d+", tag), container["image"]


def test_selectors_find_the_pods_they_mean():
    wanted = [(m, m["spec"]["selector"]) for m in of_kind("Service")]
    wanted += [(m, m["spec"]["selector"]["matchLabels"]) for m in of_kind("PodDisruptionBudget")]
    wanted += [(m, m["spec"]["podSelector"]["matchLabels"]) for m in of_kind("NetworkPolicy")]
    for manifest in WORKLOADS:
        if manifest["kind"] != "Job":
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels(manifest).items()
    for manifest, selector in wanted:
        found = [w for w in WORKLOADS if selector.items() <= labels(w).items()]
        assert found, name(manifest)
        if manifest["kind"] != "NetworkPolicy":
            assert [w["metadata"]["name"] for w in found] == [manifest["metadata"]["name"]]


def test_what_is_mounted_is_there():
    claims = {m["metadata"]["name"] for m in of_kind("PersistentVolumeClaim")}
    for manifest in WORKLOADS:
        volumes = {v["name"]: v for v in pod(manifest).get("volumes", [])}
        templates = manifest["spec"].get("volumeClaimTemplates", [])
        known = {*volumes, *(t["metadata"]["name"] for t in templates)}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for container in pod(manifest)["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= known


def test_the_api_has_probes_two_replicas_and_time_to_drain():
    (api,) = [m for m in of_kind("Deployment") if m["metadata"]["name"] == "whence-api"]
    (container,) = pod(api)["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert api["spec"]["replicas"] >= 2
    assert api["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    timeout_s = Settings.model_fields["request_timeout_s"].default
    for manifest in of_kind("Deployment"):
        assert pod(manifest)["terminationGracePeriodSeconds"] > timeout_s


def test_workers_are_scaled_by_the_queue():
    scaled = {m["metadata"]["name"]: m["spec"] for m in of_kind("HorizontalPodAutoscaler")}
    deployments = {m["metadata"]["name"] for m in of_kind("Deployment")}
    assert {spec["scaleTargetRef"]["name"] for spec in scaled.values()} == deployments
    (metric,) = scaled["whence-worker"]["metrics"]
    name = metric["external"]["metric"]["name"]
    assert f"# TYPE {name} gauge" in Metrics().exposition().decode()
    (worker,) = [m for m in of_kind("Deployment") if m["metadata"]["name"] == "whence-worker"]
    (container,) = pod(worker)["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    (port,) = container["ports"]
    annotations = worker["spec"]["template"]["metadata"]["annotations"]
    assert environment["WHENCE_METRICS_PORT"] == annotations["prometheus.io/port"]
    assert environment["WHENCE_METRICS_PORT"] == str(port["containerPort"])


def test_everything_is_closed_to_the_network_but_what_is_named():
    policies = {m["metadata"]["name"]: m["spec"] for m in of_kind("NetworkPolicy")}
    everything = policies["whence-default"]
    assert everything["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "whence"}
    assert set(everything["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in everything
    assert all(labels(w)["app.kubernetes.io/name"] == "whence" for w in WORKLOADS)
    ports = {
        p["containerPort"]
        for w in WORKLOADS
        for c in pod(w)["containers"]
        for p in c.get("ports", [])
    }
    opened = {
        port["port"]
        for spec in policies.values()
        for rule in spec.get("ingress", [])
        for port in rule["ports"]
    }
    assert opened == ports
