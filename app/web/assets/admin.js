// The operator's page: looks at everything every few seconds, and does what a button says. It uses the public routes.

import * as audit from "./audit.js";
import * as checkpoints from "./checkpoints.js";
import { evaluate } from "./evaluation.js";
import * as exploration from "./exploration.js";
import { keep } from "./key.js";
import { find } from "./people.js";
import * as service from "./service.js";
import * as traffic from "./traffic.js";

const PAUSE = 5; // seconds between two looks
const $ = (id) => document.getElementById(id);

let round = null; // AbortController of the look that is under way
let next = 0; // timer of the next one

const domain = () => new FormData($("settings")).get("domain");

/** Look at everything. What can be had is shown, whatever else fails. */
async function look() {
  clearTimeout(next);
  round?.abort();
  round = new AbortController();
  const { signal } = round;
  const here = { domain: domain(), signal, act };
  const sections = [traffic, audit, ...(here.domain ? [checkpoints, exploration] : [])];
  const outcomes = await Promise.allSettled(sections.map((section) => section.load(here)));
  if (signal.aborted) return;
  const failures = outcomes.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  trouble(failures);
  $("sections").setAttribute("aria-busy", "false");
  next = setTimeout(() => (document.hidden ? null : look()), PAUSE * 1000);
}

function trouble(failures) {
  const locked = failures.find((failure) => failure instanceof service.Locked);
  const worst = locked ? null : failures[0];
  if (worst && !(worst instanceof service.Trouble)) throw worst;
  $("lock").hidden = !locked;
  $("lock-said").textContent = locked ? `${locked.message} ${locked.detail}` : "";
  $("trouble").hidden = !worst;
  $("trouble-title").textContent = worst?.message ?? "";
  $("trouble-detail").textContent = worst ? `${worst.passing ? "What is below is as it was." : worst.detail} Looking again every few seconds.` : "";
  document.body.classList.toggle("away", Boolean(worst));
}

/** Do something, say in its section that it is under way and how it went, then look again. */
async function act(section, under, work) {
  const said = $(`${section}-said`);
  said.className = "said";
  said.textContent = `${under} …`;
  try {
    said.textContent = await work();
    said.classList.add("done");
  } catch (error) {
    if (!(error instanceof service.Trouble)) throw error;
    said.textContent = `${error.message} ${error.detail}`;
    said.classList.add("refused");
    if (error instanceof service.Locked) trouble([error]);
  }
  await look();
}

function start() {
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "dialog") event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => document.hidden || look());
  $("retry").addEventListener("click", look);
  $("audit-more").addEventListener("click", () => {
    audit.more();
    look();
  });
  $("settings").addEventListener("change", () => {
    $("verdict")?.replaceChildren();
    for (const said of document.querySelectorAll(".said")) said.textContent = "";
    look();
  });
  $("lock-form").addEventListener("submit", () => {
    keep($("lock-form").elements.key.value.trim());
    $("lock-form").reset();
    look();
  });
  $("explore")?.addEventListener("change", exploration.suit);
  $("explore")?.addEventListener("submit", () => act("exploration", "Changing", () => exploration.put(domain())));
  $("evaluate")?.addEventListener("submit", () => act("evaluation", "Reading the log", () => evaluate(domain())));
  $("find").addEventListener("submit", () => {
    const id = $("find").elements.user.value;
    act("people", `Looking for ${id}`, () => find(id, act));
  });
  look();
}

start();
