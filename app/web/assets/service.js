// The public routes that the pages use, and what can go wrong with them.

import { authorization } from "./key.js";

/** What kept the service from answering. `passing`: whether it is worth trying again. */
export class Trouble extends Error {
  constructor(title, detail, passing) {
    super(title);
    this.detail = detail;
    this.passing = passing;
  }
}

/** The service wants a key, or one that may do more. */
export class Locked extends Trouble {}

/** The decoded answer of a route; null where it has no content. Throws Trouble, and AbortError where it is called off. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const request = { method, signal, headers: { Accept: "application/json", ...authorization() } };
  if (body) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(path, request);
    text = await response.text(); // a request may be called off, or a connection lost, after its headers too
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The service does not answer.", "Your answers are kept here.", true);
  }
  if (response.ok) return decoded(response, text);
  const answer = problem(text);
  const kind = [401, 403].includes(response.status) ? Locked : Trouble;
  throw new kind(answer.title ?? "The service cannot answer this.", said(answer), response.status >= 500);
}

const decoded = (response, text) => (response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : text || null);

/** The detail of a problem; of a validation error, what is wrong where. */
const said = ({ detail, errors }) =>
  detail ?? (errors ?? []).map(({ pointer, reason }) => `${pointer} ${reason}`).join("; ");

/** What a refusal says; nothing where it is not of this service. */
function problem(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

export const segment = encodeURIComponent;

const post = (path, body, signal) => call(path, { method: "POST", body, signal });

/** A slate of ten with why, for the evidence given. */
export const recommend = (domain, support, policy, signal) =>
  post("/v1/cold-start/recommendations", { domain, support, k: 10, exploration: { policy }, explain: true }, signal);

/** The items most worth asking about, best first. */
export const ask = (domain, support, skipped, n, signal) =>
  post("/v1/cold-start/questions", { domain, support, skipped, n }, signal);

/** Ratings to expect of items, with standard deviations. */
export const predict = (domain, support, items, signal) =>
  post("/v1/predictions", { domain, user: { support }, items }, signal);

/** The first items of a catalogue: always the same ones, whatever the answers. */
export const sample = (domain, limit, signal) => call(`/v1/items/${segment(domain)}?limit=${limit}`, { signal });

/** An item with its attributes. */
export const item = (domain, id, signal) => call(`/v1/items/${segment(domain)}/${segment(id)}`, { signal });

/** Whether requests will be answered. */
export const ready = () => call("/readyz");

const known = new Map(); // domain and id → title

/** The titles of items, [domain, id] each; the id of one that is no longer there. */
export const titles = (items, signal) =>
  Promise.all(
    items.map(async ([domain, id]) => {
      const name = `${domain}\n${id}`;
      if (!known.has(name)) known.set(name, await title(domain, id, signal));
      return known.get(name);
    }),
  );

async function title(domain, id, signal) {
  try {
    return (await item(domain, id, signal)).title;
  } catch (error) {
    if (error.passing === false && !(error instanceof Locked)) return id;
    throw error;
  }
}
