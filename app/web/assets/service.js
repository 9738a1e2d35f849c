// The public routes that the page uses, and what can go wrong with them.

/** What kept the service from answering. `passing`: whether it is worth trying again. */
export class Trouble extends Error {
  constructor(title, detail, passing) {
    super(title);
    this.detail = detail;
    this.passing = passing;
  }
}

async function call(path, body, signal) {
  const request = { signal, headers: { Accept: "application/json" } };
  if (body) {
    request.method = "POST";
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
  if (response.ok) return JSON.parse(text);
  const answer = problem(text);
  const passing = response.status >= 500;
  throw new Trouble(answer.title ?? "The service cannot answer this.", answer.detail ?? "", passing);
}

/** What a refusal says; nothing where it is not of this service. */
function problem(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const segment = encodeURIComponent;

/** A slate of ten with why, for the evidence given. */
export const recommend = (domain, support, policy, signal) =>
  call("/v1/cold-start/recommendations", { domain, support, k: 10, exploration: { policy }, explain: true }, signal);

/** The items most worth asking about, best first. */
export const ask = (domain, support, skipped, n, signal) =>
  call("/v1/cold-start/questions", { domain, support, skipped, n }, signal);

/** Ratings to expect of items, with standard deviations. */
export const predict = (domain, support, items, signal) =>
  call("/v1/predictions", { domain, user: { support }, items }, signal);

/** The first items of a catalogue: always the same ones, whatever the answers. */
export const sample = (domain, limit, signal) => call(`/v1/items/${segment(domain)}?limit=${limit}`, null, signal);

/** An item with its attributes. */
export const item = (domain, id, signal) => call(`/v1/items/${segment(domain)}/${segment(id)}`, null, signal);

/** Whether requests will be answered. */
export const ready = () => call("/readyz");
