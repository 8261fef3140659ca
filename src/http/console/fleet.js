// The fleet, from presence alone, and who reaches whom as far as this sidecar can know.

import { strip } from "./draw.js";
import { ago, at, banded, cell, element, say, since, table } from "./page.js";
import { ABSENT, why } from "./words.js";

const HISTORY_MAX = 60;
const ROWS_MAX = 50;
/** Who needs attention comes first. */
const RANKS = { isolated: 0, stale: 1, blocked: 2, stopped: 3, caution: 4, open: 5 };

/** Where each runtime stood at each look: of those that are there now, and no others. */
let history = new Map();

const stand = (runtime) =>
  runtime.state === "live" ? runtime.band
    : runtime.state !== "cut" ? "stale"
      : runtime.reasons.includes("stopped") ? "stopped" : "isolated";
const rowsOf = (count, all, what) => (count < all ? ` ${count} of ${all} ${what} are listed.` : "");

/** Takes a reading of the bucket. */
export function remember({ runtimes }) {
  const newest = new Map();
  for (const runtime of runtimes) {
    const past = history.get(runtime.runtime_id) ?? [];
    newest.set(runtime.runtime_id, [...past.slice(1 - HISTORY_MAX), stand(runtime)]);
  }
  history = newest;
}

/** Shows who is there; `wanted` is looked for in names, bands and reasons. */
export function showFleet({ runtimes }, wanted) {
  const sorted = runtimes
    .map((runtime) => ({ ...runtime, stand: stand(runtime) }))
    .sort((one, other) =>
      RANKS[one.stand] - RANKS[other.stand] || (one.runtime_id < other.runtime_id ? -1 : 1));
  const counts = {};
  for (const runtime of sorted) counts[runtime.stand] = (counts[runtime.stand] ?? 0) + 1;
  const parts = Object.keys(RANKS).filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`);
  const found = sorted.filter((runtime) =>
    `${runtime.runtime_id} ${runtime.stand} ${runtime.reasons.join(" ")}`.toLowerCase().includes(wanted));
  const listed = found.slice(0, ROWS_MAX);
  const summary = sorted.length
    ? `${sorted.length} known from presence: ${parts.join(", ")}.`
    : "Nobody is known from presence.";
  say("fleet-said", summary + rowsOf(listed.length, found.length, "that match, those who need attention first,"));
  at("matrix").setAttribute("aria-label", summary);
  showMatrix(sorted);
  table(
    "fleet",
    ["Runtime", "Stands", "For", "Seen", "Last looks", "Why"],
    listed.map((runtime) => {
      const past = history.get(runtime.runtime_id) ?? [];
      return [
        runtime.runtime_id, banded(runtime.stand), ago(since(runtime.since)),
        `${ago(runtime.age_s * 1000)} ago`, cell(past.join(), () => strip(past)),
        `${runtime.hold ? "held by an operator; " : ""}${why(runtime.reasons)}`,
      ];
    }),
    "Nobody is to be shown.",
  );
}

/** One square for each runtime. */
function showMatrix(sorted) {
  const place = at("matrix");
  while (place.children.length > sorted.length) place.lastElementChild.remove();
  const missing = sorted.length - place.children.length;
  place.append(...Array.from({ length: missing }, () => element("i")));
  let square = place.firstElementChild;
  for (const runtime of sorted) {
    const [name, title] = [`square b-${runtime.stand}`, `${runtime.runtime_id}: ${runtime.stand}`];
    if (square.className !== name) square.className = name;
    if (square.title !== title) square.title = title;
    square = square.nextElementSibling;
  }
}

/** What goes to one peer. */
function outward(target, safety, presence) {
  if (!target) return "no: the configuration exports nothing to it";
  const last = target.stored_at ? `last left ${ago(since(target.stored_at))} ago` : "nothing has left yet";
  if (!target.authorised) return `no: not authorised now; ${last}`;
  if (safety.mode === "shadow") return "no: in shadow nothing leaves";
  if (["blocked", "isolated"].includes(safety.band)) return `no: our gate is ${safety.band}; ${last}`;
  const reader = presence && stand(presence);
  if (reader === "isolated") return `as far as the stream, it is isolated; ${last}`;
  if (["stale", "stopped"].includes(reader)) return `as far as the stream, nobody is there; ${last}`;
  if (target.pending && !target.stored_at) return "waits for the broker";
  return target.stored_at ? `yes: ${last}` : last;
}

/** What comes of one peer. */
function inward(peer, field) {
  if (!field) return "no: isolated, nothing inbound is shown";
  if (!peer) return "no: it is no peer of the configuration";
  if (peer.absent) return `no: ${ABSENT[peer.absent] ?? peer.absent}`;
  return `yes: its packet is ${ago(peer.age_s * 1000)} old`;
}

/** Who reaches whom: us and each peer, both ways, and of the others what closed gates say. */
export function showReach({ safety, field }, fleet) {
  const runtimes = new Map((fleet?.runtimes ?? []).map((runtime) => [runtime.runtime_id, runtime]));
  const targets = new Map(safety.targets.map((target) => [target.target, target]));
  const peers = new Map((field?.peers ?? []).map((peer) => [peer.source, peer]));
  const names = [...new Set([...targets.keys(), ...peers.keys()])];
  const me = safety.runtime_id;
  const rows = names.map((name) => {
    const presence = runtimes.get(name);
    const ways = [outward(targets.get(name), safety, presence), inward(peers.get(name), field)];
    return [name, presence ? banded(stand(presence)) : "not known", ...ways];
  });
  // Who is not reached comes first.
  const reached = ([, , out, into]) => Number(out.startsWith("yes")) + Number(into.startsWith("yes"));
  rows.sort((one, other) => reached(one) - reached(other) || (one[0] < other[0] ? -1 : 1));
  table(
    "reach",
    ["Peer", "Its gate", `${me} reaches it`, `It reaches ${me}`],
    rows.slice(0, ROWS_MAX),
    "The configuration names no peer.",
  );
  const others = [...runtimes.values()].filter((runtime) => runtime.runtime_id !== me);
  const closed = others.filter((runtime) => ["blocked", "isolated", "stopped"].includes(stand(runtime)));
  const known = others.length
    ? `${closed.length} of the ${others.length} others that are known reach nobody: their gates are closed.`
    : "Nobody else is known from presence.";
  say("reach-said",
    `${known} What others send to each other is not known here: each packet is for its target alone.` +
    rowsOf(Math.min(rows.length, ROWS_MAX), rows.length, "peers, those not reached first,"));
}
