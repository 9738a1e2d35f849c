// What comes in and how it is answered: the last minute in figures, and since the start by how much is known of users.

import { count, duration, make, number, percent, rowHead, table } from "./elements.js";
import { distribution, parse, quantile, since, sum } from "./metrics.js";
import { call } from "./service.js";

const MINUTE = 60;
const EVIDENCE = ["0", "1-4", "5-19", "20+"];
const SPACE = "http://www.w3.org/2000/svg";

const looks = []; // {at, samples}, of the last minute and one before
const past = new Map(); // name of a figure → its values, oldest first

const asked = ({ route }) => route.startsWith("/v1/") && !route.startsWith("/v1/admin/"); // not what this page asks
const refused = (labels) => asked(labels) && ["429", "503", "504"].includes(labels.status);
const failed = (labels) => asked(labels) && labels.status === "500";

/** Look at the metrics again, and show them. */
export async function load({ signal }) {
  const samples = parse(await call("/metrics", { signal }));
  const at = performance.now() / 1000;
  looks.push({ at, samples });
  while (looks.length > 2 && looks[1].at <= at - MINUTE) looks.shift();
  document.getElementById("figures").replaceChildren(...figures(looks[0], looks.at(-1)));
  document.getElementById("evidence").replaceChildren(evidence(samples));
  document.getElementById("routes").replaceChildren(routes(samples));
}

function figures(first, now) {
  const change = (name, wanted) => sum(now.samples, name, wanted) - (first === now ? 0 : sum(first.samples, name, wanted));
  const requests = "warmstart_request_seconds";
  const answered = change(`${requests}_count`, asked);
  const times = distribution(now.samples, requests, asked);
  const recent = first === now ? times : since(times, distribution(first.samples, requests, asked));
  const lists = change("warmstart_answer_seconds_count");
  const share = (source) => (lists ? change("warmstart_answer_seconds_count", (labels) => labels.source === source) / lists : null);
  const rate = first === now ? null : answered / (now.at - first.at);
  const shown = (value, text) => (value === null ? "–" : text(value));
  document.getElementById("window").textContent = first === now ? "since the start" : `the last ${count(Math.ceil(now.at - first.at), "second")}`;
  return [
    figure("requests a second", rate, shown(rate, (value) => number(value, value < 10 ? 1 : 0))),
    figure("half within", quantile(recent, 0.5), duration(quantile(recent, 0.5))),
    figure("99 % within", quantile(recent, 0.99), duration(quantile(recent, 0.99))),
    figure("states from the cache", share("cache"), shown(share("cache"), percent)),
    figure("lists by fallback", share("fallback"), shown(share("fallback"), percent)),
    figure("refused", change(`${requests}_count`, refused), `${change(`${requests}_count`, refused)}`),
    figure("failed", change(`${requests}_count`, failed), `${change(`${requests}_count`, failed)}`),
    figure("waiting", sum(now.samples, "warmstart_queue_length"), `${sum(now.samples, "warmstart_queue_length")}`),
  ];
}

function figure(name, value, text) {
  const values = past.get(name) ?? [];
  past.set(name, [...values, value].slice(-MINUTE));
  return make("div", "figure", make("dt", "", name), make("dd", "", text, line(past.get(name))));
}

/** A line through the latest values, for the eye only: the figure stands beside it. */
function line(values) {
  const image = document.createElementNS(SPACE, "svg");
  image.setAttribute("viewBox", "0 0 100 24");
  image.setAttribute("preserveAspectRatio", "none");
  image.setAttribute("aria-hidden", "true");
  const known = values.map((value) => value ?? 0);
  const most = Math.max(...known, 1e-9);
  const points = known.map((value, i) => `${(100 * i) / Math.max(1, known.length - 1)},${23 - (21 * value) / most}`);
  const drawn = document.createElementNS(SPACE, "polyline");
  drawn.setAttribute("points", points.join(" "));
  image.append(drawn);
  return image;
}

function evidence(samples) {
  const name = "warmstart_answer_seconds";
  const total = sum(samples, `${name}_count`);
  const rows = EVIDENCE.map((known) => {
    const here = (labels) => labels.evidence === known;
    const lists = sum(samples, `${name}_count`, here);
    const of = (source) => (lists ? percent(sum(samples, `${name}_count`, (labels) => here(labels) && labels.source === source) / lists) : "–");
    const times = distribution(samples, name, here);
    const cells = [lists.toLocaleString("en"), total ? percent(lists / total) : "–", duration(quantile(times, 0.5)), duration(quantile(times, 0.99)), of("cache"), of("fallback")];
    const title = known === "0" ? "nothing" : known.replace("-", " to ").replace("20+", "20 or more");
    return make("tr", "", rowHead(title), ...cells.map((cell) => make("td", "", cell)));
  });
  return table("Lists by interactions known of the user", ["interactions known", "lists", "share", "half within", "99 % within", "cache", "fallback"], rows);
}

function routes(samples) {
  const name = "warmstart_request_seconds";
  const kinds = new Set((samples.get(`${name}_count`) ?? []).map(({ labels }) => `${labels.method} ${labels.route}`));
  const rows = [...kinds].map((kind) => {
    const here = ({ method, route }) => `${method} ${route}` === kind;
    const times = distribution(samples, name, here);
    const requests = sum(samples, `${name}_count`, here);
    const bad = sum(samples, `${name}_count`, (labels) => here(labels) && Number(labels.status) >= 400);
    return { kind, requests, bad, half: quantile(times, 0.5), most: quantile(times, 0.99) };
  });
  rows.sort((a, b) => b.requests - a.requests);
  const shown = rows.map(({ kind, requests, bad, half, most }) => {
    const cells = [requests.toLocaleString("en"), bad.toLocaleString("en"), duration(half), duration(most)];
    return make("tr", "", rowHead(make("code", "", kind)), ...cells.map((cell) => make("td", "", cell)));
  });
  return table(count(rows.length, "route"), ["route", "requests", "refused or failed", "half within", "99 % within"], shown);
}
