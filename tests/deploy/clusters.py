#!/usr/bin/env python3
"""Two edges and a hub as plain processes, four runtimes with sidecars, one of them drifting: what
crosses, what a cut link, a killed hub and a compromised edge do. `make clusters`.

    clusters.py [--cut SECONDS]

Exit code 0: all was shown. 1: something was not. Ends what it starts, by process id."""

import argparse, json, os, pathlib, re, shutil, signal, socket, subprocess, sys
import tempfile, threading, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
NATS = os.environ.get("NATS_CLI") or shutil.which("nats")
SERVER = os.environ.get("NATS_SERVER", "nats-server")
DRIFTGATE = os.environ.get("DRIFTGATE", str(ROOT / "target/release/driftgate"))
EDGES = {"west": ["west-1", "west-2"], "east": ["east-1", "east-2"]}
ALL = [name for names in EDGES.values() for name in names]
RELAY = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def pump(a, b):
    try:
        while (data := a.recv(65536)): b.sendall(data)
    except OSError: pass
    for end in (a, b):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
while True:
    a, _ = listener.accept()
    try: b = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    except OSError: a.close(); continue
    for pair in ((a, b), (b, a)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""

failed = []


def check(name, held, said=""):
    print(f"{'shown ' if held else 'FAILED'}  {name}{': ' if said else ''}{said}", flush=True)
    if not held:
        failed.append(name)


def ports(count):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return numbers


def until(condition, seconds):
    """Seconds until `condition` is true, or None."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if condition():
            return time.monotonic() - begun
        time.sleep(0.05)
    return None


class Clusters:
    def __init__(self, work):
        self.work, self.processes = work, {}
        self.env = dict(os.environ, XDG_CONFIG_HOME=str(work / "xdg"))
        names = ["hub", "leaf", "relay", "west", "east"] + ALL + [f"{name} admin" for name in ALL]
        self.port = dict(zip(names, ports(len(names))))

    def start(self, name, arguments, **environment):
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        log = open(self.work / f"{name}.log", "a")
        self.processes[name] = subprocess.Popen(
            arguments, cwd=folder, env=dict(self.env, **environment), stdout=log, stderr=log)

    def end(self, name, how=signal.SIGKILL):
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait()

    def nats(self, context, *arguments):
        run = subprocess.run([NATS, "--context", context, *arguments], env=self.env, text=True,
                             capture_output=True, timeout=60)
        return run.stdout + run.stderr

    def context(self, name, port, *more):
        subprocess.run([NATS, "context", "save", name, "--server", f"nats://127.0.0.1:{port}", *more],
                       env=self.env, check=True, capture_output=True)

    def key(self, name):
        """Makes a user nkey; its public half."""
        file = self.work / f"{name}.seed"
        subprocess.run([NATS, "auth", "nkey", "gen", "user", "--output", file], check=True,
                       capture_output=True)
        file.chmod(0o600)
        shown = subprocess.run([NATS, "auth", "nkey", "show", file], check=True, text=True,
                               capture_output=True).stdout
        return re.search(r"U[A-Z0-9]{55}", shown)[0]

    def seed(self, name):
        return (self.work / f"{name}.seed").read_text().strip()

    def configure(self):
        subprocess.run([DRIFTGATE, "keygen", "--out", self.work / "k1"], check=True,
                       capture_output=True)
        self.env.update(PROVISIONER=self.key("provisioner"), WEST=self.key("west"),
                        EAST=self.key("east"), LEAF_LISTEN=f"127.0.0.1:{self.port['leaf']}")
        for file in ["hub.conf", "clusters.txt"]:
            shutil.copy(ROOT / "deploy/nats" / file, self.work)
        for edge, names in EDGES.items():
            folder = self.work / edge
            folder.mkdir()
            shutil.copy(ROOT / "deploy/nats/edge.conf", folder)
            users = ["  { nkey: $PROVISIONER }"]
            for name in names:
                users.append(f'  {{ nkey: {self.key(name)}, include "{name}.conf" }}')
                config = self.sidecar(edge, name)
                grants = subprocess.run([DRIFTGATE, "permissions", "--for", "nats", "--config", config],
                                        check=True, text=True, capture_output=True).stdout
                (folder / f"{name}.conf").write_text(grants)
            (folder / "users.conf").write_text("users: [\n" + "\n".join(users) + "\n]\n")

    def sidecar(self, edge, name):
        peers = "".join(f'[[peers]]\nid = "{peer}"\nexport = ["state"]\nimport = ["state"]\n'
                        for peer in ALL if peer != name)
        file = self.work / f"{name}.toml"
        file.write_text(
            f'[runtime]\nid = "{name}"\nattractor_type = "symbolic"\n{peers}'
            f'[nats]\nurl = ["nats://127.0.0.1:{self.port[edge]}"]\n'
            f'stream_out = "DRIFTGATE_OUT"\nstream_in = "DRIFTGATE_IN"\n'
            f'nkey_file = "{self.work}/{name}.seed"\n'
            f'[listen]\napi = "127.0.0.1:{self.port[name]}"\n'
            f'admin = "127.0.0.1:{self.port[name + " admin"]}"\n'
            f'[snapshot]\nspool = "{self.work}/{name}/spool"\n'
            f'[integrity]\nsign_with = "k1"\n'
            f'[[integrity.keys]]\nid = "k1"\nfile = "{self.work}/k1"\n')
        return file

    def hub(self):
        self.start("hub", [SERVER, "-c", "../hub.conf", "-a", "127.0.0.1",
                           "-p", str(self.port["hub"]), "-m", "-1"])

    def relay(self):
        self.start("relay", [sys.executable, "-c", RELAY, str(self.port["relay"]),
                             str(self.port["leaf"])])

    def edge(self, edge, through):
        self.start(edge, [SERVER, "-c", "edge.conf", "-a", "127.0.0.1", "-p",
                          str(self.port[edge]), "-m", "-1"], CLUSTER=edge, LEAF_SEED=self.seed(edge),
                   HUB=f"nats-leaf://127.0.0.1:{self.port[through]}")

    def up(self):
        self.configure()
        self.hub()
        self.relay()
        self.edge("west", "leaf")
        self.edge("east", "relay")
        for context in ["hub", "west", "east"]:
            self.context(context, self.port[context], "--nkey", self.work / "provisioner.seed")
            until(lambda: "rtt" in self.nats(context, "rtt"), 20)

    def provision(self, *arguments):
        path = f"{pathlib.Path(NATS).parent}:{os.environ['PATH']}"
        run = subprocess.run([ROOT / "deploy/nats/provision", *arguments, "clusters.txt"],
                             cwd=self.work, env=dict(self.env, PATH=path), text=True, capture_output=True)
        return run.returncode, run.stdout + run.stderr

    def count(self, context, stream):
        said = self.nats(context, "request", "--raw", f"$JS.API.STREAM.INFO.{stream}", "")
        return json.loads(said)["state"]["last_seq"]


class Runtime:
    """One runtime: reports to its sidecar, and notes what comes in and when."""

    def __init__(self, name, port):
        self.name, self.url, self.sent, self.seen, self.refused = name, f"http://127.0.0.1:{port}", {}, [], []

    def follow(self):
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with urllib.request.urlopen(f"{self.url}/phase/telemetry", timeout=600) as stream:
            event = None
            for line in stream:
                line = line.decode().rstrip()
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and event == "packet":
                    packet = json.loads(line[6:])
                    kept = self.seen if packet["status"] == "accepted" else self.refused
                    kept.append((packet.get("source"), packet.get("seq"), time.time()))

    def report(self, drift=0.1):
        body = {"attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.9,
                                    "phase": "stable", "scr": 0.8},
                "drift_metrics": {"sdi": drift, "sv": drift, "pd": drift}}
        request = urllib.request.Request(f"{self.url}/field/state", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        begun = time.time()
        answer = json.load(urllib.request.urlopen(request, timeout=10))
        if answer["verdict"] == "export":
            self.sent[answer["seq"]] = begun
        return answer

    def run(self, stop, interval):
        while not stop.wait(interval):
            self.report()


def books(sender, receiver, since=0.0):
    """What of `sender` came to `receiver`, as one sentence, and whether once and in order."""
    sent = {seq: at for seq, at in sender.sent.items() if at >= since}
    came = [(seq, at) for source, seq, at in receiver.seen if source == sender.name and seq in sent]
    order = [seq for seq, _ in came]
    times = sorted((at - sent[seq]) * 1000 for seq, at in came)
    doubles = len(order) - len(set(order))
    p = lambda share: times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")
    said = (f"sent {len(sent)}, received {len(set(order))}, twice {doubles}, "
            f"{'in order' if order == sorted(order) else 'OUT OF ORDER'}, "
            f"p50 {p(.5):.1f} ms, p99 {p(.99):.1f} ms")
    return said, doubles == 0 and order == sorted(order), len(sent) == len(set(order))


def crossing(c, r):
    for name in ALL:
        r[name].follow()
    ready = until(lambda: [r["west-1"].report()] and any(s == "west-1" for s, *_ in r["east-1"].seen)
                  and any(s == "west-1" for s, *_ in r["west-2"].seen), 60)
    check("a first packet crosses", ready is not None, f"after {ready or 60:.1f} s")
    since = time.time()
    for _ in range(200):
        r["west-1"].report()
        time.sleep(0.03)
    for receiver in ["east-1", "west-2"]:
        until(lambda: books(r["west-1"], r[receiver], since)[2], 10)
        said, once, complete = books(r["west-1"], r[receiver], since)
        check(f"west-1 to {receiver}", once and complete, said)


def drifting(c, r):
    answer = r["east-2"].report(0.9)
    quiet = c.count("hub", "DRIFTGATE_ALL")
    for _ in range(3):
        answer = r["east-2"].report(0.9)
    check("a drifting runtime says nothing to any cluster",
          answer["verdict"] in ("block", "isolate") and c.count("hub", "DRIFTGATE_ALL") == quiet,
          f"{answer['verdict']}, {answer['band']}")


def outage(c, r, name, fail, heal, seconds):
    """Both clusters report through an outage of `seconds`."""
    stop, since = threading.Event(), time.time()
    threads = [threading.Thread(target=r[who].run, args=(stop, 0.25)) for who in ["west-1", "east-1"]]
    for thread in threads:
        thread.start()
    fail()
    time.sleep(seconds)
    last = [at for source, _, at in r["east-1"].seen if source == "west-1"][-1]
    check(f"{name}: it cuts", time.time() - last > seconds - 2, f"silent for {time.time() - last:.1f} s")
    heal()
    healed = time.time()
    fresh = lambda to, of: any(source == of and r[of].sent.get(seq, 0) > healed
                               for source, seq, _ in r[to].seen[-40:])
    took = {pair: None for pair in [("east-1", "west-1"), ("west-1", "east-1")]}
    while time.time() - healed < 60 and None in took.values():
        for pair, at in took.items():
            if at is None and fresh(*pair):
                took[pair] = time.time() - healed
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    time.sleep(1)
    for (to, of), at in took.items():
        said, once, _ = books(r[of], r[to], since)
        check(f"{name}, {of} to {to}", once and at is not None,
              f"fresh {f'{at:.1f} s' if at else 'NOT'} after; {said}")
    said, once, complete = books(r["west-1"], r["west-2"], since)
    check(f"{name}, within west", once and complete, said)



ATTEMPTS = [
    ("sync.east.hub", "packets, as if of east"),
    ("sync.hub.east", "packets, as if of the hub"),
    ("east.driftgate.v1.state.east-1.east-2", "a packet into the hub's account"),
    ("driftgate.v1.state.east-1.east-2", "a packet into east's stream"),
    ("driftgate.v1.containment.east-1", "a notice as east-1"),
    ("$JS.hub.API.STREAM.DELETE.DRIFTGATE_ALL", "the hub's stream, removed"),
    ("$JS.hub.API.STREAM.INFO.DRIFTGATE_ALL", "the hub's stream, looked at"),
    ("$JS.hub.API.STREAM.MSG.GET.DRIFTGATE_ALL", "the hub's stream, read"),
    ("$JS.hub.API.CONSUMER.CREATE.DRIFTGATE_ALL.x", "a consumer that delivers anywhere"),
    ("$JS.hub.API.CONSUMER.RESET.DRIFTGATE_ALL.to-east", "east's consumer, wound back"),
    ("$JS.FC.DRIFTGATE_ALL.to-east.x", "east's consumer, acknowledged"),
    ("$JS.east.API.STREAM.DELETE.DRIFTGATE_IN", "east's stream, removed"),
    ("$JS.east.API.CONSUMER.RESET.DRIFTGATE_OUT.to-hub", "the hub's consumer in east, wound back"),
    ("$KV.driftgate-presence.east-1", "east-1's presence"),
]


def compromised(c, r):
    """West's leaf credentials, in a broker that keeps to no rule of edge.conf."""
    client = subprocess.run([NATS, "--server", f"nats://127.0.0.1:{c.port['hub']}", "--nkey",
                             str(c.work / "west.seed"), "rtt"], env=c.env, text=True, capture_output=True)
    check("west's credentials as a client of the hub",
          "uthorization" in client.stdout + client.stderr, "refused")
    c.end("west")
    port, = ports(1)
    (c.work / "mallory.conf").write_text(
        f'server_name: mallory\nlisten: "127.0.0.1:{port}"\n'
        f'leafnodes {{ remotes: [ {{ urls: ["nats-leaf://127.0.0.1:{c.port["leaf"]}"], '
        f'nkey: {c.seed("west")} }} ] }}\n')
    c.start("mallory", [SERVER, "-c", "../mallory.conf"])
    c.context("mallory", port)
    heard = {}
    for place in ["hub", "east"]:
        heard[place] = c.work / f"heard-{place}.log"
        c.start(f"heard-{place}", [NATS, "--context", place, "subscribe", ">"])
    c.start("ear", [NATS, "--context", "mallory", "subscribe", "$JS.>", "sync.>", ">"])
    until(lambda: "Leafnode connection created" in (c.work / "mallory.log").read_text(), 20)
    # One that is allowed shows that the link is up and the ears hear.
    listens = lambda: c.nats("mallory", "publish", "sync.west.hub", "allowed") and \
        "allowed" in heard["hub"].read_text()
    check("its own packets reach the hub", until(listens, 20) is not None)
    stood = c.count("hub", "DRIFTGATE_ALL"), c.count("east", "DRIFTGATE_IN")
    for subject, what in ATTEMPTS:
        reply = c.nats("mallory", "request", subject, "forged-by-west", "--timeout", "1s")
        answered = '"type"' in reply or "Received with" in reply
        said = "no responders" if "responders" in reply else "no answer"
        reached = [place for place, log in heard.items() if "forged-by-west" in log.read_text()]
        check(f"compromised west tries {subject} ({what})", not answered and not reached,
              said if not reached else f"reached {reached}")
    r["east-1"].report()
    own = re.compile(r'"(sync\.(hub\.west|west\.hub)|\$JS\.west\.API\.|\$JS\.FC\.DRIFTGATE_OUT\.to-hub|\$JSC\.R\.|_INBOX)')
    overheard = [line for line in (c.work / "ear.log").read_text().splitlines()
                 if "Received on" in line and "forged" not in line and not own.search(line)]
    overheard = [line for line in overheard if not any(tried in line for tried, _ in ATTEMPTS)]
    check("it hears nothing but its own packets", not overheard, "; ".join(overheard[:2])[:120])
    check("the streams of hub and east stand", stood <= (c.count("hub", "DRIFTGATE_ALL"),
                                                        c.count("east", "DRIFTGATE_IN")))
    for name in ["mallory", "heard-hub", "heard-east", "ear"]:
        c.end(name)
    c.edge("west", "leaf")
    before = len(r["east-1"].refused)
    until(lambda: "Stored" in c.nats("west", "publish", "-J", "driftgate.v1.state.east-2.east-1",
                                     "forged-by-west"), 20)
    until(lambda: len(r["east-1"].refused) > before, 60)
    check("a forged packet that west may store is refused by its reader",
          len(r["east-1"].refused) > before)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--cut", type=float, default=30)
    cut = arguments.parse_args().cut
    if not NATS:
        print("SKIPPED: the nats command is not on PATH, and NATS_CLI does not name it")
        return 0
    work = pathlib.Path(tempfile.mkdtemp(prefix="clusters-"))
    c = Clusters(work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        c.up()
        begun = time.monotonic()
        code, said = c.provision()
        check("one command joins the clusters", code == 0, f"{time.monotonic() - begun:.1f} s")
        if code:
            print(said)
        check("twice is once", c.provision() == (0, "all as clusters.txt says\n"))
        c.nats("east", "stream", "edit", "DRIFTGATE_IN", "--max-age", "2h", "--force")
        code, said = c.provision("--check")
        check("it says what differs", code == 1 and "MaxAge" in said, " ".join(said.split()))
        check("and mends it", c.provision()[0] == 0 and c.provision("--check")[0] == 0)
        for edge, names in EDGES.items():
            for name in names:
                c.start(name, [DRIFTGATE, "run", "--config", str(work / f"{name}.toml")])
        r = {name: Runtime(name, c.port[name]) for name in ALL}
        for name in ALL:
            ready = until(lambda: socket.socket().connect_ex(("127.0.0.1", c.port[name])) == 0, 20)
            check(f"{name} runs with the least grants", ready is not None)
        crossing(c, r)
        drifting(c, r)
        outage(c, r, f"link cut for {cut:.0f} s", lambda: c.end("relay"), c.relay, cut)
        outage(c, r, f"hub killed for {cut / 2:.0f} s", lambda: c.end("hub"), c.hub, cut / 2)
        compromised(c, r)
    finally:
        for name in list(c.processes):
            c.end(name)
        if failed:
            print(f"logs: {work}")
        else:
            shutil.rmtree(work)
    print(f"{len(failed)} not shown: {', '.join(failed)}" if failed else "all shown")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
