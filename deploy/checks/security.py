"""Whether a workload keeps to Kubernetes' Pod Security Standard "restricted"."""

from typing import Any

from checks.kustomize import Document


def pod_problems(pod: Document) -> list[str]:
    """Kubernetes' Pod Security Standard "restricted", as far as it is the pod's."""
    security = pod.get("securityContext", {})
    problems = []
    if security.get("runAsNonRoot") is not True:
        problems.append("securityContext.runAsNonRoot is not true")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        problems.append("securityContext.seccompProfile.type is not RuntimeDefault")
    if pod.get("automountServiceAccountToken") is not False:
        problems.append("automountServiceAccountToken is not false")
    problems += [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    problems += [
        f"volume {volume['name']} is a hostPath" for volume in pod.get("volumes", []) if "hostPath" in volume
    ]
    return problems


def container_problems(container: Document) -> list[str]:
    """The same, as far as it is a container's, and a root file system that nobody writes to."""
    security = container.get("securityContext", {})
    wanted: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return [
        f"container {container['name']}: securityContext.{field} is {security.get(field)}; expected {value}"
        for field, value in wanted.items()
        if security.get(field) != value
    ]
