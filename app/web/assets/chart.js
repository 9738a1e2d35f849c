// The plot: how far off the service is on the answers before and after it met somebody, and how sure it is.

const SPACE = "http://www.w3.org/2000/svg";
const TOP = 10;
const HEIGHT = 132; // of the lines
const BARS = 40; // of the bars below them
const LEFT = 28;
const RIGHT = 84;

function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const SERIES = [
  { field: "before", name: "stranger" },
  { field: "after", name: "knowing you" },
  { field: "std", name: "±" },
];

/** Draw a profile's history into an element, as an image for the eye and a table for everybody else. */
export function draw(host, history, explanation) {
  const width = Math.max(host.clientWidth, 260);
  const counts = Math.max(5, history.at(-1)?.count ?? 0);
  const most = Math.max(1, ...history.flatMap((point) => SERIES.map(({ field }) => point[field] ?? 0)));
  const x = (count) => LEFT + ((width - LEFT - RIGHT) * count) / counts;
  const y = (value) => TOP + HEIGHT * (1 - value / (most * 1.08));
  const total = TOP + HEIGHT + BARS + 40;
  const image = shape("svg", { viewBox: `0 0 ${width} ${total}`, width, height: total, role: "img", "aria-label": explanation });
  image.append(...axes(width, counts, most, x, y), ...area(history, x, y), ...lines(history, x, y), ...bars(history, x, counts));
  host.replaceChildren(image, table(history));
}

function axes(width, counts, most, x, y) {
  const step = most > 4 ? Math.ceil(most / 4) : most > 1.6 ? 1 : 0.5;
  const made = [];
  for (let value = 0; value <= most * 1.05; value += step) {
    made.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    made.push(shape("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
  }
  const every = Math.ceil(counts / 10);
  const base = TOP + HEIGHT + BARS + 26;
  for (let count = 0; count <= counts; count += every) {
    made.push(shape("text", { class: "tick", x: x(count), y: base, "text-anchor": "middle" }, `${count}`));
  }
  made.push(shape("text", { class: "tick", x: width - RIGHT + 12, y: base }, "answers"));
  return made;
}

const known = (history, field) => history.filter((point) => typeof point[field] === "number");

/** What knowing somebody is worth: the area between the two errors. */
function area(history, x, y) {
  const points = known(history, "before").filter((point) => typeof point.after === "number");
  if (points.length < 2) return [];
  const upper = points.map((point) => `${x(point.count)},${y(point.before)}`);
  const lower = points.map((point) => `${x(point.count)},${y(point.after)}`).reverse();
  return [shape("polygon", { class: "gain", points: [...upper, ...lower].join(" ") })];
}

function lines(history, x, y) {
  const made = [];
  const labels = [];
  for (const { field, name } of SERIES) {
    const points = known(history, field);
    if (!points.length) continue;
    made.push(shape("polyline", { class: `series ${field}`, points: points.map((p) => `${x(p.count)},${y(p[field])}`).join(" ") }));
    for (const point of points) made.push(shape("circle", { class: `point ${field}`, cx: x(point.count), cy: y(point[field]), r: 3 }));
    const last = points.at(-1);
    labels.push({ field, at: y(last[field]), from: x(last.count), text: field === "std" ? `± ${last.std.toFixed(2)}` : name });
  }
  labels.sort((a, b) => a.at - b.at);
  labels.forEach((label, i) => {
    const above = labels[i - 1];
    if (above) label.at = Math.max(label.at, above.at + 15);
    made.push(shape("text", { class: `label ${label.field}`, x: label.from + 9, y: label.at + 4 }, label.text));
  });
  return made;
}

/** How much each answer changed what the service expects, the largest one in full height. */
function bars(history, x, counts) {
  const base = TOP + HEIGHT + BARS + 10;
  const most = Math.max(...known(history, "moved").map((point) => point.moved), 1e-9);
  const width = Math.min(18, (x(counts) - x(0)) / counts / 2);
  const made = [shape("line", { class: "grid", x1: LEFT, x2: x(counts), y1: base, y2: base })];
  for (const point of known(history, "moved")) {
    const height = Math.max(1, ((BARS - 4) * point.moved) / most);
    made.push(shape("rect", { class: "bar", x: x(point.count) - width / 2, y: base - height, width, height, rx: 2 }));
  }
  const last = known(history, "moved").at(-1);
  if (last) made.push(shape("text", { class: "label bar", x: x(last.count) + width / 2 + 6, y: base - 3 }, `taught ${last.moved.toFixed(2)}`));
  return made;
}

function table(history) {
  const element = document.createElement("table");
  const caption = element.createCaption();
  caption.textContent = "After each answer, in rating points";
  const head = element.createTHead().insertRow();
  for (const name of ["answers", "error before meeting you", "error knowing you", "standard deviation", "change of expectations"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = element.createTBody();
  for (const point of history) {
    const row = body.insertRow();
    row.insertCell().textContent = point.count;
    for (const field of ["before", "after", "std", "moved"]) {
      row.insertCell().textContent = typeof point[field] === "number" ? point[field].toFixed(2) : "none";
    }
  }
  // A table takes the width of its content, hidden or not, and would widen the page.
  const hidden = document.createElement("div");
  hidden.className = "visually-hidden";
  hidden.append(element);
  return hidden;
}
