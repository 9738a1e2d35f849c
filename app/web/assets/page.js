// The page: asks, keeps the answers, and shows what each of them does to the list.

import { draw } from "./chart.js";
import { count, make, number, percent } from "./elements.js";
import { keep } from "./key.js";
import { Profile, nearest, words } from "./profile.js";
import { because, show } from "./ranking.js";
import * as service from "./service.js";

const $ = (id) => document.getElementById(id);
const SAMPLE = 50;
const PATIENCE = [2, 4, 8, 15]; // seconds between attempts while the service is away

const profiles = new Map();
const items = new Map(); // domain and id → what the catalogue says of an item
const staying = new Set(); // domains whose answers are not to be brought along
let profile = null;
let asked = null;
let round = null; // AbortController of the answer that is under way
let waiting = 0; // timer of the next attempt
let attempts = 0;

const policy = () => new FormData($("settings")).get("policy");
const others = () => [...profiles.values()].filter((other) => other !== profile && other.answers.length);
const brought = () => others().filter((other) => !staying.has(other.domain));
const support = () => [...brought().flatMap((other) => other.support), ...profile.support];

/** Ask for everything that follows from the answers, and show it as it comes. */
async function refresh(said = "") {
  round?.abort();
  round = new AbortController();
  clearTimeout(waiting);
  const { signal } = round;
  const here = profile;
  const given = support();
  busy(true);
  try {
    const questions = service.ask(here.domain, given, here.unknown, Math.min(50, here.aside.length + 1), signal);
    questions.catch(() => {}); // awaited below, unless the list fails first
    const slate = await service.recommend(here.domain, given, policy(), signal);
    const moved = list(slate);
    const next = (await questions).questions.find((question) => !here.aside.includes(question.item_id));
    question(next);
    reachable();
    announce(said, slate, moved, next);
    busy(false);
    await Promise.all([learnt(here, slate, given, signal), explain(here, slate, signal), describe(here, next, signal)]);
  } catch (error) {
    if (error.name !== "AbortError") unreachable(error);
  }
}

function busy(yes) {
  for (const id of ["question", "ranking"]) $(id).setAttribute("aria-busy", String(yes));
}

/* ------------------------------------------------------------------ the question */

function scale() {
  const steps = profile.steps;
  const buttons = steps.map((value) => {
    const button = make("button", "", `${Math.round(value * 100) / 100}`);
    button.type = "button";
    button.dataset.value = value;
    button.setAttribute("aria-label", `${button.textContent} of ${profile.max}`);
    return button;
  });
  $("scale").replaceChildren(...buttons);
}

function question(next) {
  asked = next ?? null;
  $("asked-number").textContent = `Question ${profile.answers.length + profile.unknown.length + profile.aside.length + 1}`;
  $("asking").hidden = !asked;
  $("asked-meta").textContent = "\u00a0";
  $("asked-title").textContent = asked ? asked.title : "No more questions.";
  const settles = asked?.reduction >= 0.005 ? `An answer would settle ${percent(asked.reduction)} of what is still open about your taste.` : "";
  $("asked-why").textContent = asked ? settles : "Everything here has been asked. The list stands.";
  $("asked-why").hidden = !$("asked-why").textContent;
}

function answer(value) {
  if (!asked || $("question").getAttribute("aria-busy") === "true") return;
  const { title } = asked;
  if (value === "unknown") profile.unknown.push(asked.item_id);
  else if (value === "skip") profile.aside.push(asked.item_id);
  else profile.answer(asked, value);
  answers();
  const said = value === "unknown" ? `You do not know ${title}.` : value === "skip" ? `Skipped ${title}.` : `${title}: ${value}.`;
  refresh(said);
}

async function describe(here, next, signal) {
  if (!next) return;
  const found = await look(here, next.item_id, signal);
  if (asked === next) $("asked-meta").textContent = found.words.slice(0, 4).join(", ") || "\u00a0";
}

/* ---------------------------------------------------------------------- the list */

function list(slate) {
  const { parts, fallback } = slate;
  const empty = slate.items.length === 0;
  const moved = show($("ranking"), slate, profile);
  $("nothing").hidden = !empty;
  if (empty) nothing();
  const rating = parts.filter((part) => part.role !== "ranking" && part.weight > 0).sort((a, b) => b.weight - a.weight);
  const order = parts.filter((part) => part.ranking_weight > 0).sort((a, b) => b.ranking_weight - a.ranking_weight);
  const shares = rating.map((part) => `${part.recommender} ${percent(part.weight)}`).join(", ");
  $("blend").textContent = fallback
    ? `No trained recommender here yet: content and live counts answer.`
    : `Ratings by ${shares}.${order.length ? ` Order by ${order.map((part) => part.recommender).join(", ")}.` : ""}`;
  const explored = slate.items.filter((item) => item.explored).length;
  const basis = count(support().length, "answer");
  $("list-state").textContent = explored ? `${basis}, ${explored} explored` : `from ${basis}`;
  return moved;
}

function nothing() {
  const rated = profile.answers.length > 0;
  $("nothing-title").textContent = rated ? "Nothing left to recommend." : "Nothing to recommend yet.";
  $("nothing-detail").textContent = rated
    ? "You have rated everything in this catalogue. Take an answer back to see it again."
    : "This catalogue has no items. Put some with POST /v1/items; they can be recommended at once.";
}

async function look(here, id, signal) {
  const key = `${here.domain}\n${id}`;
  if (!items.has(key)) {
    const found = await service.item(here.domain, id, signal);
    items.set(key, { ...found, words: words(found.attributes, here.kinds) });
  }
  return items.get(key);
}

/** Say of each entry what it is, and which rated items it is most like. */
async function explain(here, slate, signal) {
  const rated = [here, ...brought()].flatMap((from) => from.answers.map((given) => [from, given]));
  const [entries, ratings] = await Promise.all([
    Promise.all(slate.items.map((item) => look(here, item.item_id, signal))),
    Promise.all(rated.map(async ([from, given]) => ({ answer: given, words: (await look(from, given.item_id, signal)).words }))),
  ]);
  if (signal.aborted) return;
  for (const item of entries) because($("ranking"), item.item_id, nearest(item, ratings), item.words);
}

/* ---------------------------------------------------------------- what was learnt */

async function learnt(here, slate, given, signal) {
  if (!here.sample) {
    const page = await service.sample(here.domain, SAMPLE, signal);
    here.sample = page.items.map((item) => item.item_id);
    for (const item of page.items) items.set(`${here.domain}\n${item.item_id}`, { ...item, words: words(item.attributes, here.kinds) });
  }
  const foretold = here.sample.length ? (await service.predict(here.domain, given, here.sample, signal)).predictions : [];
  if (signal.aborted) return;
  here.record(slate.parts, foretold);
  plot();
}

function plot() {
  const told = sentence(profile.history);
  $("learnt").textContent = told;
  draw($("chart"), profile.history, told);
}

function sentence(history) {
  const now = history.at(-1);
  if (!now) return "Each answer adds a point.";
  const sure = now.std === null ? "It cannot say how sure it is." : `A typical title is foretold within ± ${number(now.std, 2)}.`;
  if (now.before === null) return now.count ? sure : `${sure} Each answer adds a point.`;
  return `${sure} On your own answers it was off by ${number(now.before, 2)} as a stranger, and is by ${number(now.after, 2)} knowing you.`;
}

/* ------------------------------------------------------------- answers and domains */

function answers() {
  $("answers").hidden = profile.answers.length + profile.unknown.length + profile.aside.length === 0;
  const rows = profile.answers.toReversed().map((given) => {
    const remove = make("button", "quiet remove", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Take back ${given.title}`);
    remove.addEventListener("click", () => {
      profile.forget(given.item_id);
      answers();
      $("answers-title").focus();
      refresh(`Took back ${given.title}.`);
    });
    return make("li", "", make("span", "", given.title), make("b", "", `${Math.round(given.value * 100) / 100}`), remove);
  });
  $("answered").replaceChildren(...rows);
  const unsaid = profile.unknown.length;
  if (unsaid) $("answered").append(make("li", "unsaid", `${unsaid} you do not know`));
}

/** Offer what was said in other domains. */
function bring() {
  const from = others();
  $("bring").hidden = from.length === 0;
  const offers = from.map((other) => {
    const box = make("input");
    box.type = "checkbox";
    box.checked = !staying.has(other.domain);
    box.addEventListener("change", () => {
      staying[box.checked ? "delete" : "add"](other.domain);
      refresh(box.checked ? `With your answers in ${other.title}.` : `Without your answers in ${other.title}.`);
    });
    return make("label", "switch", box, make("span", "", `bring along your ${count(other.answers.length, "answer")} in ${other.title}`));
  });
  $("bring").replaceChildren(...offers);
}

function enter(domain) {
  profile = profiles.get(domain);
  $("ranking").replaceChildren();
  scale();
  answers();
  bring();
  plot();
}

/* -------------------------------------------------------------- trouble, and the end of it */

function unreachable(trouble) {
  if (!(trouble instanceof service.Trouble)) throw trouble;
  if (trouble instanceof service.Locked) return lock(trouble);
  const wait = PATIENCE[Math.min(attempts, PATIENCE.length - 1)];
  attempts += 1;
  $("trouble-title").textContent = trouble.message;
  $("trouble-detail").textContent = trouble.passing ? `${trouble.detail} Trying again every few seconds.` : trouble.detail;
  $("trouble").hidden = false;
  document.body.classList.add("away");
  if (trouble.passing) waiting = setTimeout(retry, wait * 1000);
}

/** Ask for a key, or for another one; the answer that is under way is asked for again with it. */
function lock(refusal) {
  const again = $("lock").hidden === false;
  $("lock-said").textContent = again ? `${refusal.message} ${refusal.detail}` : "";
  $("lock").hidden = false;
  $("lock-form").elements.key.focus();
  document.body.classList.add("away");
  busy(false);
}

function reachable() {
  attempts = 0;
  $("lock").hidden = true;
  $("trouble").hidden = true;
  document.body.classList.remove("away");
}

function retry() {
  if (profile) return refresh();
  return service.ready().then(() => location.reload(), unreachable);
}

function announce(said, slate, moved, next) {
  const first = slate.items[0];
  const change = moved ? `${count(moved, "place")} of the list changed` : "The list stays as it is";
  $("announcement").textContent = said
    ? `${said} ${first ? `${change}; first is ${first.title}.` : "The list is empty."} ${next ? `Next: ${next.title}?` : ""}`
    : "";
}

/* ------------------------------------------------------------------------- start */

function start() {
  for (const { value, dataset, nextElementSibling } of document.querySelectorAll("input[name=domain]")) {
    const kinds = Object.fromEntries(dataset.kinds.split(" ").filter(Boolean).map((pair) => pair.split(":")));
    const title = nextElementSibling.textContent;
    profiles.set(value, new Profile({ domain: value, title, min: +dataset.min, max: +dataset.max, kinds }));
  }
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("change", ({ target }) => {
    if (target.name === "domain") enter(target.value);
    if (target.name) refresh(target.name === "domain" ? `${profile.title}.` : `Chosen ${target.nextElementSibling.textContent}.`);
  });
  $("scale").addEventListener("click", ({ target }) => target.dataset.value && answer(Number(target.dataset.value)));
  $("unknown").addEventListener("click", () => answer("unknown"));
  $("skip").addEventListener("click", () => answer("skip"));
  $("question").addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = profile.steps.find((value) => String(value) === event.key);
    if (step !== undefined) answer(step);
  });
  $("restart").addEventListener("click", () => {
    profile.restart();
    enter(profile.domain);
    $("scale").firstElementChild.focus();
    refresh("Started over.");
  });
  new ResizeObserver(() => draw($("chart"), profile.history, $("learnt").textContent)).observe($("chart"));
  enter(new FormData($("settings")).get("domain"));
  refresh();
}

$("retry").addEventListener("click", retry);
$("lock-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("lock-form").elements.key.value.trim());
  $("lock-form").reset();
  refresh();
});
if (document.body.dataset.state === "ready") start();
if (document.body.dataset.state === "unavailable") waiting = setTimeout(retry, 1000 * PATIENCE[0]);
