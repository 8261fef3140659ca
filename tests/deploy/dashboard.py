#!/usr/bin/env python3
"""The Grafana dashboard's own queries, asked of a real Prometheus that scrapes two sidecars while a
runtime drifts off and comes back, and its picture as an SVG. `make dashboard`.

    dashboard.py PICTURE

Exit code 0: every query is understood and finds something, or may find nothing. 1: one does not.
Ends what it starts, by process id. Needs prometheus on the path (Debian: prometheus)."""

import html, json, os, pathlib, shutil, socket, subprocess, sys, tempfile, time
import urllib.parse, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRIFTGATE = os.environ.get("DRIFTGATE", str(ROOT / "target/release/driftgate"))
SERVER = os.environ.get("NATS_SERVER", "nats-server")
PROMETHEUS = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
# Nothing of this happens in the story below: no packet is refused, no snapshot pushed twice.
MAY_BE_EMPTY = {"Refused inbound packets", "What weakens a promise now"}
STORY = [0.2] * 25 + [0.3, 0.4, 0.46, 0.48] * 3 + [0.53] * 15 + [0.65] * 8 + [0.2] * 30
COLOURS = ["#3274d9", "#ff780a", "#299c46", "#e02f44", "#8f3bb8", "#b7a300"]
WIDTH, HEIGHT, COLUMNS = 440, 170, 3


def port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def ask(address, path, body=None, kind="application/json", method=None):
    """The body of the answer, an error's too."""
    request = urllib.request.Request(f"http://127.0.0.1:{address}{path}", body, {"Content-Type": kind}, method=method)
    try:
        return urllib.request.urlopen(request, timeout=10).read()
    except urllib.error.HTTPError as error:
        return error.read()


def report(cycle, di):
    scr = min(1, (min(3 * di, 0.55) + min(max(3 * di - 0.55, 0), 0.65) + min(max(3 * di - 1.2, 0), 0.45)) / (3 * di))
    metrics = {"sdi": min(3 * di, 0.55), "sv": min(max(3 * di - 0.55, 0), 0.65),
               "pd": min(max(3 * di - 1.2, 0), 0.45), "di": di}
    state = {"id": "a-1", "type": "symbolic", "stability": 0.91, "phase": "stable", "scr": scr}
    return json.dumps({"cycle": cycle, "attractor_state": state, "drift_metrics": metrics}).encode()


def configuration(folder, own, peer, nats, api, admin):
    scopes = '["state", "snapshot"]'
    path = folder / f"{own}.toml"
    path.write_text(
        f'runtime = {{ id = "{own}", attractor_type = "symbolic" }}\n'
        f'nats.url = ["nats://127.0.0.1:{nats}"]\nsnapshot.spool = "{folder / own}"\n'
        f'listen = {{ api = "127.0.0.1:{api}", admin = "127.0.0.1:{admin}" }}\n'
        f'integrity = {{ sign_with = "k1", keys = [{{ id = "k1", file = "{folder / "k1"}" }}] }}\n'
        f'[[peers]]\nid = "{peer}"\nexport = {scopes}\nimport = {scopes}\n')
    return str(path)


def draw(panels, begin, end):
    """All panels as one SVG: lines on a scale of their own, the largest value beside them."""
    rows = -(-len(panels) // COLUMNS)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11" '
           f'viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}"><rect width="100%" height="100%" fill="#fff"/>']
    for index, (title, series) in enumerate(panels):
        x, y = index % COLUMNS * WIDTH + 10, index // COLUMNS * HEIGHT + 10
        w, h = WIDTH - 20, HEIGHT - 60
        top = max([value for _, points in series for _, value in points] + [0]) or 1
        out.append(f'<g transform="translate({x},{y})"><text y="10" font-weight="bold">{html.escape(title)}</text>'
                   f'<rect y="18" width="{w}" height="{h}" fill="#f7f7f8" stroke="#ddd"/>'
                   f'<text x="{w - 4}" y="30" text-anchor="end" fill="#666">{top if series else 0:.3g}</text>')
        if not series:
            out.append(f'<text x="{w / 2}" y="{18 + h / 2}" text-anchor="middle" fill="#666">nothing</text>')
        left = 0
        for place, (name, points) in enumerate(series[:6]):
            colour = COLOURS[place]
            line = " ".join(f"{(at - begin) / (end - begin) * w:.0f},{18 + h - value / top * (h - 4):.0f}"
                            for at, value in points)
            out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{line}"/>'
                       f'<text x="{left}" y="{h + 32}" fill="{colour}">{html.escape(name)}</text>')
            left += 8 * len(name) * 0.72 + 12
        out.append("</g>")
    return "\n".join(out + ["</svg>\n"])


def look(address, dashboard, begin, end):
    """Each panel with what its queries find; what is wrong is said."""
    panels, wrong = [], []
    for panel in dashboard["panels"]:
        series = []
        for target in panel["targets"]:
            query = target["expr"].replace("$runtime", ".*").replace("$__rate_interval", "10s")
            words = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": 1})
            answer = json.loads(ask(address, f"/api/v1/query_range?{words}"))
            if answer["status"] != "success":
                wrong.append(f'{panel["title"]}: {answer["error"]}')
                continue
            for found in answer["data"]["result"]:
                labels = found["metric"]
                kept = [labels[key] for key in labels if key not in ("__name__", "job")] or [target.get("legendFormat", "")]
                points = [(at, float(value)) for at, value in found["values"] if value not in ("NaN", "+Inf")]
                series.append((" ".join(kept), points))
        if not series and panel["title"] not in MAY_BE_EMPTY:
            wrong.append(f'{panel["title"]}: finds nothing')
        # What moves comes first: a picture has room for six lines.
        series.sort(key=lambda one: -len({value for _, value in one[1]}))
        panels.append((panel["title"], series))
        print(f'{len(series):4} series  {panel["title"]}', flush=True)
    return panels, wrong


def main(picture):
    if not PROMETHEUS:
        print("make dashboard needs prometheus (Debian: prometheus)", file=sys.stderr)
        return 1
    folder, running = pathlib.Path(tempfile.mkdtemp(prefix="driftgate-dashboard-")), []
    nats, prometheus = port(), port()
    addresses = {name: (port(), port()) for name in ("planner", "critic")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = lambda *command: running.append(subprocess.Popen(command, **quiet))
    try:
        start(SERVER, "-a", "127.0.0.1", "-p", str(nats), "-js", "-sd", str(folder / "js"))
        subprocess.run([DRIFTGATE, "keygen", "--out", str(folder / "k1")], check=True, **quiet)
        time.sleep(1)
        for own, peer in (("planner", "critic"), ("critic", "planner")):
            start(DRIFTGATE, "run", "--config", configuration(folder, own, peer, nats, *addresses[own]))
        scraped = [{"targets": [f"127.0.0.1:{admin}"], "labels": {"instance": name}}
                   for name, (_, admin) in addresses.items()]
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "driftgate", "static_configs": scraped}]}))
        start(PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
              f"--web.listen-address=127.0.0.1:{prometheus}")
        time.sleep(4)
        begin = time.time()
        for cycle, di in enumerate(STORY, 1):
            for name, (api, _) in addresses.items():
                ask(api, "/field/state", report(cycle, di if name == "planner" else 0.2))
            if cycle in (10, 20, 80):
                snapshot = b"".join(b'{"turn":%d}\n' % turn for turn in range(cycle * 2000))
                ask(addresses["planner"][0], "/memory/snapshot", snapshot, "application/x-ndjson", "PUT")
            time.sleep(1)
        end = time.time()
        dashboard = json.loads((ROOT / "deploy/grafana/driftgate.json").read_text())
        panels, wrong = look(prometheus, dashboard, begin, end)
        pathlib.Path(picture).write_text(draw(panels, begin, end))
        print("\n".join(f"FAILED  {text}" for text in wrong) or f"shown   {len(panels)} panels in {picture}")
        return 1 if wrong else 0
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
