// Elements and numbers, as both pages write them.

/** An element with a class and children. */
export function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** The head of a column of a table; one that begins with < is set to the left. */
export function columnHead(name) {
  const cell = name.startsWith("<") ? make("th", "left", name.slice(1)) : make("th", "", name);
  cell.scope = "col";
  return cell;
}

/** The head of a row of a table. */
export function rowHead(...children) {
  const cell = make("th", "", ...children);
  cell.scope = "row";
  return cell;
}

/** A button that does something. */
export function button(name, text, act) {
  const made = make("button", name, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

/** A table: a caption that is read out, heads of its columns, rows of elements. */
export function table(caption, heads, rows) {
  const head = make("thead", "", make("tr", "", ...heads.map(columnHead)));
  return make("table", "", make("caption", "visually-hidden", caption), head, make("tbody", "", ...rows));
}

export const number = (value, digits = 1) => value.toFixed(digits);
export const percent = (share) => (share > 0 && share < 0.01 ? "under 1 %" : `${Math.round(share * 100)} %`);
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A span of time in the unit that suits it. */
export function duration(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return "–";
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(2))} ms` : `${Number(seconds.toPrecision(2))} s`;
}

/** A moment as people write it, in their own time zone. */
export const moment = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
