// A sidecar as it is deployed: a configuration, an operator's token, and a fleet whose presence
// stands signed in the bucket of a real nats-server.

import assert from "node:assert/strict";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { appears, check, newWindow, open, program, reads, report, shot, text, until } from "./support.mjs";

const TOKEN = `operators-${randomBytes(16).toString("hex")}`;
const PEERS = 5;
const FLEET = 1000;
const WINDOWS = 12;
/** How long a fleet of which nine in ten flap is looked at. */
const LOOKS_MS = 20_000;
const EVIL = '<img src=x onerror="globalThis.injected=1">';

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** Asks until it is answered. */
async function answers(url, isGood = (answer) => answer.ok) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const answer = await fetch(url).catch(() => null);
    if (answer && (await isGood(answer))) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(`${url} does not answer`);
}

/** A broker and a sidecar in a folder of their own. */
async function startGuarded() {
  const folder = mkdtempSync(join(tmpdir(), "driftgate-browser-"));
  const [broker, api, admin, page] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const key = randomBytes(32);
  writeFileSync(join(folder, "k1"), `${key.toString("base64")}\n`, { mode: 0o600 });
  writeFileSync(join(folder, "token"), `${TOKEN}\n`, { mode: 0o600 });
  const peers = Array.from({ length: PEERS }, (_, index) =>
    `[[peers]]\nid = "${nameOf(index)}"\nexport = ["state"]\nimport = ["state"]\n`);
  writeFileSync(join(folder, "driftgate.toml"), `
[runtime]
id = "planner"
attractor_type = "symbolic"
profile = "srip-05"
[nats]
url = ["nats://127.0.0.1:${broker}"]
[listen]
api = "127.0.0.1:${api}"
admin = "127.0.0.1:${admin}"
console = "127.0.0.1:${page}"
operator_token_file = "${join(folder, "token")}"
[console]
fleet = "all"
[integrity]
sign_with = "k1"
keys = [{ id = "k1", file = "${join(folder, "k1")}" }]
[snapshot]
spool = "${join(folder, "spool")}"
${peers.join("")}`);
  const quiet = { stdio: ["ignore", "ignore", "pipe"] };
  const server = spawn(process.env.NATS_SERVER || "nats-server",
    ["-a", "127.0.0.1", "-p", String(broker), "-js", "-sd", join(folder, "js")], quiet);
  const sidecar = spawn(program, ["run", "-c", join(folder, "driftgate.toml")], quiet);
  let said = "";
  sidecar.stderr.on("data", (chunk) => (said += chunk));
  server.stderr.resume();
  const url = `http://127.0.0.1:${page}/`;
  const stop = () => {
    sidecar.kill("SIGTERM");
    server.kill("SIGTERM");
    sidecar.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  };
  try {
    await answers(url);
    await answers(`http://127.0.0.1:${admin}/readyz`, async (answer) =>
      (await answer.json()).broker === "connected");
  } catch (error) {
    stop();
    throw new Error(`${error.message}\n${said}`);
  }
  return { api: `http://127.0.0.1:${api}`, url, broker, key, stop };
}

const nameOf = (index) => `runtime-${String(index).padStart(4, "0")}`;

/** RFC 8785 of what has neither fractions nor names beyond ASCII. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join()}}`;
}

/** A presence entry, signed as its sidecar would. */
function entry(name, index, band, reasons, key) {
  const at = new Date();
  const ago = (seconds) => new Date(at - 1000 * seconds).toISOString();
  const document = {
    runtime_id: name, mode: "enforce", band, reasons, since: ago(index % 300), epoch: 1,
    hold: index % 97 === 5, instance: String(index).padStart(32, "0"), claim: at * 1000,
    version: "0.1.0", started: ago(4000), at: at.toISOString(),
  };
  const checksum = `sha256:${createHash("sha256").update(canonical(document)).digest("hex")}`;
  const seq = String(at * 1000);
  const tag = createHmac("sha256", key).update(`driftgate-presence-v1\nk1\n${seq}\n${checksum}`).digest("hex");
  const signature = { checksum, integrity_token: `hmac-sha256:k1:${seq}:${tag}` };
  return canonical({ ...document, signature });
}

/** A connection that writes entries, as many sidecars would. */
class Fleet {
  constructor({ broker, key }) {
    this.key = key;
    this.turn = 0;
    this.socket = connect(broker, "127.0.0.1");
    this.socket.on("data", (data) => String(data).includes("PING") && this.socket.write("PONG\r\n"));
    this.socket.write('CONNECT {"verbose":false,"pedantic":false}\r\n');
  }

  /** Writes `size` entries; nine in ten have moved since the turn before. */
  write(size) {
    this.turn++;
    const bands = ["open", "blocked", "caution", "isolated"];
    for (let index = 0; index < size; index++) {
      const band = index % 10 === 0 ? "open" : bands[(index * 7 + this.turn * (1 + (index % 3))) % 4];
      const reasons = band === "open" ? [] : ["di_block", "latched"];
      this.put(nameOf(index), entry(nameOf(index), index, band, reasons, this.key));
    }
    // Signed, and no words of the gate: it counts as absent.
    this.put("evil", entry("evil", 0, "blocked", [EVIL], this.key));
  }

  put(name, body) {
    this.socket.write(`PUB $KV.driftgate-presence.${name} ${Buffer.byteLength(body)}\r\n${body}\r\n`);
  }

  close() {
    this.socket.destroy();
  }
}

async function unlock(page, token) {
  await appears(page, "#enter:not([hidden])");
  await page.type("#token", token);
  await page.keyboard.press("Enter");
}

/** A wrong token, the right one, isolate, release, and a page loaded again, which has forgotten. */
async function operate(page, { api, url }) {
  await page.goto(url);
  await unlock(page, "a-wrong-token-0123456789");
  await reads(page, "#refused", "operator");
  assert.equal(await page.$("#main:not([hidden])"), null, "nothing is shown for a wrong token");
  await shot(page, "light-token");
  await check(page, "token");
  await unlock(page, TOKEN);
  await reads(page, "#band", "blocked");
  await report(api, 0.48, 0.8);
  await reads(page, "#band", "open");
  for (const [act, band] of [["isolate", "isolated"], ["release", "isolated"]]) {
    await page.click(`#${act}`);
    await appears(page, "#order[open]");
    await page.type("#order-reason", "a drill");
    await page.type("#order-by", "a person");
    await page.click("#order-do");
    await appears(page, "#order:not([open])");
    await reads(page, "#band", band);
    await reads(page, "#hold", act === "isolate" ? "a drill" : "");
  }
  await appears(page, "#isolate:not([disabled])");
  await report(api, 0.48, 0.8);
  await reads(page, "#band", "open");
  const kept = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]);
  assert.deepEqual(kept, ["", 0, 0], "the token is kept nowhere");
  await page.reload();
  await appears(page, "#enter:not([hidden])");
  await unlock(page, TOKEN);
  await reads(page, "#band", "open");
}

/** Tasks of the page that took longer than a person notices, in milliseconds. */
const longTasks = (page) =>
  page.evaluateOnNewDocument(() => {
    globalThis.long = [];
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) globalThis.long.push(Math.round(duration));
    }).observe({ entryTypes: ["longtask"] });
  });

/** The fleet's part of the page while `size` runtimes are there, most of which flap. */
async function look(context, sidecar, fleet, size, faults) {
  fleet.write(size);
  const page = await open(context, sidecar.url, faults);
  await longTasks(page);
  await page.goto(sidecar.url);
  const begun = Date.now();
  await unlock(page, TOKEN);
  await reads(page, "#fleet-said", "known from presence");
  const first_view_ms = Date.now() - begun;
  await reads(page, "#fleet-said", `${size + 1} known`);
  for (const end = Date.now() + LOOKS_MS; Date.now() < end; ) {
    fleet.write(size);
    await new Promise((done) => setTimeout(done, LOOKS_MS / 5));
  }
  await until(page, "three looks", () => document.querySelectorAll("#fleet .strip rect").length >= 3);
  const long = await page.evaluate(() => globalThis.long);
  await page.type("#find", nameOf(1));
  await until(page, "the one that is looked for", () => document.querySelectorAll("#fleet tbody tr").length === 1);
  if (size > 1) assert.match(await text(page, "#fleet tbody"), /runtime-0001/);
  assert.equal(await page.evaluate(() => globalThis.injected), undefined, "nothing runs");
  assert.ok(!(await text(page, "#main")).includes("<img"), "what is no word is not shown");
  await page.$eval("#find", (find) => { find.value = ""; find.dispatchEvent(new Event("input")); });
  const rows = Math.min(size + 1, 50);
  await until(page, "everybody again", (rows) => document.querySelectorAll("#fleet tbody tr").length === rows, rows);
  await shot(page, `light-fleet-${size}`);
  await check(page, `fleet of ${size}`);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await shot(page, `dark-fleet-${size}`);
  await check(page, `dark fleet of ${size}`);
  const elements = await page.evaluate(() => document.querySelectorAll("*").length);
  await page.close();
  return { first_view_ms, long_tasks_ms: long, looked_at_ms: LOOKS_MS, elements };
}

/** Many pages in one browser: a browser has six connections to a host, and every page is live. */
async function windows(browser, sidecar, faults) {
  const context = await browser.createBrowserContext();
  const pages = [];
  for (let count = 0; count < WINDOWS; count++) {
    const page = await open(context, sidecar.url, faults, await newWindow(browser, context));
    await page.goto(sidecar.url);
    await unlock(page, TOKEN);
    await reads(page, "#band", "open");
    pages.push(page);
  }
  const hidden = await Promise.all(pages.map((page) => page.evaluate(() => document.hidden)));
  assert.ok(!hidden.includes(true), "every page can be seen");
  const answer = await report(sidecar.api, 1.1, 0.7);
  assert.equal(answer.band, "blocked");
  const begun = Date.now();
  await Promise.all(pages.map((page) => reads(page, "#band", "blocked")));
  const shown_everywhere_ms = Date.now() - begun;
  // The page that holds the stream goes: another one takes it.
  await pages.shift().close();
  await report(sidecar.api, 0.48, 0.8);
  await Promise.all(pages.map((page) => reads(page, "#band", "open")));
  await context.close();
  return { pages: WINDOWS, shown_everywhere_ms };
}

export async function guarded(browser, faults) {
  const sidecar = await startGuarded();
  const fleet = new Fleet(sidecar);
  try {
    const page = await open(browser, sidecar.url, faults);
    await operate(page, sidecar);
    await page.close();
    const figures = { windows_of_one_browser: await windows(browser, sidecar, faults) };
    const context = await browser.createBrowserContext();
    figures.fleet_of_3 = await look(context, sidecar, fleet, 3, faults);
    figures[`fleet_of_${FLEET}`] = await look(context, sidecar, fleet, FLEET, faults);
    await context.close();
    return figures;
  } finally {
    fleet.close();
    sidecar.stop();
  }
}
