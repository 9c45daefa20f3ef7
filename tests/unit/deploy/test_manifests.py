"""Breaks a copy of the manifests, one thing at a time, and sees the check name it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checks import manifests

BASE = "deploy/kubernetes/base"
DEPLOYMENT = f"{BASE}/deployment.yaml"
JOB = "deploy/kubernetes/train/job.yaml"
SERVICE = f"{BASE}/service.yaml"
GPU_OVERLAY = "deploy/kubernetes/overlays/gpu/kustomization.yaml"
AUTOSCALED = "deploy/kubernetes/overlays/autoscaled"
SHARED_OVERLAY = "deploy/kubernetes/overlays/shared-state/kustomization.yaml"
SHARED = "deploy/kubernetes/components/shared-state/kustomization.yaml"
STATE = "deploy/kubernetes/storage-state/state.yaml"

Breaker = Callable[[str, str, str], None]


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        # yamllint
        (SERVICE, "type: ClusterIP", "type:  ClusterIP", "too many spaces after colon"),
        (SERVICE, "  type: ClusterIP", "  type: ClusterIP\n  type: NodePort", "duplication of key"),
        (SERVICE, "type: ClusterIP", "type: [ClusterIP", "syntax error"),
        # Schemas
        (SERVICE, "type: ClusterIP", "selectors: {}", "'selectors' was unexpected"),
        (SERVICE, "type: ClusterIP", "typ: ClusterIP", "'typ' was unexpected"),
        (SERVICE, "port: 50051", "port: '50051'", "is not of type 'integer'"),
        (SERVICE, "apiVersion: v1", "apiVersion: v2", "knows no such kind"),
        (SERVICE, "kind: Service", "kind: Servant", "knows no such kind"),
        # Kustomizations
        (f"{BASE}/kustomization.yaml", "  - service.yaml\n", "", "service.yaml: no kustomization uses it"),
        (f"{BASE}/kustomization.yaml", "service.yaml", "services.yaml", "No such file"),
        (
            f"{BASE}/kustomization.yaml",
            "resources:",
            "namePrefix: my-\nresources:",
            "cannot render namePrefix",
        ),
        (GPU_OVERLAY, "name: topb-scorer", "name: topb", "0 documents are"),
        (GPU_OVERLAY, "/spec/strategy/rollingUpdate", "/spec/strategy/recreate", "does not apply"),
        (GPU_OVERLAY, "op: replace", "op: test", "unsupported op"),
        (GPU_OVERLAY, "value: topb-scorer-gpu:0.1.0", "value: 7", "7 is not of type 'string'"),
        (SHARED_OVERLAY, "components:\n  - ../../components/shared-state\n", "", "no kustomization uses it"),
        (SHARED_OVERLAY, "../../components/shared-state", "../../storage", "../../storage is no component"),
        (SHARED_OVERLAY, "  - ../../base", "  - ../../components/shared-state", "a component is no resource"),
        (SHARED, "kind: Component", "kind: Kustomization", "it names no resources"),
        (SHARED, "patches:", "nameSuffix: x\npatches:", "cannot render nameSuffix"),
        (SHARED, "name: topb-scorer", "name: topb", "0 documents are"),
        # Security
        (DEPLOYMENT, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot is not true"),
        (DEPLOYMENT, "type: RuntimeDefault", "type: Unconfined", "seccompProfile.type is not"),
        (DEPLOYMENT, "automountServiceAccountToken: false", "", "automountServiceAccountToken is not false"),
        (DEPLOYMENT, "enableServiceLinks: false", "hostNetwork: true", "hostNetwork is set"),
        (
            DEPLOYMENT,
            "emptyDir:\n            sizeLimit: 1Gi",
            "hostPath:\n            path: /",
            "is a hostPath",
        ),
        (
            DEPLOYMENT,
            "allowPrivilegeEscalation: false",
            "privileged: true",
            "allowPrivilegeEscalation is None",
        ),
        (DEPLOYMENT, "readOnlyRootFilesystem: true", "privileged: false", "readOnlyRootFilesystem is None"),
        (DEPLOYMENT, "drop: [ALL]", "drop: [KILL]", "securityContext.capabilities is"),
        (DEPLOYMENT, "runAsUser: 10001", "runAsUser: 10002", "differ from the image's USER 10001:10001"),
        (
            DEPLOYMENT,
            "serviceAccountName: topb-scorer",
            "serviceAccountName: topb",
            "service account topb is not",
        ),
        # Resources
        (DEPLOYMENT, '              cpu: "2"\n', "", "resources.requests lacks cpu or memory"),
        (
            DEPLOYMENT,
            "limits:\n              memory: 2Gi",
            "limits:\n              memory: 3Gi",
            "expected the same",
        ),
        # Images and commands
        (DEPLOYMENT, "topb-scorer-cpu:0.1.0", "topb-scorer:0.1.0", "is none of the container files'"),
        (DEPLOYMENT, "topb-scorer-cpu:0.1.0", "topb-scorer-cpu:0.2.0", "is none of the container files'"),
        (DEPLOYMENT, "- serve\n", "- server\n", "pyproject.toml has no such topb command"),
        (DEPLOYMENT, "topb-scorer-cpu:0.1.0", "topb-scorer-gpu:0.1.0", "at odds: --device cpu"),
        (GPU_OVERLAY, "--device=cuda:0", "--device=cpu", "at odds: --device cpu"),
        (GPU_OVERLAY, "limits/nvidia.com~1gpu", "limits/amd.com~1gpu", "nvidia.com/gpu not granted"),
        (JOB, "- --json\n", "- --device=cuda\n", "at odds: --device cuda, image topb-trainer"),
        (JOB, "- train\n", "- trains\n", "pyproject.toml has no such topb command"),
        (JOB, "readOnlyRootFilesystem: true", "privileged: false", "readOnlyRootFilesystem is None"),
        (DEPLOYMENT, "--session-threads=2", "--session-threads=4", "but 2 CPUs are asked for"),
        (DEPLOYMENT, "            - --decode-threads=2\n", "", "--decode-threads is None"),
        # Ports and probes
        (DEPLOYMENT, "--listen=0.0.0.0:50051", "--listen=0.0.0.0:50052", "it listens on grpc 50052"),
        (DEPLOYMENT, "containerPort: 50051", "containerPort: 50052", "containerPorts are grpc 50052,"),
        (DEPLOYMENT, "containerPort: 9090", "containerPort: 9091", "metrics 9091"),
        (
            DEPLOYMENT,
            "- --listen=0.0.0.0:50051\n",
            "- --listen\n            - 0.0.0.0:1\n",
            "it listens on grpc 1,",
        ),
        (
            DEPLOYMENT,
            "grpc:\n              port: 50051\n            periodSeconds: 20",
            "tcpSocket:\n              port: 50051\n            periodSeconds: 20",
            "it has no gRPC livenessProbe",
        ),
        (
            DEPLOYMENT,
            "grpc:\n              port: 50051\n            periodSeconds: 20",
            "grpc:\n              port: 50052\n            periodSeconds: 20",
            "livenessProbe asks port 50052",
        ),
        (
            DEPLOYMENT,
            "service: topb.v1.SelectionService",
            "service: topb.v1.Selection",
            "health does not know",
        ),
        # Draining
        (DEPLOYMENT, "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 40", "5 + 30 + 5"),
        (DEPLOYMENT, "      terminationGracePeriodSeconds: 45\n", "", "terminationGracePeriodSeconds is 30"),
        (DEPLOYMENT, "--grace-seconds=30", "--grace-seconds=60", "5 + 60 + 5"),
        (DEPLOYMENT, "            - --grace-seconds=30\n", "", "--grace-seconds is not given"),
        (DEPLOYMENT, "seconds: 5", "seconds: 0", "no preStop sleep"),
        # Volumes
        (DEPLOYMENT, "--models=/models", "--models=/model", "--models /model is on no volume"),
        (DEPLOYMENT, "--allow-root=/data", "--allow-root=/tmp", "--allow-root /tmp is mounted to be written"),
        (DEPLOYMENT, "            - --allow-root=/data\n", "", "--allow-root is not given"),
        (
            DEPLOYMENT,
            "- name: scratch\n          emptyDir",
            "- name: other\n          emptyDir",
            "volume other is",
        ),
        (
            DEPLOYMENT,
            "claimName: topb-models",
            "claimName: models",
            "claims models, which no kustomization has",
        ),
        (JOB, "fsGroup: 10001", "fsGroup: 0", "volume models is written to, but fsGroup is 0"),
        (SHARED, "value: 10001", "value: 10002", "volume state is written to, but fsGroup is 10002"),
        # State
        (DEPLOYMENT, "            - --state=/state\n", "", "--state is not given"),
        (DEPLOYMENT, "--state=/state", "--state=/models/state", "is on no volume that can be written to"),
        (DEPLOYMENT, "--state=/state", "--state=/srv", "is on no volume that can be written to"),
        (DEPLOYMENT, "replicas: 1", "replicas: 2", "replicas: 2, each with a state of its own"),
        (
            f"{AUTOSCALED}/kustomization.yaml",
            "../shared-state",
            "../../base",
            "replicas: autoscaled, each with",
        ),
        (
            DEPLOYMENT,
            "--state=/state",
            "--state=/state\n            - --catalog-url=postgresql+psycopg://topb:secret@db/topb",
            "shows its password",
        ),
        (SHARED, "name: TOPB_CATALOG_URL", "name: CATALOG_URL", "set TOPB_CATALOG_URL"),
        (SHARED, "key: url", "key: url\n                optional: true", "TOPB_CATALOG_URL is optional"),
        (
            SHARED,
            "valueFrom:\n              secretKeyRef:",
            "valueFrom:\n              configMapKeyRef:",
            "is not taken from a Secret",
        ),
        (
            SHARED,
            "persistentVolumeClaim:\n            claimName: topb-state",
            "emptyDir: {}",
            "is a pod's own",
        ),
        (SHARED, "volumes/2", "volumes/3", "volume scratch is declared or mounted, but not both"),
        (STATE, "ReadWriteMany", "ReadWriteOnce", "claim topb-state, which is not ReadWriteMany"),
        (STATE, "name: topb-state", "name: state", "claims topb-state, which no kustomization has"),
        # What pods may reach
        (SHARED, "port: 5432", "port: 5433", "does not let out TCP 5432"),
        (SHARED, "protocol: UDP", "protocol: TCP", "does not let out UDP 53"),
        (
            f"{BASE}/network-policy.yaml",
            "egress: []",
            "egress:\n    - ports:\n        - port: 443",
            "it lets out TCP 443 for no need",
        ),
        (f"{BASE}/network-policy.yaml", "egress: []", "egress:\n    - {}", "lets pods reach every port"),
        (f"{BASE}/network-policy.yaml", "[Ingress, Egress]", "[Ingress]", "lets pods reach every port"),
        # Selectors
        (
            DEPLOYMENT,
            "matchLabels:\n      app.kubernetes.io/name: topb",
            "matchLabels:\n      app.kubernetes.io/name: x",
            "does not match its own pods",
        ),
        (
            SERVICE,
            "selector:\n    app.kubernetes.io/name: topb",
            "selector:\n    app.kubernetes.io/name: x",
            "it selects 0 workloads",
        ),
        (SERVICE, "targetPort: grpc", "targetPort: 50052", "it names port 50052"),
        (f"{BASE}/network-policy.yaml", "port: grpc", "port: http", "it names port http"),
        (
            f"{BASE}/pod-disruption-budget.yaml",
            "component: scorer\n",
            "component: trainer\n",
            "selects 0 workloads",
        ),
        # Autoscaling
        (
            f"{AUTOSCALED}/horizontal-pod-autoscaler.yaml",
            "kind: Deployment\n    name: topb-scorer",
            "kind: Deployment\n    name: topb",
            "is not among the resources",
        ),
        (
            f"{AUTOSCALED}/kustomization.yaml",
            "op: remove\n        path: /spec/replicas",
            "op: replace\n        path: /spec/replicas\n        value: 3",
            "would undo the autoscaler",
        ),
        # Namespaces
        (
            SERVICE,
            "metadata:\n  name: topb-scorer",
            "metadata:\n  name: topb-scorer\n  namespace: default",
            "names a namespace",
        ),
    ],
)
def test_a_broken_manifest_is_told(
    repository: Path, replace: Breaker, file: str, old: str, new: str, problem: str
) -> None:
    replace(file, old, new)
    assert problem in "\n".join(manifests.problems_of(repository))


def test_a_kind_of_a_field_that_only_newer_kubernetes_knows_is_told(
    repository: Path, replace: Breaker
) -> None:
    replace(DEPLOYMENT, "preStop:", "stopSignal: SIGTERM\n            preStop:")
    problems = manifests.problems_of(repository)
    assert any("not valid in Kubernetes 1.30" in problem and "stopSignal" in problem for problem in problems)
    assert not any("not valid in Kubernetes 1.37" in problem for problem in problems)


def test_no_kustomization_at_all_is_told(repository: Path) -> None:
    shutil.rmtree(repository / "deploy" / "kubernetes")
    assert manifests.problems_of(repository) == ["deploy/kubernetes: no kustomization.yaml found"]
