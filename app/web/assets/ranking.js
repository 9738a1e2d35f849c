// The list: entries that move to their new places, and say why they are there.

import { columnHead, make, number, percent } from "./elements.js";

const calm = { duration: 520, easing: "cubic-bezier(0.22, 0.8, 0.24, 1)" };
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Put a slate into the list. Returns how many entries are new or moved. */
export function show(list, slate, scale) {
  const before = new Map([...list.children].filter((li) => li.dataset.id).map((li, i) => [li.dataset.id, [li, i, li.offsetTop]]));
  const first = before.size === 0;
  const told = new Map(slate.parts.map((part) => [part.role, part]));
  let changed = 0;
  const entries = slate.items.map((item, place) => {
    const [old, rank] = before.get(item.item_id) ?? [];
    const entry = old ?? skeleton(item);
    const by = old ? rank - place : null;
    if (by !== 0) changed += 1;
    fill(entry, item, place, first ? 0 : by, scale, told);
    return entry;
  });
  list.replaceChildren(...entries);
  if (!still.matches && !first) for (const entry of entries) move(entry, before.get(entry.dataset.id)?.[2]);
  return changed;
}

function move(entry, from) {
  if (from === undefined) {
    entry.animate([{ opacity: 0, transform: "translateX(0.75rem)" }, { opacity: 1, transform: "none" }], calm);
  } else if (from !== entry.offsetTop) {
    entry.animate([{ transform: `translateY(${from - entry.offsetTop}px)` }, { transform: "none" }], calm);
  }
}

function skeleton(item) {
  const entry = make("li", "entry");
  entry.dataset.id = item.item_id;
  const title = make("h3", "name");
  title.textContent = item.title;
  const details = make("details", "why", make("summary"), make("table"), make("p", "note"));
  const body = make("div", "body", make("div", "line", title, make("span", "badges")), make("p", "because"), details);
  entry.append(make("span", "rank"), body, make("div", "expected"));
  return entry;
}

function fill(entry, item, place, by, scale, told) {
  entry.classList.toggle("explored", item.explored);
  entry.querySelector(".rank").textContent = place + 1;
  entry.querySelector(".badges").replaceChildren(...badges(item, by));
  entry.querySelector(".expected").replaceChildren(...expected(item, scale));
  const summary = entry.querySelector("summary");
  summary.textContent = "Who says so";
  summary.setAttribute("aria-label", `Who says so: ${item.title}`);
  entry.querySelector("table").replaceChildren(caption("What each part expects, and how much it counts"), ...rows(item, told));
  entry.querySelector("details .note").textContent = chance(item);
}

function badges(item, by) {
  const made = [];
  if (item.explored) made.push(make("span", "badge found", "explored"));
  if (by === null) made.push(make("span", "badge", "new"));
  else if (by) {
    const arrow = make("span", "", by > 0 ? "↑" : "↓");
    arrow.setAttribute("aria-hidden", "true");
    made.push(make("span", "badge", arrow, make("span", "visually-hidden", by > 0 ? "up " : "down "), `${Math.abs(by)}`));
  }
  return made;
}

function expected(item, { min, max }) {
  const text = make("p", "rating", make("span", "visually-hidden", "expected rating "), make("b", "", number(item.score)));
  if (item.std !== null) text.append(make("span", "spread", ` ± ${number(item.std)}`));
  const bar = make("div", "interval", make("i", "range"), make("i", "dot"));
  bar.setAttribute("aria-hidden", "true");
  const at = (value) => (100 * (Math.min(Math.max(value, min), max) - min)) / (max - min);
  const [range, dot] = bar.children;
  range.style.left = `${at(item.score - (item.std ?? 0))}%`;
  range.style.right = `${100 - at(item.score + (item.std ?? 0))}%`;
  dot.style.left = `${at(item.score)}%`;
  return [text, bar];
}

function rows(item, told) {
  const head = make("tr", "", ...["part", "expects", "counts for"].map((name) => columnHead(name)));
  const body = (item.why ?? []).map((why) => {
    const part = told.get(why.role);
    const orders = why.role === "ranking"; // its scores order a list, and are no ratings
    const name = make("th", "", part?.recommender ?? why.role, make("small", "", ` ${why.role}`));
    name.scope = "row";
    const weight = orders ? "the order" : percent(why.weight);
    return make("tr", "", name, make("td", "", orders ? "–" : number(why.score, 2)), make("td", "", weight));
  });
  return [make("thead", "", head), make("tbody", "", ...body)];
}

function caption(text) {
  return make("caption", "visually-hidden", text);
}

function chance(item) {
  const found = item.explored ? "The best-first list would not have it: it is here to learn about. " : "";
  return found + (item.propensity === null ? "" : `It had a chance of ${percent(item.propensity)} to stand here.`);
}

/** Say under an entry which of the rated items are most like it. */
export function because(list, id, near, words) {
  const entry = [...list.children].find((li) => li.dataset.id === id);
  if (!entry) return;
  const line = entry.querySelector(".because");
  line.replaceChildren(words.slice(0, 4).join(", "));
  if (!near.length) return;
  line.append(words.length ? " · nearest " : "nearest ");
  near.forEach(({ answer }, i) => {
    const given = number(answer.value, Number.isInteger(answer.value) ? 0 : 1);
    line.append(i ? ", " : "", make("cite", "", answer.title), " ", make("span", "visually-hidden", "which you gave "), make("b", "given", given));
  });
}
