// Asks the own sidecar, and hears from it that something has happened.

/** Longest wait for an answer, and longest silence of a stream, whose heartbeat is shorter. */
const ANSWER_MS = 10_000;
const SILENCE_MS = 40_000;
const PAUSE_MS = 1000;

let token = "";

/** It stays in this page's memory. */
export function enterWith(text) {
  token = text;
}
export const hasToken = () => token !== "";

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.isNobody = status === 401 || status === 403;
  }
}

export async function ask(path, { headers = {}, signal = AbortSignal.timeout(ANSWER_MS), ...more } = {}) {
  const all = token ? { ...headers, authorization: `Bearer ${token}` } : headers;
  const answer = await fetch(path, { ...more, signal, headers: all, cache: "no-store", credentials: "omit" });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

/** Calls `happened` for each event of one stream, until it ends or `signal` ends it. */
async function hear(last, happened, signal) {
  const silence = new AbortController();
  const quiet = () => setTimeout(() => silence.abort(), SILENCE_MS);
  let timer = quiet();
  try {
    const headers = { accept: "text/event-stream", ...(last.id ? { "last-event-id": last.id } : {}) };
    const answer = await ask("/phase/telemetry", {
      headers, signal: AbortSignal.any([signal, silence.signal]),
    });
    let rest = "";
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
      clearTimeout(timer);
      timer = quiet();
      const blocks = (rest + chunk).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        last.id = /^id: ?(.*)$/m.exec(block)?.[1] ?? last.id;
        if (/^data:/m.test(block)) happened();
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Calls `happened` when something has, for as long as the page is there.
 *
 *  A browser has six connections to a host, and a stream takes one for good. So of all pages of
 *  this origin that can be seen one holds the stream, by a lock, and tells the others that something
 *  has happened and no more: neither the token nor data goes from page to page. Where a browser has
 *  no locks there is no stream, and the page learns by asking. */
export async function follow(isIn, happened) {
  if (!navigator.locks) return;
  const others = new BroadcastChannel("driftgate");
  others.addEventListener("message", happened);
  const told = () => {
    others.postMessage(0);
    happened();
  };
  const last = { id: "" };
  for (;;) {
    if (isIn() && !document.hidden) {
      const hidden = new AbortController();
      const hide = () => document.hidden && hidden.abort();
      document.addEventListener("visibilitychange", hide);
      try {
        await navigator.locks.request("driftgate", { signal: hidden.signal }, () =>
          hear(last, told, hidden.signal));
      } catch {
        // Away, or nobody looks at this page any more: another one may have the stream.
      }
      document.removeEventListener("visibilitychange", hide);
    }
    await pause();
  }
}
