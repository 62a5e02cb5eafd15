"""A script whose states go to a service over TCP, or to S3, for real: it goes on from there."""

import boto3
import pytest

from curitorch.external.stores import open_store
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.swift import running_swift

pytestmark = pytest.mark.slow


def goes_on(runner, kind, config, **options):
    options |= {"LATTICE_CHECKPOINT_TYPE": kind, "LATTICE_CHECKPOINT_CONFIG": config}
    plain = runner.run("gan.py", patched=False)
    part = runner.interrupt("gan.py", after=5, **options)
    rest = runner.run("gan.py", **options)
    again = runner.run("gan.py", **options)
    assert (part.status, rest.status, again.status) == (-15, 0, 0), part.err + rest.err
    assert part.out + rest.out == plain.out, part.err + rest.err
    assert again.out == ""
    assert "is complete" in again.err


def test_over_tcp(runner, tmp_path):
    with RunningService(tmp_path) as service:
        config = (
            f"job_id=gan,ckpt_service_endpoint=127.0.0.1,ckpt_service_port={service.port},"
            f'token_file="{service.token_file}"'
        )
        goes_on(runner, "remote", config)
        with open_store("remote", config) as store:
            assert store.list()[-1].details["complete"]


def test_on_s3(runner, monkeypatch):
    with running_swift() as server:
        for name, value in server.credentials.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=server.endpoint_url, region_name=server.region)
        client.create_bucket(Bucket="checkpoints")
        config = f"root=s3://checkpoints/gan/,endpoint_url={server.endpoint_url}"
        goes_on(runner, "s3", config, LATTICE_AUTOPATCH="torch")
        with open_store("s3", config) as store:
            assert store.list()[-1].details["complete"]
