// The console: asks its own sidecar, draws what it says, and orders nothing but what an operator may.

import { ask, enterWith, follow, hasToken } from "./ask.js";
import { chart } from "./draw.js";
import { remember as rememberFleet, showFleet, showReach } from "./fleet.js";
import { ago, at, banded, bytes, clock, element, facts, number, say, since, table } from "./page.js";
import { ABSENT, WORDS, why } from "./words.js";

const VIEW_EVERY_MS = 1000;
const FLEET_EVERY_MS = 5000;
const STALE_AFTER_MS = 5000;
/** Least time between two looks, however much happens. */
const LOOK_GAP_MS = 100;
const POINTS_MAX = 600;

let view = null;
let fleet = null;
let seen = 0;
let points = [];
let runbook = null;
let exposition = "";

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
  say("band", safety.band);
  at("since").textContent = `for ${ago(since(safety.since))}, since ${clock(safety.since)}`;
  if (at("reasons").dataset.key !== safety.reasons.join()) {
    at("reasons").dataset.key = safety.reasons.join();
    at("reasons").replaceChildren(
      ...safety.reasons.map((reason) => element("li", {}, WORDS[reason] ?? reason, " ", element("code", {}, reason))),
    );
  }
  say("reopens", safety.would_reopen ? `What reopens it: ${safety.would_reopen}.` : "");
  const hold = safety.hold;
  say("hold", safety.operator_hold
    ? `An operator holds it${hold?.by ? ` (${hold.by})` : ""}${hold?.reason ? `: ${hold.reason}` : ""}.`
    : "");
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
      why(transition.reasons) || "a good report",
    ]),
    "The gate has not moved since the start.",
  );
  showTargets(safety);
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
  showReach(view, fleet);
}

/** What left for each target, and how the rest has ended. */
function showTargets({ targets, mode }) {
  const isShadow = mode === "shadow";
  table(
    "targets",
    ["Target", "Last left", "Left", isShadow ? "Observed" : "Held", "Revoked", "Superseded", "Left out", "Failed",
      "Waiting", "Confirmed silent"],
    targets.map(({ target, authorised, stored_at, stream_seq, pending, ends, barrier, barrier_at }) => [
      authorised ? target : `${target} (not authorised)`,
      stored_at ? `${ago(since(stored_at))} ago, number ${stream_seq}` : "nothing yet",
      ends.stored, isShadow ? ends.shadow : ends.held, ends.revoked, ends.superseded, ends.throttled,
      ends.failed, pending, barrier ? `${barrier}, ${clock(barrier_at)}` : "–",
    ]),
    "The configuration exports to nobody.",
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
  view = null;
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
      if (error.isNobody) enter(error.status === 401 && !hasToken() ? "" : error.message);
    }
    looking = null;
  })();
  return looking;
}

let due = null;
/** Looks soon: once, however often something happens until then. */
function happened() {
  if (document.hidden) return;
  due ??= setTimeout(async () => {
    // One under way may have been answered before.
    await looking;
    due = null;
    await look();
  }, Math.max(0, seen + LOOK_GAP_MS - Date.now()));
}

function showLife() {
  const age = Date.now() - seen;
  const isStale = seen > 0 && age > STALE_AFTER_MS;
  say("live", !seen ? "connecting" : isStale ? `stale: nothing heard for ${ago(age)}` : "live");
  at("live").toggleAttribute("data-stale", isStale);
  document.body.toggleAttribute("data-stale", isStale);
  if (view && isStale) document.title = `stale · ${view.safety.runtime_id}`;
}

async function every(milliseconds, act) {
  for (;;) {
    while (!view && act !== look) await new Promise((resolve) => setTimeout(resolve, 100));
    if (!document.hidden) await act().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

async function lookAtFleet() {
  try {
    fleet = await (await ask("/console/fleet")).json();
    rememberFleet(fleet);
    showFleet(fleet, wanted());
  } catch (error) {
    // What was known is not shown as if it still were.
    fleet = null;
    showFleet({ runtimes: [] }, "");
    at("fleet-said").textContent = `Nothing is known of the fleet: ${error.message}`;
  }
  if (view) showReach(view, fleet);
}

const wanted = () => at("find").value.trim().toLowerCase();

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enterWith(at("token").value.trim());
  at("token").value = "";
  look();
});
at("isolate").addEventListener("click", () => order("isolate"));
at("release").addEventListener("click", () => order("release"));
at("order-close").addEventListener("click", () => at("order").close());
at("find").addEventListener("input", () => fleet && showFleet(fleet, wanted()));
document.addEventListener("visibilitychange", () => !document.hidden && look());

setInterval(showLife, 500);
every(VIEW_EVERY_MS, look);
every(FLEET_EVERY_MS, lookAtFleet);
every(FLEET_EVERY_MS, async () => {
  exposition = await (await ask("/console/metrics")).text();
  showStores();
});
follow(() => view !== null, happened);
