// One user: what is known of them, what they were shown and why, and how to erase them.

import { button, make, moment, number, percent, rowHead, table } from "./elements.js";
import { call, segment, titles } from "./service.js";

const SLATES = 10;
const EVENTS = 12;
const $ = (id) => document.getElementById(id);

/** Show a user. */
export async function find(id, act) {
  const address = `/v1/users/${segment(id)}`;
  $("person").replaceChildren();
  const [user, page] = await Promise.all([call(address), call(`${address}/slates?limit=${SLATES}`)]);
  const newest = user.interactions.slice(-EVENTS).reverse();
  const names = await titles(newest.map((event) => [event.domain, event.item_id]));
  const erase = button("quiet danger", "Erase…", () => ask(id, act));
  const head = make("div", "heading", make("h3", "", user.user_id), erase);
  $("person").replaceChildren(head, known(user), events(newest, names), ...slates(page.slates));
  return `${user.user_id}: ${user.interactions.length} interactions, ${page.slates.length}${page.next_cursor ? " or more" : ""} slates.`;
}

function known({ attributes }) {
  const told = Object.entries(attributes).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(", ") : value}`);
  return make("p", "note", told.join(" · ") || "No attributes.");
}

function events(newest, names) {
  const rows = newest.map((event, i) => {
    const cells = [event.domain, event.kind, event.value === null ? "–" : `${event.value}`, moment(event.occurred_at * 1000)];
    return make("tr", "", rowHead(names[i]), ...cells.map((cell) => make("td", "", cell)));
  });
  if (!rows.length) return make("p", "note", "No interactions.");
  return table("Newest interactions", ["item", "domain", "kind", "value", "when"], rows);
}

function slates(all) {
  if (!all.length) return [make("p", "note", "Nothing was shown to them.")];
  return all.map((slate) => {
    const rewarded = slate.items.filter((item) => item.reward !== null).length;
    const summary = make("summary", "", `${moment(slate.created_at * 1000)} · ${slate.domain} · ${slate.items.length} items by ${slate.policy.policy}${rewarded ? ` · ${rewarded} with a reward` : ""}`);
    const rows = slate.items.map((item) => {
      const marks = item.explored ? [" ", make("span", "badge found", "explored")] : [];
      const cells = [number(item.score, 2), item.propensity === null ? "–" : percent(item.propensity), item.reward === null ? "–" : `${item.reward}`];
      return make("tr", "", rowHead(item.title, ...marks), ...cells.map((cell) => make("td", "", cell)));
    });
    const parts = slate.parts.map((part) => `${part.recommender ?? part.role} ${percent(part.weight)}${part.ranking_weight ? `, in the order ${number(part.ranking_weight, 2)}` : ""}`);
    const list = table("Items of the slate", ["item", "expected", "chance", "reward"], rows);
    return make("details", "slate", summary, make("p", "note", `Weights: ${parts.join(" · ")}.`), list);
  });
}

/** Erase a user once their id is typed again. */
function ask(id, act) {
  const dialog = $("erase");
  const { typed } = $("erase-form").elements;
  $("erase-title").textContent = `Erase ${id}?`;
  typed.value = "";
  $("erase-go").disabled = true;
  typed.oninput = () => ($("erase-go").disabled = typed.value !== id);
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "go") return;
    act("people", `${id}: erasing`, async () => {
      await call(`/v1/users/${segment(id)}`, { method: "DELETE" });
      $("person").replaceChildren();
      return `${id} is erased.`;
    });
  };
  dialog.showModal();
}
