// The console: asks its own sidecar, draws what it says, and orders nothing but what an operator may.
// Everything that comes over the wire is written as text, never as markup.

import { chart, strip } from "./draw.js";

const VIEW_EVERY_MS = 1000;
const FLEET_EVERY_MS = 5000;
const STALE_AFTER_MS = 5000;
const POINTS_MAX = 600;
const HISTORY_MAX = 60;
const ROWS_MAX = 50;

const WORDS = {
  starting: "it has just started, and no report has come yet",
  di_caution: "the drift index is at the first mark",
  di_block: "the drift index has reached the mark at which publication is cut",
  di_isolate: "the drift index has reached the mark at which everything is cut",
  di_critical: "the drift index is critical",
  di_mismatch: "formula and reported index differ",
  di_jump: "the index rose by more than 0.4 from one cycle to the next",
  locked: "an index has locked it until an operator releases",
  latched: "closed, and this report does not reopen it",
  posture_reflective: "the runtime says that it reflects",
  posture_recenter: "the runtime says that it recenters",
  posture_unknown: "the runtime's phase word is not known",
  safety_status: "the runtime's safety flag is not nominal",
  no_evidence: "this cycle is no evidence",
  duplicate_cycle: "a cycle number came twice with other content",
  cycle_gap: "cycles are missing",
  incomplete: "a part of the index is missing",
  invalid: "a report could not be read",
  provenance_refused: "its evidence is weaker than what is accepted",
  stale: "no valid report has come for too long",
  silent: "no valid report has come for far too long",
  sdi_reflective: "semantic drift calls for reflection",
  sdi_recovery: "semantic drift calls for recovery",
  sv_reflective: "symbolic variance calls for reflection",
  sv_recovery: "symbolic variance calls for recovery",
  pd_reflective: "phase drift calls for reflection",
  pd_recovery: "phase drift calls for recovery",
  scr_reflective: "coherence calls for reflection",
  scr_recovery: "coherence calls for recovery",
  sdi_critical: "semantic drift is critical",
  sv_critical: "symbolic variance is critical",
  pd_critical: "phase drift is critical",
  scr_critical: "coherence is critical",
  psi_low: "the phase is not stable",
  psd_high: "the phase moves too fast",
  er_high: "memory erodes too fast",
  ci_low: "memory is not continuous enough to be shared",
  cc_low: "memory is not coherent enough to be shared",
  collapse: "it has been unstable for too many cycles in a row",
  blocked_too_long: "it has been blocked for too long",
  operator: "an operator holds it",
  new_epoch: "the runtime has started anew",
  dwell: "it waits for more good reports in a row",
  flapping: "it opens and closes too often",
  generation_change: "the runtime has replaced its attractor",
  throttled: "in caution, this one was left out",
  inspection_failed: "a packet failed its inspection",
  unfillable: "the evidence cannot fill a packet",
  unconfirmed: "the broker did not confirm the cut in time",
  twin: "another sidecar has this runtime's name",
  replaced: "another sidecar has taken this name over",
  stopped: "the sidecar has stopped",
};
const ABSENT = {
  never_heard: "nothing has come yet", expired: "what came is too old", refused: "what came was refused",
  unauthorised: "the configuration does not import from it", withheld: "its own gate is closed",
};

const at = (id) => document.getElementById(id);
let token = "";
let view = null;
let seen = 0;
let points = [];
let runbook = null;
let exposition = "";
const history = new Map();

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties ?? {});
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const clock = (timestamp) => new Date(timestamp).toLocaleTimeString([], { hour12: false });
const since = (timestamp) => Date.now() - Date.parse(timestamp);
const bytes = (count) =>
  count < 10240 ? `${count} B` : count < 10485760 ? `${Math.round(count / 1024)} KiB` : `${Math.round(count / 1048576)} MiB`;
const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toFixed(4))));

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function ask(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

// ---- Rows and facts -------------------------------------------------------------------------

/** Fills a table; leaves it alone when nothing has changed, so that a selection survives. */
function table(id, heads, rows, none) {
  const place = at(id);
  const key = JSON.stringify(rows.map((row) => row.map((cell) => (cell instanceof Node ? cell.outerHTML : cell))));
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  if (!rows.length) {
    place.replaceChildren(element("tbody", {}, element("tr", {}, element("td", { className: "none" }, none))));
    return;
  }
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell ?? "–"))));
  place.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

function facts(id, pairs) {
  at(id).replaceChildren(
    ...pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value ?? "–"))),
  );
}

const banded = (band) => element("span", { className: `band-${band}` }, band);

// ---- This sidecar ---------------------------------------------------------------------------

function remember(safety) {
  const now = Date.now();
  const last = points.at(-1);
  const di = typeof safety.di === "number" ? safety.di : null;
  if (!points.length) {
    for (const transition of safety.transitions.slice(-20)) {
      points.push({ at: Date.parse(transition.at), di: transition.di, band: transition.to });
    }
    points.sort((one, other) => one.at - other.at);
  }
  if (!last || last.di !== di || last.band !== safety.band || now - last.at > 5000) {
    points.push({ at: now, di, band: safety.band });
  }
  points = points.slice(-POINTS_MAX);
}

function show() {
  const { safety, readiness, field, version } = view;
  at("runtime").textContent = `${safety.runtime_id} · ${version}${safety.mode === "shadow" ? " · shadow: nothing is sent" : ""}`;
  document.title = `${safety.band} · ${safety.runtime_id}`;
  document.body.dataset.band = safety.band;
  if (at("band").textContent !== safety.band) at("band").textContent = safety.band;
  at("since").textContent = `for ${ago(since(safety.since))}, since ${clock(safety.since)}`;
  at("reasons").replaceChildren(
    ...safety.reasons.map((reason) => element("li", {}, WORDS[reason] ?? reason, " ", element("code", {}, reason))),
  );
  at("reopens").textContent = safety.would_reopen ? `What reopens it: ${safety.would_reopen}.` : "";
  const hold = safety.hold;
  at("hold").textContent = safety.operator_hold
    ? `An operator holds it${hold?.by ? ` (${hold.by})` : ""}${hold?.reason ? `: ${hold.reason}` : ""}.`
    : "";
  at("isolate").disabled = safety.operator_hold;
  at("release").disabled = !safety.operator_hold;
  remember(safety);
  at("chart").replaceChildren(chart(points, safety.thresholds, Date.now()));
  const parts = field?.drift_metrics ?? {};
  facts("facts", [
    ["drift index", number(safety.di)],
    ["semantic drift (SDI)", number(parts.sdi)],
    ["symbolic variance (SV)", number(parts.sv)],
    ["phase drift (PD)", number(parts.pd)],
    ["coherence (SCR)", number(parts.scr)],
    ["evidence", safety.drift_source],
    ["posture", safety.posture],
    ["cycle", field?.cycle ?? "–"],
    ["reopens below", number(safety.thresholds.reopen)],
    ["cut from", number(safety.thresholds.block)],
    ["isolated from", number(safety.thresholds.isolate)],
  ]);
  showDegraded(readiness.degraded);
  if (exposition) showStores();
  table(
    "transitions",
    ["When", "From", "To", "Index", "Why"],
    [...safety.transitions].reverse().slice(0, 12).map((transition) => [
      clock(transition.at),
      banded(transition.from),
      banded(transition.to),
      number(transition.di),
      transition.reasons.map((reason) => WORDS[reason] ?? reason).join("; ") || "a good report",
    ]),
    "The gate has not moved since the start.",
  );
  table(
    "targets",
    ["Target", "Last number on the stream", "Waiting", "Confirmed silent"],
    safety.targets.map((target) => [
      target.target, target.stream_seq, target.pending,
      target.barrier ? `${target.barrier}, ${clock(target.barrier_at)}` : "–",
    ]),
    "The configuration exports to nobody.",
  );
  table(
    "peers",
    ["Peer", "Mode", "Age", "Index", "What there is"],
    (field?.peers ?? []).map((peer) => {
      const packet = peer.packet?.payload;
      const refused = peer.refused ? `; last refused: ${peer.refused.fault}` : "";
      return [
        peer.source, `${peer.mode} (${peer.mode_reason})`,
        peer.age_s === undefined ? "–" : ago(peer.age_s * 1000),
        number(packet?.drift_metrics?.di),
        (peer.absent ? (ABSENT[peer.absent] ?? peer.absent) : `a packet, phase ${packet?.attractor_state?.phase ?? "–"}`) + refused,
      ];
    }),
    field ? "The configuration imports from nobody." : "Isolated: nothing inbound is shown.",
  );
}

function showDegraded(texts) {
  at("degraded-part").hidden = !texts.length;
  const key = texts.join("\n");
  if (at("degraded").dataset.key === key) return;
  at("degraded").dataset.key = key;
  at("degraded").replaceChildren(
    ...texts.map((text) => {
      const code = text.split(":")[0];
      const entry = element("pre", { hidden: true });
      const more = element("button", { type: "button" }, "What to do");
      more.setAttribute("aria-expanded", "false");
      more.addEventListener("click", async () => {
        runbook ??= await (await ask("/operations.md")).text();
        const [, after = ""] = runbook.split(`\n### \`${code}\`\n`);
        const lines = after.split("\n##")[0].trim().replaceAll("**", "");
        entry.textContent =
          lines.replace(/(?<=\S)\n(?=[^\s-])/g, " ") || "docs/operations.md has no entry for it";
        entry.hidden = !entry.hidden;
        more.setAttribute("aria-expanded", String(!entry.hidden));
      });
      return element("li", {}, text, " ", more, entry);
    }),
  );
}

/** Sums of a family of the exposition, by the label that is asked for. */
function sums(exposition, name, label) {
  const found = {};
  for (const line of exposition.split("\n")) {
    const parts = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!parts || (parts[1] !== name && parts[1] !== `${name}_total`)) continue;
    const value = label ? (new RegExp(`${label}="([^"]*)"`).exec(parts[2] ?? "")?.[1] ?? "") : "";
    found[value] = (found[value] ?? 0) + Number(parts[3]);
  }
  return found;
}

function showStores() {
  const one = (name) => sums(exposition, name)[""];
  const kinds = sums(exposition, "driftgate_snapshot_uploaded_bytes", "kind");
  const objects = sums(exposition, "driftgate_snapshot_uploaded_objects", "kind");
  const spool = sums(exposition, "driftgate_snapshot_spool_entries", "state");
  const full = objects.full ? (kinds.full ?? 0) / objects.full : 0;
  const saved = full && objects.delta ? full * objects.delta - (kinds.delta ?? 0) : 0;
  facts("stores", [
    ["broker", view.readiness.broker],
    ["time without broker", ago(1000 * (one("driftgate_broker_outage_seconds") ?? 0))],
    ["snapshots at the broker", one("driftgate_snapshot_stored_objects") ?? "–"],
    ["their bytes", one("driftgate_snapshot_stored_bytes") === undefined ? "–" : bytes(one("driftgate_snapshot_stored_bytes"))],
    ["sent full / as delta", `${objects.full ?? 0} / ${objects.delta ?? 0}`],
    ["saved by deltas, about", saved > 0 ? bytes(Math.round(saved)) : "–"],
    ["spool", `${bytes(one("driftgate_snapshot_spool_bytes") ?? 0)} of ${bytes(one("driftgate_snapshot_spool_bytes_max") ?? 0)}`],
    ["unsent / revoked", `${spool.unsent ?? 0} / ${spool.revoked ?? 0}`],
  ]);
}

// ---- The fleet ------------------------------------------------------------------------------

const stand = (runtime) => (runtime.state === "live" ? runtime.band : runtime.state);
const RANKS = { isolated: 0, stale: 1, blocked: 2, cut: 3, caution: 4, open: 5 };

function showFleet({ runtimes }) {
  const sorted = runtimes
    .map((runtime) => ({ ...runtime, stand: stand(runtime) }))
    .sort((one, other) =>
      RANKS[one.stand] - RANKS[other.stand] || one.runtime_id.localeCompare(other.runtime_id));
  const counts = {};
  for (const runtime of sorted) {
    counts[runtime.stand] = (counts[runtime.stand] ?? 0) + 1;
    const past = history.get(runtime.runtime_id) ?? [];
    past.push(runtime.stand);
    history.set(runtime.runtime_id, past.slice(-HISTORY_MAX));
  }
  const said = Object.keys(RANKS).filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`);
  at("fleet-said").textContent = sorted.length
    ? `${sorted.length} known from presence: ${said.join(", ")}.`
    : "Nobody is known from presence.";
  at("matrix").setAttribute("aria-label", at("fleet-said").textContent);
  const cells = at("matrix").children;
  while (cells.length > sorted.length) cells[cells.length - 1].remove();
  while (cells.length < sorted.length) at("matrix").append(element("i"));
  sorted.forEach((runtime, index) => {
    const [name, title] = [`b-${runtime.stand}`, `${runtime.runtime_id}: ${runtime.stand}`];
    if (cells[index].className !== name) cells[index].className = name;
    if (cells[index].title !== title) cells[index].title = title;
  });
  table(
    "fleet",
    ["Runtime", "Stands", "For", "Seen", "Last looks", "Why"],
    sorted.slice(0, ROWS_MAX).map((runtime) => [
      runtime.runtime_id, banded(runtime.stand), ago(since(runtime.since)), `${ago(runtime.age_s * 1000)} ago`,
      strip(history.get(runtime.runtime_id) ?? []),
      `${runtime.hold ? "held by an operator; " : ""}${runtime.reasons.map((reason) => WORDS[reason] ?? reason).join("; ")}`,
    ]),
    "Nobody is known from presence.",
  );
}

// ---- Orders ---------------------------------------------------------------------------------

function order(act) {
  const isRelease = act === "release";
  const may = !isRelease || view.may_release;
  at("order-title").textContent = isRelease ? "Release the operator's hold" : "Isolate at once and hold";
  at("order-text").textContent = isRelease
    ? "The gate stays closed until a good report comes."
    : "Nothing leaves and nothing comes in until somebody releases it.";
  at("order-command").hidden = may;
  at("order-fields").hidden = !may;
  at("order-do").hidden = !may;
  at("order-said").textContent = "";
  at("order-reason").value = "";
  at("order-do").textContent = isRelease ? "Release" : "Isolate";
  if (!may) {
    at("order-text").textContent = "No operator's token is configured. On the sidecar's machine:";
    at("order-command").textContent = "kill -USR2 $(pidof driftgate)     # or take the hold file away";
  }
  at("order-do").onclick = async () => {
    const [reason, by] = [at("order-reason").value.trim(), at("order-by").value.trim()];
    if (!reason || !by) {
      at("order-said").textContent = "Say why, and who you are: both go into the audit log.";
      return;
    }
    at("order-do").disabled = true;
    try {
      await ask(`/operator/${act}`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ reason, by }),
      });
      at("order").close();
      await look();
    } catch (error) {
      at("order-said").textContent = error.message;
    }
    at("order-do").disabled = false;
  };
  at("order").showModal();
}

// ---- Asking ---------------------------------------------------------------------------------

function enter(message) {
  at("enter").hidden = false;
  at("main").hidden = true;
  at("refused").textContent = message;
  at("token").focus();
}

let looking = null;
/** One look at a time; whoever asks meanwhile shares it. */
function look() {
  looking ??= (async () => {
    try {
      view = await (await ask("/console/view")).json();
      seen = Date.now();
      at("main").hidden = false;
      at("enter").hidden = true;
      show();
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        enter(error.status === 401 && !token ? "" : error.message);
      }
    }
    looking = null;
  })();
  return looking;
}

function showLife() {
  const age = Date.now() - seen;
  const isStale = seen > 0 && age > STALE_AFTER_MS;
  at("live").textContent = !seen ? "connecting" : isStale ? `stale: nothing heard for ${ago(age)}` : "live";
  at("live").toggleAttribute("data-stale", isStale);
  document.body.toggleAttribute("data-stale", isStale);
  if (view && isStale) document.title = `stale · ${view.safety.runtime_id}`;
}

let listening = null;
async function follow() {
  let last = "";
  for (;;) {
    if (view && !document.hidden) {
      try {
        const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
        listening = new AbortController();
        const answer = await ask("/phase/telemetry", { headers, signal: listening.signal });
        let rest = "";
        for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
          const blocks = (rest + chunk).split("\n\n");
          rest = blocks.pop();
          for (const block of blocks) {
            const id = /^id: ?(.*)$/m.exec(block);
            if (id) last = id[1];
            if (/^data:/m.test(block)) look();
          }
        }
      } catch {
        // Away; it is asked again below.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function every(milliseconds, act) {
  for (;;) {
    while (!view && act !== look) await new Promise((resolve) => setTimeout(resolve, 100));
    if (!document.hidden) await act().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  look();
});
at("isolate").addEventListener("click", () => order("isolate"));
at("release").addEventListener("click", () => order("release"));
at("order-close").addEventListener("click", () => at("order").close());

// A browser has six connections to a host: a page that nobody looks at lets go of its stream.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) listening?.abort();
  else look();
});
setInterval(showLife, 500);
every(VIEW_EVERY_MS, look);
every(FLEET_EVERY_MS, async () => {
  try {
    showFleet(await (await ask("/console/fleet")).json());
  } catch (error) {
    // What was known is not shown as if it still were.
    showFleet({ runtimes: [] });
    at("fleet-said").textContent = `Nothing is known of the fleet: ${error.message}`;
  }
});
every(FLEET_EVERY_MS, async () => {
  exposition = await (await ask("/console/metrics")).text();
  showStores();
});
follow();
