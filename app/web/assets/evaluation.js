// What the log says of what is in service, and of a checkpoint in its place.

import { count, make, number, percent, rowHead, table } from "./elements.js";
import { call } from "./service.js";

const NAMES = { ips: "inverse propensity", snips: "self-normalised", dr: "doubly robust" };
const $ = (id) => document.getElementById(id);

/** Ask the log, and show its answer. */
export async function evaluate(domain) {
  const { candidate, places } = $("evaluate").elements;
  const body = { domain, places: Number(places.value) };
  if (candidate.value) body.checkpoint = candidate.value;
  const told = await call("/v1/admin/evaluations", { method: "POST", body });
  $("verdict").replaceChildren(...shown(told, candidate.value));
  return sentence(told, candidate.value);
}

function sentence({ replayed, present, comparison }, name) {
  if (!present) return `${count(replayed, "slate")} could be replayed, none with a known propensity and a reward: explore a little, and post rewards.`;
  if (!name) return `${count(replayed, "slate")} replayed, worth ${Math.round(present.effective_samples)} places of its own.`;
  if (!comparison) return "The log does not tell of that checkpoint.";
  const { difference, low } = comparison;
  const surely = low > 0 ? "It earns more." : difference < 0 && low < 0 ? "It may earn less." : "The log cannot tell the two apart.";
  return `${surely} Difference a place ${number(difference, 4)}, at least ${number(low, 4)}.`;
}

function shown({ policies, present, candidate }, name) {
  const parts = [];
  const earned = policies.map((one) =>
    make("tr", "", rowHead(one.policy), ...[one.slates.toLocaleString("en"), one.judged.toLocaleString("en"), one.reward === null ? "–" : number(one.reward, 4)].map((cell) => make("td", "", cell))),
  );
  if (earned.length) parts.push(table("What each policy earned", ["shown by", "slates", "places with a reward", "earned a place"], earned));
  const values = [["in service", present], [name, candidate]].filter(([, value]) => value);
  if (!values.length) return parts;
  const ends = values.flatMap(([, value]) => value.estimates.flatMap(({ low, high }) => [low, high]));
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const at = (value) => (100 * (value - least)) / (most - least || 1);
  for (const [title, value] of values) {
    const rows = value.estimates.map((one) => {
      const [range, dot] = [make("i", "range"), make("i", "dot")];
      range.style.left = `${at(one.low)}%`;
      range.style.right = `${100 - at(one.high)}%`;
      dot.style.left = `${at(one.value)}%`;
      const bar = make("div", "interval", range, dot);
      bar.setAttribute("aria-hidden", "true");
      const clip = one.clip === null ? "" : `, weights to ${one.clip}`;
      return make("tr", "", rowHead(`${NAMES[one.estimator]}${clip}`), make("td", "", number(one.value, 4)), make("td", "", `${number(one.low, 4)} to ${number(one.high, 4)}`), make("td", "wide", bar));
    });
    parts.push(make("h3", "", title), make("p", "note", `${count(value.places, "place")}, worth ${Math.round(value.effective_samples)}; ${percent(value.invalid_share)} without a propensity.`));
    parts.push(table(`What ${title} earns a place`, ["estimate", "reward", "95 %", "interval"], rows));
  }
  return parts;
}
