"""Cross-checks between rendered manifests, container files and pyproject.toml, that no schema can make."""

from collections.abc import Iterator
from dataclasses import dataclass

from checks import arguments, security, servers
from checks.containers import ContainerFile
from checks.kustomize import Document
from checks.project import Project

GPU = "nvidia.com/gpu"
CATALOG_EGRESS = {("UDP", 53), ("TCP", 53), ("TCP", 5432)}
"""What a server with such a catalog must reach: DNS and PostgreSQL."""


@dataclass(frozen=True)
class Setting:
    """What the manifests are held against."""

    project: Project
    container_files: dict[str, ContainerFile]
    """By name, such as `scorer-cpu`."""
    claims: dict[str, list[str]]
    """Access modes of the persistent volume claims of all kustomizations, by name."""


def problems_of(documents: list[Document], setting: Setting) -> list[str]:
    """All that is wrong with the documents of one kustomization."""
    problems: list[str] = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        found = ["names a namespace; leave that to whoever applies it"] * (
            "namespace" in document["metadata"]
        )
        if document["kind"] in ("Deployment", "Job"):
            found += _pod_problems(document, documents, setting)
        found += _selector_problems(document, documents)
        if document["kind"] == "HorizontalPodAutoscaler":
            found += _autoscaler_problems(document, documents)
        problems.extend(f"{name}: {problem}" for problem in found)
    return problems


def _pod_problems(document: Document, documents: list[Document], setting: Setting) -> list[str]:
    pod = document["spec"]["template"]["spec"]
    problems = [*security.pod_problems(pod), *_volume_problems(pod, setting)]
    account = pod.get("serviceAccountName")
    if account is not None and not any(_is(found, "ServiceAccount", account) for found in documents):
        problems.append(f"its service account {account} is not among the resources")
    for container in pod["containers"]:
        problems += security.container_problems(container)
        problems += _resource_problems(container)
        problems += _image_problems(container, pod, setting)
        if arguments.command(container) == "serve":
            problems += servers.problems_of(container, document, setting.claims)
    return problems


def _resource_problems(container: Document) -> list[str]:
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    problems = []
    if "cpu" not in requests or "memory" not in requests:
        problems.append(f"container {container['name']}: resources.requests lacks cpu or memory")
    if "memory" not in limits or limits["memory"] != requests.get("memory"):
        problems.append(
            f"container {container['name']}: memory limit is {limits.get('memory')}, its request "
            f"{requests.get('memory')}; expected the same, so that a full node does not evict it"
        )
    return problems


def _image_problems(container: Document, pod: Document, setting: Setting) -> list[str]:
    images = {
        f"{setting.project.name}-{name}:{setting.project.version}": name for name in setting.container_files
    }
    image = container["image"]
    if image not in images:
        return [f"image {image} is none of the container files': {', '.join(sorted(images))}"]
    file = setting.container_files[images[image]]
    problems = []
    security = pod.get("securityContext", {})
    if f"{security.get('runAsUser')}:{security.get('runAsGroup')}" != file.user():
        problems.append(f"runAsUser:runAsGroup differ from the image's USER {file.user()}")
    if "command" in container or arguments.command(container) not in setting.project.commands:
        problems.append(
            f"args name the command {arguments.command(container)!r}; pyproject.toml has no such topb command"
        )
    return [*problems, *_device_problems(container, file)]


def _device_problems(container: Document, file: ContainerFile) -> list[str]:
    """A GPU is asked for by the command, granted by Kubernetes and known to the image, or none of these."""
    device = arguments.option(container, "--device") or "cpu"
    granted = GPU in container.get("resources", {}).get("limits", {})
    asked = device.startswith("cuda")
    # The trainer's image is for both.
    if asked == granted and file.name in ("trainer", "scorer-gpu" if asked else "scorer-cpu"):
        return []
    grant = "granted" if granted else "not granted"
    return [f"at odds: --device {device}, image {container['image']}, {GPU} {grant}"]


def _volume_problems(pod: Document, setting: Setting) -> list[str]:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounted = {
        mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])
    }
    problems = [
        f"volume {name} is declared or mounted, but not both" for name in sorted(mounted ^ set(volumes))
    ]
    security = pod.get("securityContext", {})
    owner, group = security.get("runAsGroup"), security.get("fsGroup")
    for name, volume in volumes.items():
        if (claim := volume.get("persistentVolumeClaim")) is None:
            continue
        if claim["claimName"] not in setting.claims:
            problems.append(f"volume {name} claims {claim['claimName']}, which no kustomization has")
        if not claim.get("readOnly") and group != owner:
            problems.append(f"volume {name} is written to, but fsGroup is {group}; expected {owner}")
    return problems


def _selector_problems(document: Document, documents: list[Document]) -> list[str]:
    """Services, policies and budgets must select the pods of one workload, by ports that they have."""
    spec = document.get("spec", {})
    if document["kind"] == "Deployment":
        labels = spec["template"]["metadata"]["labels"]
        return (
            [] if _matches(spec["selector"], labels) else ["its selector does not match its own pods' labels"]
        )
    if document["kind"] == "Service":
        selector, ports = (
            {"matchLabels": spec["selector"]},
            [port.get("targetPort", port["port"]) for port in spec["ports"]],
        )
    elif document["kind"] == "NetworkPolicy":
        selector = spec["podSelector"]
        ports = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
        if problems := _egress_problems(spec, documents):
            return problems
    elif document["kind"] == "PodDisruptionBudget":
        selector, ports = spec["selector"], []
    else:
        return []
    selected = [
        workload["spec"]["template"]
        for workload in documents
        if workload["kind"] in ("Deployment", "Job")
        and _matches(selector, workload["spec"]["template"]["metadata"]["labels"])
    ]
    if len(selected) != 1:
        return [f"it selects {len(selected)} workloads; expected 1"]
    known = {value for port in _ports(selected[0]) for value in (port["containerPort"], port.get("name"))}
    return [
        f"it names port {port}, which the pods it selects do not have" for port in ports if port not in known
    ]


def _egress_problems(spec: Document, documents: list[Document]) -> list[str]:
    """A server reaches its catalog, if that is elsewhere, and nothing else."""
    wanted = {
        egress
        for workload in documents
        if workload["kind"] == "Deployment"
        and _matches(spec["podSelector"], workload["spec"]["template"]["metadata"]["labels"])
        for container in workload["spec"]["template"]["spec"]["containers"]
        if servers.catalog_of(container) is not None
        for egress in CATALOG_EGRESS
    }
    rules = spec.get("egress", [])
    if "Egress" not in spec.get("policyTypes", []) or not all(rule.get("ports") for rule in rules):
        return ["it lets pods reach every port"]
    granted = {(port.get("protocol", "TCP"), port["port"]) for rule in rules for port in rule["ports"]}
    lacking = [
        f"it does not let out {protocol} {port}, which its pods need" for protocol, port in wanted - granted
    ]
    return sorted(lacking) + [
        f"it lets out {protocol} {port} for no need" for protocol, port in granted - wanted
    ]


def _autoscaler_problems(document: Document, documents: list[Document]) -> list[str]:
    target = document["spec"]["scaleTargetRef"]
    targets = [found for found in documents if _is(found, target["kind"], target["name"])]
    if len(targets) != 1:
        return [f"it scales {target['kind']}/{target['name']}, which is not among the resources"]
    if "replicas" in targets[0]["spec"]:
        return [
            f"{target['kind']}/{target['name']} sets replicas too, so each apply would undo the autoscaler"
        ]
    return []


def _matches(selector: Document, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def _ports(template: Document) -> Iterator[Document]:
    for container in template["spec"]["containers"]:
        yield from container.get("ports", [])


def _is(document: Document, kind: str, name: str) -> bool:
    return bool(document["kind"] == kind and document["metadata"]["name"] == name)
