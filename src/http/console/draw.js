// Pictures, made of elements and never of text that is read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children. */
function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const [WIDTH, HEIGHT, STRIP, LEFT, RIGHT] = [640, 190, 14, 34, 6];

/** The index over time against the marks, and below it where the gate stood. `points` are
 *  {at, di, band} in order of time; `marks` are {reopen, block, isolate}. */
export function chart(points, marks, now) {
  const known = points.filter((point) => point.di !== null);
  const top = Math.max(0.8, ...known.map((point) => Math.min(point.di, 1.5) * 1.08));
  const first = points.length ? Math.min(points[0].at, now - 60_000) : now - 60_000;
  const x = (at) => LEFT + ((WIDTH - LEFT - RIGHT) * (at - first)) / Math.max(1, now - first);
  const y = (di) => 8 + (HEIGHT - 8) * (1 - Math.min(di, top) / top);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + STRIP + 22}`, role: "img" });
  const newest = known.at(-1);
  const title = svg("title", {});
  title.textContent = newest
    ? `Drift index ${newest.di.toFixed(3)}, gate ${newest.band}; marks at ${marks.reopen}, ${marks.block} and ${marks.isolate}`
    : "No drift index is known yet";
  picture.append(title);
  let last = HEIGHT + 99;
  for (const mark of [...new Set([0, marks.reopen, marks.block, marks.isolate])].sort((a, b) => a - b)) {
    if (mark > 0) {
      picture.append(svg("line", { class: "mark", x1: LEFT, x2: WIDTH - RIGHT, y1: y(mark), y2: y(mark) }));
    }
    // Labels that would touch are left out; the title names all marks.
    if (last - y(mark) >= 12) {
      last = y(mark);
      picture.append(svg("text", { x: LEFT - 6, y: last + 4, "text-anchor": "end" }, String(mark)));
    }
  }
  let path = "";
  let before = null;
  for (const point of points) {
    if (point.di === null) {
      before = null;
      continue;
    }
    // An index stands until the next report.
    const [across, down] = [x(point.at).toFixed(1), y(point.di).toFixed(1)];
    path += before ? `H${across}V${down}` : `M${across} ${down}`;
    before = point;
  }
  if (before) path += `H${x(now).toFixed(1)}`;
  picture.append(svg("path", { class: "index", d: path }));
  points.forEach((point, index) => {
    const end = points[index + 1]?.at ?? now;
    picture.append(svg("rect", {
      class: `fill-${point.band}`, x: x(point.at).toFixed(1), y: HEIGHT + 4,
      width: Math.max(0.5, x(end) - x(point.at)).toFixed(1), height: STRIP,
    }));
  });
  const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
  picture.append(
    svg("text", { x: LEFT, y: HEIGHT + STRIP + 18 }, clock(first)),
    svg("text", { x: WIDTH - RIGHT, y: HEIGHT + STRIP + 18, "text-anchor": "end" }, clock(now)),
  );
  return picture;
}

/** A row of small bars: where a runtime stood at each look. */
export function strip(bands) {
  const picture = svg("svg", {
    class: "strip", width: 120, height: 12, viewBox: "0 0 120 12", "aria-hidden": "true",
  });
  for (let from = 0, to = 0; from < bands.length; from = to) {
    while (to < bands.length && bands[to] === bands[from]) to++;
    const known = ["open", "caution", "blocked", "isolated"].includes(bands[from]) ? bands[from] : "unknown";
    picture.append(svg("rect", { class: `fill-${known}`, x: from * 2, y: 0, width: (to - from) * 2, height: 12 }));
  }
  return picture;
}
