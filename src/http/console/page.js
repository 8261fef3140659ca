// Elements, tables, times and numbers of the page. What comes over the wire is written as text, never
// as markup.

export const at = (id) => document.getElementById(id);

export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties ?? {});
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Writes a text, and leaves it alone when it stands there: a reader is told of what is new only. */
export function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

export function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const clock = (timestamp) => new Date(timestamp).toLocaleTimeString([], { hour12: false });
export const since = (timestamp) => Date.now() - Date.parse(timestamp);
export const bytes = (count) =>
  count < 10240 ? `${count} B` : count < 10485760 ? `${Math.round(count / 1024)} KiB` : `${Math.round(count / 1048576)} MiB`;
export const number = (value) =>
  value === null || value === undefined ? "–" : String(Number(value.toFixed(4)));

/** A cell that is more than text: `key` says when it has changed, `make` makes it. */
export const cell = (key, make) => ({ key, make });
export const banded = (band) =>
  cell(`band ${band}`, () => element("span", { className: `band-${band}` }, band));

/** What stands in each table: its heads, and the key of each cell. */
const standing = new Map();

/** Fills a table, cell by cell: what has not changed is left alone, so that a selection survives and
 *  a thousand runtimes cost what has changed of them. */
export function table(id, heads, rows, none) {
  const place = at(id);
  const head = JSON.stringify([heads, rows.length > 0]);
  if (standing.get(id)?.head !== head) {
    standing.set(id, { head, keys: [] });
    const cells = heads.map((text) => element("th", { scope: "col" }, text));
    const nothing = element("tr", {}, element("td", { className: "none" }, none));
    place.replaceChildren(
      ...(rows.length ? [element("thead", {}, element("tr", {}, ...cells))] : []),
      element("tbody", {}, ...(rows.length ? [] : [nothing])),
    );
  }
  if (!rows.length) return;
  const { keys } = standing.get(id);
  const body = place.tBodies[0];
  while (keys.length > rows.length) {
    keys.pop();
    body.lastElementChild.remove();
  }
  rows.forEach((row, index) => {
    if (!keys[index]) {
      keys[index] = [];
      body.append(element("tr", {}, ...row.map(() => element("td", {}))));
    }
    const cells = body.children[index].children;
    row.forEach((wanted, column) => {
      const { key, make } = wanted?.make ? wanted : { key: `text ${wanted ?? "–"}` };
      if (keys[index][column] === key) return;
      keys[index][column] = key;
      cells[column].replaceChildren(make ? make() : String(wanted ?? "–"));
    });
  });
}

export function facts(id, pairs) {
  const place = at(id);
  if (place.children.length !== pairs.length) {
    place.replaceChildren(
      ...pairs.map(([name]) => element("div", {}, element("dt", {}, name), element("dd", {}))),
    );
  }
  pairs.forEach(([, value], index) => {
    const [text, told] = [String(value ?? "–"), place.children[index].lastElementChild];
    if (told.textContent !== text) told.textContent = text;
  });
}
