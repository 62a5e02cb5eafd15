"""S3Store against a real server: OpenStack Swift."""

import secrets
import warnings
from pathlib import Path

import boto3
import pytest
from tests.external.stores.swift import running_swift

from curitorch.external.stores.testing import StoreContract

BUCKET = "checkpoints"


@pytest.fixture(scope="module")
def server():
    with running_swift() as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.credentials.items():
            environment.setenv(name, value)
        environment.setenv("AWS_CONFIG_FILE", "/nonexistent")
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


@pytest.fixture(scope="module")
def client(server):
    """The bucket behind the store's back."""
    client = boto3.client("s3", endpoint_url=server.endpoint_url, region_name=server.region)
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def root(client):
    return f"s3://{BUCKET}/job '{secrets.token_hex(4)}', $HOME = ü/run"


class TestS3Store(StoreContract):
    KILLS = 3
    LEASE_SECONDS = 20.0

    @pytest.fixture
    def recipe(self, server, client, root):
        self.client = client
        self.prefix = root.removeprefix(f"s3://{BUCKET}/") + "/"
        return "s3", f'root="{root}",endpoint_url={server.endpoint_url},lease_seconds=1.5'

    def damage(self, checkpoint, name, content):
        [key] = [key for key in self.keys() if key.endswith("/" + name) and f"step-{checkpoint.step:08d}/" in key]
        if content is None:
            self.client.delete_object(Bucket=BUCKET, Key=key)
        else:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def damage_sidecar(self, step, content):
        key = f"{self.prefix}step-{step:08d}.json"
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def leftovers(self):
        return leftovers(self.client, self.prefix)

    def keys(self):
        return keys(self.client, self.prefix)


def keys(client, prefix):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def leftovers(client, prefix):
    """What no sidecar names, unfinished uploads too; one lease, the newest, is no leftover."""
    import json

    found = [key.removeprefix(prefix) for key in keys(client, prefix)]
    named = set()
    for key in found:
        if key.startswith("step-") and "/" not in key:
            body = client.get_object(Bucket=BUCKET, Key=prefix + key)["Body"].read()
            upload = json.loads(body)["upload"]
            named |= {key} | {f"{key[:-5]}/{upload}/{name}" for name in json.loads(body)["files"]}
    leases = sorted(key for key in found if key.startswith("lease-0"))
    unfinished = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return sorted(set(found) - named - set(leases[-1:])) + [each["Key"] for each in unfinished]
