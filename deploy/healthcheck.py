"""Check the health of a server, for HEALTHCHECK in a container. Exit with 0 if it is serving, else with 1."""

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEADLINE_SECONDS = 4
"""Shorter than the timeout of HEALTHCHECK, which leaves time to print the error."""


def main() -> int:
    """Check the health of the server, and return the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("address", help="host:port")
    arguments.add_argument("--service", default="topb.v1.SelectionService")
    options = arguments.parse_args()
    with grpc.insecure_channel(options.address) as channel:
        request = health_pb2.HealthCheckRequest(service=options.service)
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"{options.address} does not answer: {error.code().name}: {error.details()}\n")
            return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    sys.stderr.write(f"{options.service} at {options.address}: {status}\n")
    return 0 if response.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
