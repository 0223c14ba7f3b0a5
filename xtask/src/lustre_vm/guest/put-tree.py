"""Puts the files of a tree into a bucket: put-tree.py ENDPOINT BUCKET PREFIX DIR, keys in the environment."""
import datetime
import hashlib
import hmac
import os
import sys
import urllib.parse
import urllib.request

endpoint, bucket, prefix, root = sys.argv[1:]
key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
HASH = "UNSIGNED-PAYLOAD"


def put(path, name):
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    uri = urllib.parse.quote("/%s/%s" % (bucket, name))
    host = urllib.parse.urlsplit(endpoint).netloc
    headers = {"host": host, "x-amz-content-sha256": HASH, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    lines = ["%s:%s" % header for header in sorted(headers.items())]
    request = "\n".join(["PUT", uri, "", *lines, "", names, HASH])
    scope = [stamp[:8], "us-east-1", "s3", "aws4_request"]
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()])
    signature = ("AWS4" + secret).encode()
    for part in [*scope, text]:
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        key, "/".join(scope), names, signature.hex())
    with open(path, "rb") as body:
        headers["content-length"] = str(os.fstat(body.fileno()).st_size)
        urllib.request.urlopen(urllib.request.Request(endpoint + uri, body, headers, method="PUT"), timeout=60).close()


for where, _, files in os.walk(root):
    for file in files:
        path = os.path.join(where, file)
        put(path, "%s/%s" % (prefix, os.path.relpath(path, root)))
