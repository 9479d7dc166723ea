#!/usr/bin/env bash
# What:    an exception within `with S3FileSystem.open_output_stream(key)` publishes what was written until then: the
#          object is replaced by its first half.
# Expect:  the upload is aborted and the object stays as it was, as with boto3's upload_fileobj.
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
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
key = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **key)
client.create_bucket(Bucket="labels")
client.put_object(Bucket="labels", Key="row.json", Body=b"the whole row of yesterday")
where = {"region": "us-east-1", "scheme": "http", "endpoint_override": f"127.0.0.1:{port}"}
storage = S3FileSystem(access_key="a", secret_key="b", **where)
try:
    with storage.open_output_stream("labels/row.json") as stream:
        stream.write(b"the first half of tod")
        raise RuntimeError("the writer fails")
except RuntimeError:
    pass
seen = client.get_object(Bucket="labels", Key="row.json")["Body"].read()
print("pyarrow", importlib.metadata.version("pyarrow"))
print("expected: b'the whole row of yesterday'")
print("seen:", seen)
server.stop()
sys.exit(0 if seen == b"the first half of tod" else 1)
PY
