"""A runtime's side of Driftgate, with nothing but Python's standard library (3.9 or newer).

    DRIFTGATE_API=http://127.0.0.1:7405 DELIVER_PORT=8080 python3 runtime.py

It reports, reads what peers sent, takes deliveries, pushes its memory, follows events, and does
something sensible with every answer. The sidecar needs `deliver.url = "http://127.0.0.1:8080/"`.
"""

import http.server
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

API = os.environ.get("DRIFTGATE_API", "http://127.0.0.1:7405")
TOKEN_FILE = os.environ.get("DRIFTGATE_TOKEN_FILE")  # only with listen.token_file
ATTEMPTS_MAX = 5
PAUSE_MAX_S = 10.0


class Refused(Exception):
    """Sending the same again is pointless: the problem document says what is wrong, and where."""

    def __init__(self, problem):
        self.problem = problem
        super().__init__(f"{problem.get('title')}: {problem.get('detail')}")


class Closed(Exception):
    """423: the gate is not open. Nothing is wrong with the request; it is not the time for it."""


def call(method, path, body=None, media="application/json", attempts=ATTEMPTS_MAX):
    """One request, made again where that can help. Returns (status, headers, bytes)."""
    headers = {"Content-Type": media} if body is not None else {}
    if TOKEN_FILE:
        with open(TOKEN_FILE, encoding="utf-8") as file:  # read anew: it may have been rotated
            headers["Authorization"] = "Bearer " + file.read().strip()
    pause = 0.2
    for attempt in range(1, attempts + 1):
        request = urllib.request.Request(API + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            if error.code == 423:
                raise Closed(problem["detail"]) from None
            if error.code == 304:
                return error.code, error.headers, b""
            # 408, 503, 504 and 507 pass; every other status is about the request itself.
            if error.code not in (408, 503, 504, 507) or attempt == attempts:
                raise Refused(problem) from None
            pause = float(error.headers.get("Retry-After", pause))
        except OSError:  # the sidecar is starting, stopping, or away: never let that stop the agent
            if attempt == attempts:
                raise
        time.sleep(min(pause, PAUSE_MAX_S))
        pause *= 2
    raise AssertionError("unreachable")


def report(cycle, sdi, sv, pd, scr, stability=0.9, phase="stable"):
    """One cycle's report. The same report under the same cycle is a retry and counts once."""
    body = {
        "cycle": cycle,
        "attractor_state": {
            "id": "a-1", "type": "symbolic", "stability": stability, "phase": phase, "scr": scr,
        },
        "drift_metrics": {"sdi": sdi, "sv": sv, "pd": pd},
    }
    _, _, answer = call("POST", "/field/state", json.dumps(body).encode())
    return json.loads(answer)


def peers():
    """What each configured peer last sent, or why there is nothing of it. All of it is evidence
    from outside: label it so, and never merge it into your own state."""
    _, _, answer = call("GET", "/field/state")
    return {peer["source"]: peer for peer in json.loads(answer)["peers"]}


def push(memory):
    """Pushes a memory snapshot. It is on disk when this returns, and sent when gate and broker
    allow; a gate that closes first revokes it."""
    status, _, answer = call("PUT", "/memory/snapshot", memory, "application/octet-stream")
    return status, json.loads(answer)["digest"]


class Deliveries(http.server.BaseHTTPRequestHandler):
    """Takes accepted packets of peers. 2xx acknowledges; anything else has it offered again."""

    protocol_version = "HTTP/1.1"
    taken = []

    def do_POST(self):
        packet = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        source, seq = self.headers["Driftgate-Source"], int(self.headers["Driftgate-Seq"])
        uses = self.headers.get("Driftgate-Allowed-Use", "")
        Deliveries.taken.append((source, seq, uses, packet))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def follow(on_event, listening):
    """Follows the sidecar's events until it goes away, and again when it is back. After a pause
    `Last-Event-ID` asks for what was missed; `lagged` says that something cannot be told again."""
    last = None
    while True:
        headers = {"Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        if TOKEN_FILE:
            with open(TOKEN_FILE, encoding="utf-8") as file:
                headers["Authorization"] = "Bearer " + file.read().strip()
        request = urllib.request.Request(API + "/phase/telemetry", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=45) as stream:  # a comment comes each 15 s
                listening.set()
                name, data = "message", []
                for line in stream:
                    line = line.decode().rstrip("\r\n")
                    if not line and data:
                        on_event(name, json.loads("\n".join(data)))
                    if not line:
                        name, data = "message", []
                    key, _, value = line.partition(":")
                    value = value[1:] if value.startswith(" ") else value
                    if key == "event":
                        name = value
                    elif key == "data":
                        data.append(value)
                    elif key == "id":
                        last = value
        except OSError:
            pass
        time.sleep(2)


def say(*words):
    """One line in one write, for two threads talk here."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main():
    port = int(os.environ.get("DELIVER_PORT", "8080"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Deliveries)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    listening, closed = threading.Event(), threading.Event()

    def on_event(name, data):
        if name == "transition":
            say(f"event: {data['from']} -> {data['to']}", *data["reasons"])
            if data["to"] == "blocked":
                closed.set()

    threading.Thread(target=follow, args=(on_event, listening), daemon=True).start()
    listening.wait(10)

    # Cycle numbers go up by one. A runtime that keeps no counter over a restart begins with the
    # clock: a number that falls back means "started anew", and such a report never opens the gate.
    first = int(time.time() * 1000)
    answer = report(first, 0.2, 0.1, 0.1, 0.8)
    say("good:", answer["verdict"], answer["band"])
    for name, peer in peers().items():
        say(f"peer {name}:", peer.get("absent") or f"{peer['age_s']} s old")
    status, digest = push(b"what the runtime remembers\n" * 1000)
    say("memory:", status, digest[:14])

    answer = report(first + 1, 0.5, 0.5, 0.4, 0.8)
    say("drifting:", answer["verdict"], *answer["reasons"], answer["barrier"])
    try:
        push(b"what a drifting runtime remembers\n")
    except Closed as reason:
        say("memory: kept for later:", reason)
    try:
        report(first + 2, 2, 0.1, 0.1, 0.8)
    except Refused as refused:
        say("refused:", refused)

    answer = report(first + 3, 0.2, 0.1, 0.1, 0.8)
    say("good again:", answer["verdict"], answer["band"])
    if not closed.wait(10):
        raise SystemExit("no event came")
    deadline = time.monotonic() + float(os.environ.get("WAIT_S", "0"))
    while not Deliveries.taken and time.monotonic() < deadline:
        time.sleep(0.1)
    for source, seq, uses, packet in Deliveries.taken:
        phase = packet["payload"]["attractor_state"]["phase"]
        say(f"delivered: {source} {seq} for {uses}:", phase)


if __name__ == "__main__":
    main()
