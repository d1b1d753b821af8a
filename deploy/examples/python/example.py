"""Reads a key through the sidecar of its pod: over HTTP, over gRPC, and over gRPC on the unix socket.

Usage: example.py DATASET KEY
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ringside.v1 import cache_pb2, cache_pb2_grpc

TIMEOUT = 5  # seconds


class NotFound(Exception):
    """The database has no such key."""


class Unavailable(Exception):
    """The sidecar is unavailable; after is the number of seconds after which to retry."""

    def __init__(self, after):
        super().__init__(f"unavailable, try again in {after:.0f} s")
        self.after = after


def over_http(sidecar, dataset, key):
    url = f"{sidecar}/v1/{dataset}/{urllib.parse.quote(key, safe='')}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            stale = response.headers.get("Ringside-Stale") == "true"
            return response.read(), stale, response.headers["Age"]
    except urllib.error.HTTPError as error:
        problem = json.load(error)  # RFC 9457; rely on its type
        if problem["type"] == "https://ringside.dev/problems/not-found":
            raise NotFound("not found") from error
        if "Retry-After" in error.headers:
            raise Unavailable(int(error.headers["Retry-After"])) from error
        raise RuntimeError(problem["detail"]) from error


def over_grpc(sidecar, dataset, key):
    # Reuse one channel in your program; this example closes it after one call.
    with grpc.insecure_channel(sidecar) as channel:
        stub = cache_pb2_grpc.CacheStub(channel)
        request = cache_pb2.GetRequest(dataset=dataset, key=key)
        try:
            # wait_for_ready waits for a sidecar that is starting, until the timeout.
            response = stub.Get(request, timeout=TIMEOUT, wait_for_ready=True)
        except grpc.RpcError as error:
            raise reason_of(error) from error
        return response.value, response.meta.stale, response.meta.age.seconds


def reason_of(error):
    """Decodes the google.rpc details of a status. The reasons are listed in ringside/v1/cache.proto."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.reason == "NOT_FOUND":
            return NotFound("not found")
        if detail.Unpack(retry):
            return Unavailable(retry.retry_delay.ToTimedelta().total_seconds())
    return RuntimeError(error.details())


def show(way, read, sidecar, dataset, key):
    try:
        value, stale, age = read(sidecar, dataset, key)
        prefix = f"stale, {age} s old: " if stale else ""  # the database is unavailable: use it, but note its age
        print(f"{way}: {prefix}{value.decode()}")
    except (NotFound, Unavailable, RuntimeError) as error:
        print(f"{way}: {error}")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: example.py DATASET KEY")
    key = sys.argv[1:]
    show("http", over_http, os.environ.get("RINGSIDE_HTTP", "http://localhost:7070"), *key)
    show("grpc", over_grpc, os.environ.get("RINGSIDE_GRPC", "localhost:7071"), *key)
    show("unix", over_grpc, "unix:" + os.environ.get("RINGSIDE_UNIX", "/run/ringside/ringside.sock"), *key)


if __name__ == "__main__":
    main()
