// A runtime's side of Driftgate in TypeScript, with nothing but what Node brings.
//
//     DRIFTGATE_API=http://127.0.0.1:7405 DELIVER_PORT=8080 node runtime.mts  # Node 22.18
//
// It reports, reads what peers sent, takes deliveries, pushes its memory, follows events, and does
// something sensible with every answer. The sidecar needs `deliver.url = "http://127.0.0.1:8080/"`.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";

const API = process.env.DRIFTGATE_API ?? "http://127.0.0.1:7405";
const TOKEN_FILE = process.env.DRIFTGATE_TOKEN_FILE; // only with listen.token_file
const ATTEMPTS_MAX = 5;
const PAUSE_MAX_MS = 10_000;

type Problem = { type: string; title: string; status: number; detail: string; field?: string };
type Verdict = "export" | "throttle" | "hold" | "block" | "isolate" | "observe";
type Reply = { verdict: Verdict; band: string; reasons: string[]; barrier?: string; seq: number };
type Peer = { source: string; age_s?: number; packet?: any; absent?: string; external: true };
type Delivery = { source: string; seq: number; uses: string; packet: any };

/** Sending the same again is pointless: the problem document says what is wrong, and where. */
class Refused extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(`${problem.title}: ${problem.detail}`);
    this.problem = problem;
  }
}

/** 423: the gate is not open. Nothing is wrong with the request; it is not the time for it. */
class Closed extends Error {}

async function authorised(headers: Record<string, string>): Promise<Record<string, string>> {
  if (!TOKEN_FILE) return headers;
  const token = (await readFile(TOKEN_FILE, "utf8")).trim(); // read anew: it may have been rotated
  return { ...headers, authorization: `Bearer ${token}` };
}

/** One request, made again where that can help. */
async function call(method: string, path: string, body?: string, media = "application/json") {
  let wait = 200;
  for (let attempt = 1; ; attempt += 1) {
    let answer: Response;
    try {
      const headers = await authorised(body === undefined ? {} : { "content-type": media });
      const signal = AbortSignal.timeout(10_000);
      answer = await fetch(API + path, { method, headers, body, signal });
    } catch (error) {
      // The sidecar is starting, stopping, or away: never let that stop the agent.
      if (attempt === ATTEMPTS_MAX) throw error;
      await pause(Math.min(wait, PAUSE_MAX_MS));
      wait *= 2;
      continue;
    }
    if (answer.ok || answer.status === 304) return answer;
    const problem = (await answer.json()) as Problem;
    if (answer.status === 423) throw new Closed(problem.detail);
    // 408, 503, 504 and 507 pass; every other status is about the request itself.
    if (![408, 503, 504, 507].includes(answer.status) || attempt === ATTEMPTS_MAX) {
      throw new Refused(problem);
    }
    wait = 1000 * Number(answer.headers.get("retry-after") ?? wait / 1000);
    await pause(Math.min(wait, PAUSE_MAX_MS));
    wait *= 2;
  }
}

/** One cycle's report. The same report under the same cycle is a retry and counts once. */
async function report(cycle: number, sdi: number, sv: number, pd: number, scr: number) {
  const body = {
    cycle,
    attractor_state: { id: "a-1", type: "symbolic", stability: 0.9, phase: "stable", scr },
    drift_metrics: { sdi, sv, pd },
  };
  const answer = await call("POST", "/field/state", JSON.stringify(body));
  return (await answer.json()) as Reply;
}

/** What each configured peer last sent, or why there is nothing of it. All of it is evidence from
 *  outside: label it so, and never merge it into your own state. */
async function peers(): Promise<Peer[]> {
  const answer = await call("GET", "/field/state");
  return ((await answer.json()) as { peers: Peer[] }).peers;
}

/** Pushes a memory snapshot. It is on disk when this returns, and sent when gate and broker allow;
 *  a gate that closes first revokes it. */
async function push(memory: string) {
  const answer = await call("PUT", "/memory/snapshot", memory, "application/octet-stream");
  const { digest } = (await answer.json()) as { digest: string };
  return { status: answer.status, digest };
}

/** Takes accepted packets of peers. 2xx acknowledges; anything else has it offered again. */
function deliveries(port: number, taken: Delivery[]) {
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const header = (name: string) => String(request.headers[name] ?? "");
    taken.push({
      source: header("driftgate-source"),
      seq: Number(header("driftgate-seq")),
      uses: header("driftgate-allowed-use"),
      packet: JSON.parse(text),
    });
    response.writeHead(204).end();
  });
  server.listen(port, "127.0.0.1");
  return server;
}

/** Follows the sidecar's events until it goes away, and again when it is back. `Last-Event-ID`
 *  asks for what was missed; `lagged` says that something cannot be told again. */
async function follow(
  onEvent: (name: string, data: any) => void,
  onListening: () => void,
  signal: AbortSignal,
) {
  let last = "";
  while (!signal.aborted) {
    try {
      const asked: Record<string, string> = { accept: "text/event-stream" };
      if (last) asked["last-event-id"] = last;
      const headers = await authorised(asked);
      const answer = await fetch(`${API}/phase/telemetry`, { headers, signal });
      onListening();
      let rest = "";
      for await (const text of answer.body!.pipeThrough(new TextDecoderStream())) {
        const blocks = (rest + text).split("\n\n");
        rest = blocks.pop()!;
        for (const block of blocks) {
          let [name, data] = ["message", ""];
          for (const line of block.split("\n")) {
            const [, key, value] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
            if (key === "event") name = value;
            else if (key === "data") data += value;
            else if (key === "id") last = value;
          }
          if (data) onEvent(name, JSON.parse(data));
        }
      }
    } catch {
      // Away; it is asked again below.
    }
    if (!signal.aborted) await pause(2000);
  }
}

async function main() {
  const taken: Delivery[] = [];
  const server = deliveries(Number(process.env.DELIVER_PORT ?? 8080), taken);
  const stop = new AbortController();
  let closings = 0;
  let onListening = () => {};
  const listening = new Promise<void>((resolve) => (onListening = resolve));
  const onEvent = (name: string, data: any) => {
    if (name !== "transition") return;
    if (data.to === "blocked") closings += 1;
    console.log(`event: ${data.from} -> ${data.to}`, ...data.reasons);
  };
  const following = follow(onEvent, onListening, stop.signal);
  await Promise.race([listening, pause(10_000, undefined, { ref: false })]);

  // Cycle numbers go up by one. A runtime that keeps no counter over a restart begins with the
  // clock: a number that falls back means "started anew", and such a report never opens the gate.
  const first = Date.now();
  let answer = await report(first, 0.2, 0.1, 0.1, 0.8);
  console.log("good:", answer.verdict, answer.band);
  for (const peer of await peers()) {
    console.log(`peer ${peer.source}:`, peer.absent ?? `${peer.age_s} s old`);
  }
  const { status, digest } = await push("what the runtime remembers\n".repeat(1000));
  console.log("memory:", status, digest.slice(0, 14));

  answer = await report(first + 1, 0.5, 0.5, 0.4, 0.8);
  console.log("drifting:", answer.verdict, ...answer.reasons, answer.barrier);
  try {
    await push("what a drifting runtime remembers\n");
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
    console.log("memory: kept for later:", error.message);
  }
  try {
    await report(first + 2, 2, 0.1, 0.1, 0.8);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log("refused:", error.message);
  }
  answer = await report(first + 3, 0.2, 0.1, 0.1, 0.8);
  console.log("good again:", answer.verdict, answer.band);

  const deadline = Date.now() + 1000 * Number(process.env.WAIT_S ?? 0);
  while ((!taken.length || !closings) && Date.now() < deadline) await pause(50);
  for (const { source, seq, uses, packet } of taken) {
    console.log(`delivered: ${source} ${seq} for ${uses}:`, packet.payload.attractor_state.phase);
  }
  stop.abort();
  await following;
  server.close();
}

await main();
