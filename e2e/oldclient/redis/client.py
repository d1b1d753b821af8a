"""Uses a sidecar through redis-py, and fails if it gets something else than from Redis. Usage: client.py HOST PORT DATASET"""

import json
import sys
import time

import redis
from redis.cache import CacheConfig


def check(what, got, want):
    if got != want:
        raise SystemExit(f"{what}: got {got!r}, want {want!r}")


def refused(what, call):
    try:
        call()
    except redis.ResponseError:
        return
    raise SystemExit(f"{what}: got a reply, want an error")


def note(value):
    return json.loads(value)["note"]


def use(client, prefix):
    """Reads and writes, with and without a pipeline and a transaction."""
    key, none = prefix + "py", prefix + "none"
    with client.pipeline(transaction=False) as pipe:
        for n in range(100):
            pipe.set(key, json.dumps({"note": str(n)}))
            pipe.get(key)
        replies = pipe.execute()
    check("a pipeline", [note(value) for value in replies[1::2]], [str(n) for n in range(100)])
    with client.pipeline(transaction=True) as pipe:
        ttl, value = pipe.pttl(key).get(key).execute()
    check("PTTL in a transaction", 0 < ttl <= 3_600_000, True)
    check("GET in a transaction", note(value), "99")
    check("SET NX of a row that exists", client.set(key, value, nx=True), None)
    check("SET XX of a row that does not exist", client.set(none, '{"note":"a"}', xx=True), None)
    check("MSET", client.mset({prefix + str(n): '{"note":"many"}' for n in range(10)}), True)
    many = client.mget([prefix + str(n) for n in range(10)] + [none])
    check("MGET", [value and note(value) for value in many], ["many"] * 10 + [None])
    check("SCAN of what was read", prefix + "0" in set(client.scan_iter(match=prefix + "*")), True)
    check("EXISTS", client.exists(key, none), 1)
    refused("a ttl in SET", lambda: client.set(key, value, ex=10))
    refused("an unknown command", lambda: client.lpush(key, "a"))
    check("DEL", client.delete(key, none), 1)
    check("GET after DEL", client.get(key), None)


def use_cache(cached, writer, key):
    """Reads a key from the cache in the client, until a write through another client has made that invalid."""
    writer.set(key, '{"note":"old"}')
    before = cached.get(key)
    until = time.monotonic() + 60  # an invalidation of the write itself may still arrive
    while cached.get_cache().size == 0:
        check("the client caches the key in time", time.monotonic() < until, True)
        before = cached.get(key)
    writer.set(key, '{"note":"new"}')
    while cached.get(key) == before:  # the ttl is an hour
        check("the invalidation arrives in time", time.monotonic() < until, True)
    check("GET after the invalidation", note(cached.get(key)), "new")


def main():
    host, port, dataset = sys.argv[1:]
    prefix = dataset + ":"
    for protocol in (2, 3):
        with redis.Redis(host, int(port), protocol=protocol, decode_responses=True, client_name="test") as client:
            use(client, prefix)
    with (
        redis.Redis(host, int(port), protocol=3, cache_config=CacheConfig()) as cached,
        redis.Redis(host, int(port)) as writer,
    ):
        use_cache(cached, writer, prefix + "py-cached")


main()
