// The console in a real browser, read as a person reads it, while a sidecar goes through a whole
// rise and fall of drift. Run by `make browser`:
//
//   node tests/browser/console.mjs DRIFTGATE MODULES [FOLDER FOR PICTURES]
//
// DRIFTGATE is the program, MODULES the folder that has puppeteer-core and axe-core. Without a
// Chromium (DRIFTGATE_CHROMIUM, or one of the usual names in PATH) it says SKIPPED and ends with 0;
// with DRIFTGATE_BROWSER_REQUIRED=1 it ends with 1 instead.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [program, modules, pictures] = process.argv.slice(2);
const PATIENCE_MS = 20_000;
const REPORTS = 200;
const PAGES = 20;

function chromium() {
  if (process.env.DRIFTGATE_CHROMIUM) return process.env.DRIFTGATE_CHROMIUM;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("which", [name], { encoding: "utf8" }).trim();
    } catch {
      // Not this one.
    }
  }
  return null;
}

const browserPath = chromium();
if (!browserPath) {
  console.log("SKIPPED: there is no Chromium; the console was looked at by nobody");
  process.exit(process.env.DRIFTGATE_BROWSER_REQUIRED === "1" ? 1 : 0);
}
const require = createRequire(resolve(modules, "index.js"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Starts `driftgate run --dev` and gives what its banner says. */
async function start() {
  const child = spawn(program, ["run", "--dev"], { stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  for await (const chunk of child.stdout) {
    text += chunk;
    if (text.includes("Ctrl-C")) break;
  }
  const url = (pattern) => pattern.exec(text)?.[1];
  const api = url(/curl -sw '\\n' (http:\S+)\/aegida\/safety/);
  const page = url(/for a browser\W+(http:\/\/\S+\/)/);
  if (!api || !page) child.kill("SIGINT");
  assert.ok(api && page, `the banner names neither API nor console:\n${text}`);
  return { child, api, console: page };
}

/** Reports a cycle whose index is `sum / 3 / scr`. */
async function report(api, sum, scr) {
  const part = sum / 3;
  const answer = await fetch(`${api}/field/state`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      attractor_state: { id: "a-1", type: "symbolic", phase: "stable", stability: 0.9, scr },
      drift_metrics: { sdi: part, sv: part, pd: part },
    }),
  });
  return answer.json();
}

async function shot(page, name) {
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

const text = (page, selector) => page.$eval(selector, (found) => found.innerText.trim());

/** Waits until the page says so. It is asked from outside: the page's policy lets nothing be
 *  evaluated inside. */
async function until(page, what, says, ...values) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; ) {
    if (await page.evaluate(says, ...values)) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  if (pictures) await page.screenshot({ path: `${pictures}/failed.png`, fullPage: true });
  assert.fail(`the page does not show ${what}`);
}

const reads = (page, selector, part) =>
  until(page, `${part} in ${selector}`, (selector, part) =>
    document.querySelector(selector)?.innerText.includes(part), selector, part);

const appears = (page, selector) =>
  until(page, selector, (selector) => document.querySelector(selector) !== null, selector);

const findings = [];
/** What axe-core finds on the page as it is; its script comes over the protocol, not by the page. */
async function check(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  for (const { id, impact, nodes } of violations) {
    findings.push({ where, id, impact, nodes: nodes.map((node) => node.target.join(" ")).slice(0, 4) });
  }
}

/** A whole rise and fall: what a person reads at each step. */
async function riseAndFall(page, api) {
  const steps = [
    [0.48, 0.8, "open", /^$/, ""],
    [0.987, 0.7, "caution", /first mark/, ""],
    [1.1, 0.7, "blocked", /publication is cut/, "What reopens it: a report with di < 0.45"],
    [1.4, 0.7, "isolated", /everything is cut/, "What reopens it: a report with di < 0.45"],
    [1.1, 0.7, "isolated|blocked", /./, "What reopens it: a report with di < 0.45"],
    [0.48, 0.8, "open", /^$/, ""],
  ];
  for (const [sum, scr, band, why, reopens] of steps) {
    const answer = await report(api, sum, scr);
    assert.match(answer.band, new RegExp(`^(${band})$`), JSON.stringify(answer));
    await reads(page, "#band", answer.band);
    await reads(page, "#facts", String(Number(answer.di.toFixed(4))));
    assert.match(await text(page, "#reasons"), why, answer.band);
    assert.ok((await text(page, "#reopens")).startsWith(reopens), await text(page, "#reopens"));
    assert.equal(await page.title(), `${answer.band} · local`);
    await reads(page, "#transitions tbody tr", answer.band);
    await shot(page, `light-${answer.band}`);
    await check(page, answer.band);
  }
}

/** Milliseconds from sending a report to the page showing its index. */
async function latency(page, api) {
  await page.evaluate(() => {
    globalThis.shown = {};
    const value = () => document.querySelector("#facts dd")?.textContent;
    new MutationObserver(() => (globalThis.shown[value()] ??= Date.now()))
      .observe(document.querySelector("#facts"), { childList: true, subtree: true });
  });
  const taken = [];
  for (let turn = 0; turn < REPORTS; turn++) {
    const begun = Date.now();
    const answer = await report(api, 0.3 + turn / 1000, 0.8);
    const shown = String(Number(answer.di.toFixed(4)));
    await until(page, shown, (shown) => globalThis.shown[shown], shown);
    taken.push((await page.evaluate((shown) => globalThis.shown[shown], shown)) - begun);
  }
  taken.sort((one, other) => one - other);
  return { p50: taken[REPORTS / 2], p99: taken[Math.floor(REPORTS * 0.99)] };
}

/** A page of another site, with the browser's own rules. */
async function fromElsewhere(browser, api, consoleUrl) {
  const server = createServer((_, answer) => answer.end("<!doctype html><title>evil</title>"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const outcomes = await page.evaluate(async (own) => {
    const attempt = (path, options) =>
      fetch(own + path, options).then((answer) => answer.text(), () => "refused");
    const readable = await Promise.all([
      attempt("console/view"), attempt("console/fleet"), attempt("aegida/trace"), attempt("phase/telemetry"),
      attempt("operator/isolate", { method: "POST" }),
      attempt("operator/isolate", { method: "POST", mode: "no-cors", body: "{}" }),
      attempt("operator/isolate", {
        method: "POST", body: "{}", headers: { "content-type": "application/json" },
      }),
    ]);
    const frame = document.createElement("iframe");
    frame.src = own;
    document.body.append(frame);
    await new Promise((done) => frame.addEventListener("load", done));
    return { readable, framed: frame.contentDocument !== null };
  }, consoleUrl);
  assert.deepEqual(new Set(outcomes.readable), new Set(["refused", ""]), "another site reads nothing");
  assert.equal(outcomes.framed, false);
  const safety = await (await fetch(`${api}/aegida/safety`)).json();
  assert.equal(safety.operator_hold, false, "another site orders nothing");
  await page.close();
  server.close();
}

const EVIL = '<img src=x onerror="globalThis.injected=1"><b>x</b>';

/** Isolates by the keyboard alone, with a reason made to inject. */
async function isolateByKeyboard(page, api) {
  await page.focus("#isolate");
  await page.keyboard.press("Enter");
  await appears(page, "#order[open]");
  await shot(page, "light-order");
  await check(page, "the order's dialog");
  await page.keyboard.type(EVIL);
  await page.keyboard.press("Tab");
  await page.keyboard.type("a person");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await reads(page, "#band", "isolated");
  await reads(page, "#hold", EVIL);
  assert.equal(await page.evaluate(() => globalThis.injected), undefined);
  assert.equal(await page.$("#hold img"), null);
  const safety = await (await fetch(`${api}/aegida/safety`)).json();
  assert.equal(safety.hold.by, "a person");
  await page.click("#release");
  await appears(page, "#order-command:not([hidden])");
  assert.match(await text(page, "#order-command"), /kill -USR2/);
  await page.click("#order-close");
}

/** A made-up fleet, in place of what the sidecar would read from the broker. */
function fleet(size, turn) {
  const at = new Date().toISOString();
  const flaps = ["open", "blocked", "caution", "isolated"];
  return {
    at,
    runtimes: Array.from({ length: size }, (_, index) => ({
      runtime_id: `runtime-${String(index).padStart(4, "0")}`,
      mode: "enforce",
      band: index % 10 === 0 ? "open" : flaps[(index * 7 + turn * (1 + (index % 3))) % 4],
      reasons: index % 10 === 0 ? [] : ["di_block"], since: at, epoch: 1, hold: index % 97 === 5,
      instance: "0".repeat(32), claim: 1, version: "0.1.0", started: at, at, age_s: index % 9,
      state: index % 50 === 7 ? "stale" : index % 50 === 9 ? "cut" : "live",
    })),
  };
}

/** The fleet's part of the page with `size` runtimes, nine of ten of which flap. */
async function showFleet(browser, url, size, name) {
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 900 });
  await page.setRequestInterception(true);
  let turn = 0;
  page.on("request", (request) =>
    request.url().endsWith("/console/fleet")
      ? request.respond({ contentType: "application/json", body: JSON.stringify(fleet(size, turn++)) })
      : request.continue());
  await page.evaluateOnNewDocument(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, entry.duration);
    }).observe({ entryTypes: ["longtask"] });
  });
  await page.goto(url);
  await reads(page, "#fleet-said", `${size} known`);
  await until(page, "three looks", () =>
    document.querySelector("#fleet .strip")?.querySelectorAll("rect").length >= 3);
  const longest = await page.evaluate(() => globalThis.longest);
  await shot(page, name);
  await check(page, name);
  await page.close();
  return longest;
}

function resident(pid) {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(rollup)[1]);
  return { rss_kib: kib("Rss"), private_kib: kib("Private_Dirty") };
}

async function weigh(url) {
  let bytes = 0;
  const files = ["", "console.css", "console.js", "draw.js"];
  for (const file of files) bytes += (await (await fetch(url + file)).arrayBuffer()).byteLength;
  return { files: files.length, bytes };
}

const sidecar = await start();
const browser = await puppeteer.launch({
  executablePath: browserPath, headless: true, args: ["--no-sandbox", "--disable-gpu"],
});
try {
  const url = sidecar.console;
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // An isolated gate shows no fleet, and a sidecar that stands still no answer: both are said.
    const isSaid = /status of 423|ERR_/.test(message.text());
    if (message.type() === "error" && !isSaid) faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) faults.push(request.url());
  });
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(url);
  await reads(page, "#band", "blocked");
  await reads(page, "#reasons", "no report has come yet");
  await check(page, "just started");
  const figures = { weight: await weigh(url) };
  await riseAndFall(page, sidecar.api);
  figures.report_to_page_ms = await latency(page, sidecar.api);
  await fromElsewhere(browser, sidecar.api, url);

  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await report(sidecar.api, 0.987, 0.7);
  await reads(page, "#band", "caution");
  await shot(page, "dark-caution");
  await check(page, "dark");
  await page.setViewport({ width: 390, height: 844, isMobile: true, deviceScaleFactor: 2 });
  await shot(page, "dark-phone");
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} px too wide for a phone`);
  await check(page, "phone");
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await shot(page, "light-phone");
  await page.setViewport({ width: 1280, height: 900 });

  figures.longest_task_ms_of_3 = await showFleet(browser, url, 3, "light-fleet-3");
  figures.longest_task_ms_of_1000 = await showFleet(browser, url, 1000, "light-fleet-1000");

  const before = resident(sidecar.child.pid);
  const crowd = [];
  for (let one = 0; one < PAGES; one++) {
    // Each in a browser of its own, as it were: one browser has six connections to a host.
    const another = await (await browser.createBrowserContext()).newPage();
    await another.goto(url);
    await reads(another, "#band", "caution");
    crowd.push(another);
  }
  for (let turn = 0; turn < 50; turn++) await report(sidecar.api, 0.4 + turn / 1000, 0.8);
  figures.memory_of_20_pages = { before, with: resident(sidecar.child.pid) };
  for (const another of crowd) await another.close();
  await page.bringToFront();

  await isolateByKeyboard(page, sidecar.api);
  await reads(page, "#fleet-said", "isolated: nothing inbound is shown");
  assert.equal(await page.$("#matrix i"), null, "nothing of the fleet is left on the page");

  // The broker goes; then the sidecar stands still.
  const children = readFileSync(`/proc/${sidecar.child.pid}/task/${sidecar.child.pid}/children`, "utf8");
  const broker = Number(children.trim().split(" ")[0]);
  process.kill(broker, "SIGKILL");
  await reads(page, "#degraded", "broker_unreachable");
  await page.click("#degraded button");
  await appears(page, "#degraded pre:not([hidden])");
  assert.match(await text(page, "#degraded pre"), /Do/);
  await shot(page, "light-degraded");
  await check(page, "degraded");
  process.kill(sidecar.child.pid, "SIGSTOP");
  await reads(page, "#live", "stale");
  assert.equal(await page.title(), "stale · local");
  await shot(page, "light-stale");
  await check(page, "stale");
  process.kill(sidecar.child.pid, "SIGCONT");
  await reads(page, "#live", "live");

  const serious = findings.filter(({ impact }) => ["serious", "critical"].includes(impact));
  console.log(JSON.stringify({ figures, faults, findings }, null, 1));
  assert.deepEqual(faults, [], "the page has faults, or asks elsewhere");
  assert.deepEqual(serious, [], "axe-core has serious findings");
  console.log("the console was read through a whole rise and fall");
} finally {
  await browser.close();
  try {
    process.kill(sidecar.child.pid, "SIGCONT");
    sidecar.child.kill("SIGINT");
  } catch {
    // It has gone.
  }
}
