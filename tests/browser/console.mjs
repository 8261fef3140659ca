// The console in a real browser, read as a person reads it, while a sidecar goes through a whole
// rise and fall of drift. Run by `make browser`:
//
//   node tests/browser/console.mjs DRIFTGATE MODULES [FOLDER FOR PICTURES]
//
// DRIFTGATE is the program, MODULES the folder that has puppeteer-core and axe-core. Without a
// Chromium (DRIFTGATE_CHROMIUM, or one of the usual names in PATH) it says SKIPPED and ends with 0;
// with DRIFTGATE_BROWSER_REQUIRED=1 it ends with 1 instead.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import { guarded } from "./guarded.mjs";
import {
  appears, check, findings, launch, open, reads, report, shot, start, text, until,
} from "./support.mjs";

const REPORTS = 200;
const PACE_MS = 150;
const PAGES = 20;

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
    // At a runtime's pace: what comes faster than the page looks is seen together.
    await new Promise((done) => setTimeout(done, PACE_MS));
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

function resident(pid) {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(rollup)[1]);
  return { rss_kib: kib("Rss"), private_kib: kib("Private_Dirty") };
}

async function weigh(url) {
  let bytes = 0;
  const files = ["", "console.css", ...["ask", "console", "draw", "fleet", "page", "words"].map((name) => `${name}.js`)];
  for (const file of files) bytes += (await (await fetch(url + file)).arrayBuffer()).byteLength;
  return { files: files.length, bytes };
}

const sidecar = await start();
const browser = await launch();
try {
  const url = sidecar.console;
  const faults = [];
  const page = await open(browser, url, faults);
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
  // Another kind of screen loads the page again.
  await page.setViewport({ width: 390, height: 844, isMobile: true, deviceScaleFactor: 2 });
  await reads(page, "#band", "caution");
  await reads(page, "#fleet-said", "known from presence");
  await reads(page, "#stores", "connected");
  await shot(page, "dark-phone");
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} px too wide for a phone`);
  await check(page, "phone");
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await shot(page, "light-phone");
  await page.setViewport({ width: 1280, height: 900 });
  await reads(page, "#band", "caution");

  const before = resident(sidecar.child.pid);
  const crowd = [];
  for (let one = 0; one < PAGES; one++) {
    // Each in a browser of its own, as it were: one browser has six connections to a host.
    const another = await open(await browser.createBrowserContext(), url, faults);
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
  assert.equal(await page.$("#matrix .square"), null, "nothing of the fleet is left on the page");

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

  Object.assign(figures, await guarded(browser, faults));

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
