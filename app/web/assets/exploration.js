// How a domain explores, what its policies have shown, and what came of it.

import { make, number, rowHead, table } from "./elements.js";
import { call, titles } from "./service.js";

const PAGE = 1000;
const PAGES = 5;
const SHOWN = 15;
const $ = (id) => document.getElementById(id);

/** Show how a domain explores, and its arms. */
export async function load({ domain, signal }) {
  const [settings, { arms, more }] = await Promise.all([call("/v1/admin/exploration", { signal }), all(domain, signal)]);
  const here = settings.find((one) => one.domain === domain);
  if (!$("explore").contains(document.activeElement)) fill(here);
  await tell(domain, arms, more, signal);
}

async function all(domain, signal) {
  const arms = [];
  let cursor = null;
  for (let page = 0; page < PAGES; page += 1) {
    const query = new URLSearchParams({ domain, limit: PAGE, ...(cursor && { cursor }) });
    const got = await call(`/v1/admin/arms?${query}`, { signal });
    arms.push(...got.arms);
    cursor = got.next_cursor;
    if (!cursor) break;
  }
  return { arms, more: Boolean(cursor) };
}

function fill({ exploration, reward_wait_seconds: wait, default_reward: reward }) {
  const form = $("explore");
  form.dataset.settings = JSON.stringify({ exploration, wait, reward });
  form.elements.policy.value = exploration.policy;
  form.elements.epsilon.value = exploration.epsilon ?? 0;
  form.elements.wait.value = wait ?? "";
  form.elements.reward.value = reward;
  suit();
}

/** Greedy has no share at random. */
export function suit() {
  const { policy, epsilon } = $("explore").elements;
  epsilon.disabled = policy.value === "greedy";
}

/** Have the domain explore as the form says; settings that it does not show stay. */
export async function put(domain) {
  const { policy, epsilon, wait, reward } = $("explore").elements;
  const before = JSON.parse($("explore").dataset.settings).exploration;
  const exploration = before.policy === policy.value ? { ...before } : { policy: policy.value };
  if (policy.value !== "greedy") exploration.epsilon = Number(epsilon.value);
  const body = { domain, exploration, reward_wait_seconds: wait.value ? Number(wait.value) : null, default_reward: Number(reward.value) };
  const { exploration: now } = await call("/v1/admin/exploration", { method: "PUT", body });
  return `${domain} explores by ${now.policy} from the next request on, on every worker.`;
}

async function tell(domain, arms, more, signal) {
  const shows = arms.reduce((total, arm) => total + arm.shows, 0);
  const judged = arms.reduce((total, arm) => total + arm.judged, 0);
  const items = new Set(arms.map((arm) => arm.item_id)).size;
  const least = more ? "at least " : "";
  $("arms-said").textContent = arms.length
    ? `${least}${shows.toLocaleString("en")} places, ${items.toLocaleString("en")} different items, ${judged.toLocaleString("en")} with a reward. The most shown:`
    : "Nothing has been shown here yet.";
  const most = arms.toSorted((a, b) => b.shows - a.shows).slice(0, SHOWN);
  const names = await titles(most.map((arm) => [domain, arm.item_id]), signal);
  $("arms").replaceChildren(...(most.length ? [listed(most, names)] : []));
}

function listed(arms, names) {
  const best = Math.max(...arms.map((arm) => (arm.judged ? arm.reward / arm.judged : 0)), 1e-9);
  const rows = arms.map((arm, i) => {
    const mean = arm.judged ? arm.reward / arm.judged : null;
    const cells = [arm.policy, arm.shows.toLocaleString("en"), arm.judged.toLocaleString("en")].map((cell) => make("td", "", cell));
    const bar = make("meter");
    bar.max = best;
    bar.value = Math.max(0, mean ?? 0);
    bar.setAttribute("aria-hidden", "true");
    return make("tr", "", rowHead(names[i]), ...cells, make("td", "measured", mean === null ? "–" : number(mean, 3), bar));
  });
  return table("Items as the policies know them", ["item", "policy", "shown", "with a reward", "mean reward"], rows);
}
