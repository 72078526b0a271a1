"""The Kubernetes manifests are what Kubernetes' schemas allow, and ask for no needless rights.

The schemas come with kubernetes-validate, in their strict form: an unknown field is an error. There
are none for KubeRay's own kinds, so of those the pods are checked, and what is Ray's by Ray itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
Manifest = dict[str, Any]


def manifests() -> Iterator[tuple[str, Manifest]]:
    for path in sorted(FOLDER.rglob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(FOLDER)), manifest


MANIFESTS = list(manifests())
KUBERAY = [(path, one) for path, one in MANIFESTS if one["apiVersion"] == "ray.io/v1"]
PLAIN = [(path, one) for path, one in MANIFESTS if one["apiVersion"] != "ray.io/v1"]


def named(cases: list[tuple[str, Manifest]]) -> dict[str, Any]:
    return {"argvalues": [one for _, one in cases], "ids": [path for path, _ in cases]}


def cluster_of(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    cluster: Manifest = spec["rayClusterConfig" if "rayClusterConfig" in spec else "rayClusterSpec"]
    return cluster


def pods(manifest: Manifest) -> list[Manifest]:
    """The pod templates of a manifest."""
    if manifest["kind"] in ("Deployment", "Job"):
        return [manifest["spec"]["template"]]
    if manifest["apiVersion"] != "ray.io/v1":
        return []
    cluster = cluster_of(manifest)
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


PODS = [(f"{path} {place}", pod) for path, one in MANIFESTS for place, pod in enumerate(pods(one))]


def test_there_are_plain_manifests_and_kuberays():
    assert {one["kind"] for _, one in PLAIN} >= {
        "Deployment",
        "Service",
        "PersistentVolumeClaim",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "Job",
    }
    assert {one["kind"] for _, one in KUBERAY} == {"RayService", "RayJob"}


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", **named(PLAIN))
def test_plain_manifests_pass_the_linter(manifest, release):
    kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize("pod", **named(PODS))
def test_pods_pass_the_linter(pod, release):
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
    kubernetes_validate.validate({**template, "template": pod}, release, strict=True)


def test_the_linter_finds_a_misspelt_field():
    manifest = next(one for _, one in PLAIN if one["kind"] == "Deployment")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    spoilt = {**container, "readynessProbe": container["readinessProbe"]}
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(
            {**template, "template": {"spec": {"containers": [spoilt]}}}, NEWEST, strict=True
        )


@pytest.mark.parametrize("pod", **named(PODS))
def test_pods_have_no_rights_that_they_do_not_need(pod):
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001  # the Dockerfile's
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    # KubeRay's autoscaler in the head's pod asks Kubernetes for pods.
    assert spec["automountServiceAccountToken"] is (container["name"] == "ray-head")
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("pod", **named(PODS))
def test_pods_can_write_their_data_and_tmp(pod):
    spec = pod["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts["/data"]]["persistentVolumeClaim"] == {"claimName": "clipdex-data"}
    assert "emptyDir" in volumes[mounts["/tmp"]]
    assert set(mounts.values()) == volumes.keys()


def test_the_server_is_probed_where_it_answers():
    manifest = next(one for _, one in PLAIN if one["kind"] == "Deployment")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    probes = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "startup")
    }
    assert probes == {"liveness": "/healthz", "startup": "/healthz"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]


def test_services_and_autoscalers_mean_pods_that_are_there():
    by_kind = {one["kind"]: one for path, one in PLAIN if path.startswith("plain/")}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert by_kind["Service"]["spec"]["selector"].items() <= labels.items()
    selector = by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    target = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "clipdex")


@pytest.mark.parametrize("manifest", **named(KUBERAY))
def test_the_cluster_runs_the_release_of_ray_that_is_tested(manifest):
    assert cluster_of(manifest)["rayVersion"] == version("ray")


@pytest.mark.parametrize("manifest", **named(KUBERAY))
def test_a_worker_holds_what_is_asked_of_it(manifest):
    spec = manifest["spec"]
    (group,) = cluster_of(manifest)["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    pod_cpus = float(container["resources"]["limits"]["cpu"])
    if manifest["kind"] == "RayService":
        (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
        asked = application["args"]["cpus"]
        most = application["args"]["max_replicas"]
    else:
        words = spec["entrypoint"].split()
        asked = float(words[words.index("--actor-cpus") + 1])
        most = float(words[words.index("--max-actors") + 1])
    assert asked == pod_cpus
    assert most == group["maxReplicas"]


@pytest.mark.slow
def test_ray_serve_can_read_the_services_configuration():
    """In a process of its own: Ray's imports warn."""
    (manifest,) = (one for _, one in KUBERAY if one["kind"] == "RayService")
    code = (
        "import sys, yaml\n"
        "from ray.serve.schema import ServeDeploySchema\n"
        "from service.ray_serve import app\n"
        "config = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin))\n"
        "(application,) = config.applications\n"
        "assert application.import_path == 'service.ray_serve:app'\n"
        "print(app(application.args)._bound_deployment.ray_actor_options)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=manifest["spec"]["serveConfigV2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert "'num_cpus': 2.0" in done.stdout


def test_the_jobs_commands_are_the_command_lines():
    from service.cli.reference import reference

    page = reference()
    for _, manifest in MANIFESTS:
        if manifest["kind"] == "RayJob":
            words = manifest["spec"]["entrypoint"].split()
        elif manifest["kind"] in ("Job", "Deployment"):
            words = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
        else:
            continue
        assert words[0] == "clipdex"
        section = page.split(f"## clipdex {words[1]}\n")[1].split("\n## ")[0]
        options = [word for word in words if word.startswith("--")]
        assert [option for option in options if f"{option} " not in section] == []
