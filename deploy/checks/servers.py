"""A container that serves: its ports, its probes, how it stops, what it reads and where its state lies."""

from pathlib import PurePosixPath

from checks import arguments
from checks.kustomize import Document

HEALTH_SERVICES = {"", "topb.v1.ModelService", "topb.v1.SelectionService"}
"""What the server's grpc.health.v1 answers for."""
PORT_OPTIONS = {"grpc": "--listen", "metrics": "--metrics-listen"}
"""The options that say where a server listens, by the names of their ports."""
CANCEL_SECONDS = 5
"""How long after --grace-seconds the server waits for the calls that it then ends."""
CATALOG_VARIABLE = "TOPB_CATALOG_URL"
"""Names the catalog that servers of one state share; without it, it is SQLite in the state directory."""


def problems_of(container: Document, workload: Document, claims: dict[str, list[str]]) -> list[str]:
    """All that is wrong with a container that runs `topb serve`.

    Args:
        container: of the workload.
        workload: a Deployment or Job.
        claims: access modes of the persistent volume claims of all kustomizations, by name.
    """
    return [
        *_port_problems(container),
        *_drain_problems(container, workload["spec"]["template"]["spec"]),
        *_directory_problems(container),
        *_thread_problems(container),
        *_state_problems(container, workload, claims),
    ]


def _port_problems(container: Document) -> list[str]:
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    listens = {
        name: address.rpartition(":")[2]
        for name, option in PORT_OPTIONS.items()
        if (address := arguments.option(container, option))
    }
    problems = []
    if {name: str(port) for name, port in ports.items()} != listens:
        problems.append(f"it listens on {_named(listens)}, but its containerPorts are {_named(ports)}")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container.get(probe, {}).get("grpc")
        if asked is None:
            problems.append(f"it has no gRPC {probe}")
            continue
        if asked["port"] != ports.get("grpc"):
            problems.append(f"{probe} asks port {asked['port']}, but its containerPorts are {_named(ports)}")
        if asked.get("service", "") not in HEALTH_SERVICES:
            problems.append(f"{probe} asks for {asked['service']}, which the server's health does not know")
    return problems


def _named(ports: dict[str, str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {port}" for name, port in ports.items()) or "its defaults"


def _drain_problems(container: Document, pod: Document) -> list[str]:
    grace = arguments.option(container, "--grace-seconds")
    if grace is None:
        return ["--grace-seconds is not given, so what the pod is granted cannot be checked"]
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    problems = []
    if sleep < 1:
        problems.append("no preStop sleep: calls would still be sent to a server that has begun to drain")
    # Kubernetes grants 30 where nothing is said.
    granted = pod.get("terminationGracePeriodSeconds", 30)
    if granted <= sleep + float(grace) + CANCEL_SECONDS:
        problems.append(
            f"terminationGracePeriodSeconds is {granted}; expected more than the preStop sleep, "
            f"--grace-seconds and what ended calls get, {sleep} + {grace} + {CANCEL_SECONDS}"
        )
    return problems


def _directory_problems(container: Document) -> list[str]:
    """What the server is told to read must be mounted, and only to read."""
    problems = []
    for option in ("--models", "--allow-root"):
        directories = arguments.options(container, option)
        if not directories:
            problems.append(f"{option} is not given")
        for directory in directories:
            mount = _mount_of(directory, container)
            if mount is None:
                problems.append(f"{option} {directory} is on no volume")
            elif not mount.get("readOnly"):
                problems.append(f"{option} {directory} is mounted to be written")
    return problems


def _state_problems(container: Document, workload: Document, claims: dict[str, list[str]]) -> list[str]:
    """State and catalog are both one pod's own, or both shared by all pods."""
    directory = arguments.option(container, "--state")
    if directory is None:
        return ["--state is not given, so what is scored would go with the container"]
    mount = _mount_of(directory, container)
    if mount is None or mount.get("readOnly"):
        return [f"--state {directory} is on no volume that can be written to"]
    volumes = workload["spec"]["template"]["spec"].get("volumes", [])
    claimed = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes}
    claim = claimed.get(mount["name"])
    catalog = catalog_of(container)
    problems = _catalog_problems(container)
    if claim is None and catalog is not None:
        problems.append(
            f"{CATALOG_VARIABLE} is for pods that share a state, but volume {mount['name']} is a pod's own"
        )
    elif claim is None:
        # Where nothing is said, an autoscaler says.
        replicas = workload["spec"].get("replicas", "autoscaled")
        if replicas != 1:
            problems.append(
                f"replicas: {replicas}, each with a state of its own, do not know each other's selections"
            )
    elif catalog is None:
        problems.append(f"pods share claim {claim}, but SQLite in it is for one: set {CATALOG_VARIABLE}")
    elif "ReadWriteMany" not in claims.get(claim, ["ReadWriteMany"]):
        problems.append(f"pods share claim {claim}, which is not ReadWriteMany")
    return problems


def _catalog_problems(container: Document) -> list[str]:
    """The catalog's URL holds a password."""
    if arguments.option(container, "--catalog-url") is not None:
        return [f"--catalog-url shows its password in the command line; set {CATALOG_VARIABLE}"]
    catalog = catalog_of(container)
    if catalog is None:
        return []
    secret = catalog.get("valueFrom", {}).get("secretKeyRef")
    if secret is None:
        return [f"{CATALOG_VARIABLE} holds a password, and is not taken from a Secret"]
    if secret.get("optional"):
        return [f"the Secret of {CATALOG_VARIABLE} is optional: without it, pods would share SQLite"]
    return []


def catalog_of(container: Document) -> Document | None:
    """The variable that names the catalog."""
    found: list[Document] = container.get("env", [])
    return next((variable for variable in found if variable["name"] == CATALOG_VARIABLE), None)


def _mount_of(directory: str, container: Document) -> Document | None:
    """What is mounted where the directory lies."""
    mounts: dict[str, Document] = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
    holding = [path for path in mounts if PurePosixPath(directory).is_relative_to(path)]
    return mounts[max(holding, key=len)] if holding else None


def _thread_problems(container: Document) -> list[str]:
    """Left to itself, the server takes as many threads as the node has cores."""
    asked = container["resources"]["requests"].get("cpu")
    return [
        f"{option} is {threads}, but {asked} CPUs are asked for"
        for option in ("--session-threads", "--decode-threads")
        if (threads := arguments.option(container, option)) != asked
    ]
