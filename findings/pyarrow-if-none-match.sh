#!/usr/bin/env bash
# What:    `open_output_stream(key, metadata={"If-None-Match": "*"})` sends no condition: the object that is there is
#          replaced, and no error says that the header was left out.
# Expect:  the write is refused, as boto3's put_object(IfNoneMatch="*") is on the same server.
# Version: pyarrow 26.0.1, on the S3 server of moto 5.2.5 (PyPI)
# Source:  run by this script.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet pyarrow==26.0.1 'moto[s3,server]==5.2.5'
venv/bin/python - 2>/dev/null <<'PY'
import importlib.metadata
import sys

import boto3
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
key = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **key)
client.create_bucket(Bucket="labels")
client.put_object(Bucket="labels", Key="lock", Body=b"held by the first run")
try:
    client.put_object(Bucket="labels", Key="lock", Body=b"taken by boto3", IfNoneMatch="*")
    refused = False
except ClientError as error:
    refused = error.response["Error"]["Code"] == "PreconditionFailed"
where = {"region": "us-east-1", "scheme": "http", "endpoint_override": f"127.0.0.1:{port}"}
storage = S3FileSystem(access_key="a", secret_key="b", **where)
try:
    with storage.open_output_stream("labels/lock", metadata={"If-None-Match": "*"}) as stream:
        stream.write(b"taken by pyarrow")
    raised = None
except OSError as error:
    raised = error
seen = client.get_object(Bucket="labels", Key="lock")["Body"].read()
print("pyarrow", importlib.metadata.version("pyarrow"))
print("boto3 is refused by the same server:", refused)
print("expected: an error, and b'held by the first run'")
print("seen:", raised, seen)
server.stop()
sys.exit(0 if refused and raised is None and seen == b"taken by pyarrow" else 1)
PY
