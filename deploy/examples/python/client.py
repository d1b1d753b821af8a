"""Does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch.

Usage: client.py get DATASET KEY | replace DATASET KEY VALUE [ETAG] | batch DATASET KEY... | watch DATASET KEY
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SIDECAR = os.environ.get("RINGSIDE_HTTP", "http://localhost:7070")
TIMEOUT = 10  # seconds; longer than the sidecar takes to answer
IDLE = 60  # seconds; longer than the time between two heartbeats of a watch
MAX_RETRIES = 30


class Problem(Exception):
    """An error of the sidecar (RFC 9457). Rely on its name, such as "not-found"; retry_after is in seconds, or None."""

    def __init__(self, document, retry_after=None):
        self.name = document["type"].removeprefix("https://ringside.dev/problems/")
        self.retry_after = retry_after
        super().__init__(f"error {self.name}: {document['detail']}")


def url_of(dataset, key):
    return f"{SIDECAR}/v1/{dataset}/{urllib.parse.quote(key, safe='')}"


def send(method, url, body=None, headers=None):
    """Makes one request, without a retry."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            after = error.headers.get("Retry-After")
            raise Problem(json.load(error), None if after is None else int(after)) from None


def read(url):
    """Repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar is restarting."""
    for attempt in range(MAX_RETRIES + 1):
        try:
            return send("GET", url)
        except Problem as problem:
            if problem.retry_after is None or attempt == MAX_RETRIES:  # it does not change when it is repeated
                raise
            after = problem.retry_after
        except OSError:
            if attempt == MAX_RETRIES:
                raise
            after = 1
        print(f"unavailable, trying again in {after} s", file=sys.stderr, flush=True)
        time.sleep(after)
    raise AssertionError


def get(dataset, key):
    try:
        headers, value = read(url_of(dataset, key))
    except Problem as problem:
        if problem.name != "not-found":
            raise
        print("not found")  # an answer like any other
        return
    if headers.get("Ringside-Stale") == "true":  # the database is down: use it, and know its age
        print(f"stale, {headers['Age']} s old: {value.decode()}")
    else:
        print(f"value: {value.decode()}")


def replace(dataset, key, value, etag=None):
    """Writes a value if nobody else has changed the row since it was read, or since it had the given ETag.

    A write is not repeated: after a lost response, read the row to find out whether it was made, or send an Idempotency-Key.
    """
    if etag is None:
        headers, _ = read(url_of(dataset, key))
        etag = headers["ETag"]
    try:
        headers, _ = send("PUT", url_of(dataset, key), value.encode(), {"If-Match": etag, "Content-Type": "application/json"})
    except Problem as problem:
        if problem.name != "precondition-failed":
            raise
        print("condition failed")  # read it again, and decide again
        return
    print("written, version", headers["Ringside-Version"])


def text_of(state):
    """The result of one key of a batch, or a state event of a watch."""
    if "error" in state:
        name = Problem(state["error"]).name
        return f"{state['key']}: " + ("not found" if name == "not-found" else f"error {name}")
    stale = "stale: " if state.get("stale") else "value: "
    return f"{state['key']}: {stale}{json.dumps(state['value'])}"


def batch(dataset, *keys):
    """Reads many keys in one request. Each has a result of its own: some may fail."""
    body = json.dumps({"keys": keys}).encode()
    _, answer = send("POST", f"{SIDECAR}/v1/{dataset}:batchGet", body, {"Content-Type": "application/json"})
    for state in json.loads(answer)["results"]:
        print(text_of(state))


def watch(dataset, key):
    """Prints each change of a key, forever. After an interruption it resumes with the id of the last event."""
    url = f"{SIDECAR}/v1/{dataset}:watch?key={urllib.parse.quote(key, safe='')}"
    last = {}
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=last), timeout=IDLE) as stream:
                for event in events(stream):
                    if "id" in event:
                        last = {"Last-Event-ID": event["id"]}
                    # current: all states were sent; reset: they come again
                    print(text_of(json.loads(event["data"])) if event["event"] == "state" else event["event"], flush=True)
        except (OSError, http.client.HTTPException) as error:
            print("interrupted:", error, file=sys.stderr)
        print("resuming", file=sys.stderr, flush=True)
        time.sleep(1)


def events(stream):
    """Splits a stream of server-sent events. A line with a colon alone is a heartbeat."""
    event = {}
    for line in stream:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "" and "event" in event:
            yield event
            event = {}
        elif name not in ("", ":"):
            event[name] = value


def main():
    commands = {"get": get, "replace": replace, "batch": batch, "watch": watch}
    if len(sys.argv) < 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except (Problem, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
