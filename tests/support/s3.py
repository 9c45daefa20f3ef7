"""A server on loopback that speaks the S3 protocol, with one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from pyarrow import fs

BUCKET = "pools"


@dataclass(frozen=True)
class Bucket:
    """The bucket, or the objects below a prefix in it, with a client to fill it."""

    filesystem: fs.S3FileSystem
    path: str = BUCKET

    def below(self, prefix: str) -> Bucket:
        return Bucket(self.filesystem, f"{self.path}/{prefix}")

    def uri(self, key: str = "") -> str:
        return f"s3://{self.path}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Write an object and return its URI."""
        with self.filesystem.open_output_stream(f"{self.path}/{key}") as file:
            file.write(content)
        return self.uri(key)

    def remove(self, key: str) -> None:
        self.filesystem.delete_file(f"{self.path}/{key}")


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """Start the server and point the AWS environment variables to it; skip the test without moto."""
    server_module = pytest.importorskip(
        "moto.server", reason="moto, the S3 server of these tests, is not installed"
    )
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.delenv("AWS_ENDPOINT_URL_S3", raising=False)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            filesystem = fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True)
            filesystem.create_dir(BUCKET)
            yield Bucket(filesystem)
        finally:
            server.stop()
