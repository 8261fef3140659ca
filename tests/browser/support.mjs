// What the browser tests share: a sidecar, a browser, and how a page is read.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

export const [program, modules, pictures] = process.argv.slice(2);
const PATIENCE_MS = 20_000;

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

/** A browser whose pages have room for a person's look. */
export const launch = () =>
  puppeteer.launch({ executablePath: browserPath, headless: true, args: ["--no-sandbox", "--disable-gpu"] });

/** A page in a window of its own: of the tabs of one window only one can be seen. */
export async function newWindow(browser, context) {
  const session = await browser.target().createCDPSession();
  const wanted = { url: "about:blank", newWindow: true, browserContextId: context.id };
  const { targetId } = await session.send("Target.createTarget", wanted);
  const target = await context.waitForTarget((target) => target._targetId === targetId);
  return target.page();
}

/** A page, which may run only what the console serves. With DRIFTGATE_CONSOLE_SOURCE, the folder of
 *  the page's parts, these come from there: a change is seen without building. */
export async function open(context, url, faults, window = null) {
  const page = window ?? (await context.newPage());
  await page.setViewport({ width: 1280, height: 900 });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // An isolated gate shows no fleet, a token may be wrong, and a sidecar that stands still or a
    // page that is closed gets no answer: all of it is said on the page.
    const isSaid = /status of (401|423)|ERR_/.test(message.text());
    if (message.type() === "error" && !isSaid) faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) faults.push(request.url());
  });
  const source = process.env.DRIFTGATE_CONSOLE_SOURCE;
  if (source) {
    await page.setRequestInterception(true);
    page.on("request", (request) => {
      const name = new URL(request.url()).pathname.slice(1) || "index.html";
      const types = { css: "text/css", html: "text/html", js: "text/javascript" };
      const contentType = types[name.split(".").pop()];
      if (!contentType || request.method() !== "GET") return request.continue();
      return request.respond({ contentType, body: readFileSync(`${source}/${name}`) });
    });
  }
  return page;
}

/** Starts `driftgate run --dev` and gives what its banner says. */
export async function start() {
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
export async function report(api, sum, scr) {
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

export async function shot(page, name) {
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

export const text = (page, selector) => page.$eval(selector, (found) => found.innerText.trim());

/** Waits until the page says so. It is asked from outside: the page's policy lets nothing be
 *  evaluated inside. */
export async function until(page, what, says, ...values) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; ) {
    if (await page.evaluate(says, ...values)) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  if (pictures) await page.screenshot({ path: `${pictures}/failed.png`, fullPage: true });
  assert.fail(`the page does not show ${what}`);
}

export const reads = (page, selector, part) =>
  until(page, `${part} in ${selector}`, (selector, part) =>
    document.querySelector(selector)?.innerText.includes(part), selector, part);

export const appears = (page, selector) =>
  until(page, selector, (selector) => document.querySelector(selector) !== null, selector);

export const findings = [];
/** What axe-core finds on the page as it is; its script comes over the protocol, not by the page. */
export async function check(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  for (const { id, impact, nodes } of violations) {
    findings.push({ where, id, impact, nodes: nodes.map((node) => node.target.join(" ")).slice(0, 4) });
  }
}
