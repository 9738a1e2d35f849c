// What serves a domain, what else there is on disk, and how to change it.

import { button, make, moment, rowHead, table } from "./elements.js";
import { call } from "./service.js";

const ROLES = ["content", "collaborative", "adaptive", "transfer", "ranking"];
const $ = (id) => document.getElementById(id);

/** Show the checkpoints of a domain; `act` runs what a button stands for and tells how it went. */
export async function load({ domain, signal, act }) {
  const listed = await call("/v1/admin/checkpoints", { signal });
  const of = new Map();
  for (const one of listed) for (const where of one.serving) if (where.domain === domain) of.set(where.role, one);
  const roles = [...ROLES.filter((role) => of.has(role)), ...[...of.keys()].filter((role) => !ROLES.includes(role))];
  $("serving").replaceChildren(roles.length ? serving(domain, roles, of, act) : make("p", "note", "No checkpoint serves here: content and live counts answer."));
  const rest = listed.filter((one) => one.problem || (one.domains.includes(domain) && ![...of.values()].includes(one)));
  $("on-disk").hidden = rest.length === 0;
  $("stock").replaceChildren(stock(domain, rest, act));
  offer(listed.filter((one) => !one.problem && one.domains.includes(domain)));
}

function serving(domain, roles, of, act) {
  const rows = roles.map((role) => {
    const one = of.get(role);
    const back = button("quiet", "Roll back", () =>
      act("checkpoints", `${role}: rolling back`, async () => {
        const done = await call("/v1/admin/checkpoints/rollback", { method: "POST", body: { domain, role } });
        return `${done.checkpoint} serves ${role} again.`;
      }),
    );
    back.setAttribute("aria-label", `Roll back ${role}`);
    return make("tr", "", rowHead(role), make("td", "left", described(one)), make("td", "left", metrics(one)), make("td", "", back));
  });
  return table("Checkpoints in service", ["role", "<checkpoint", "<on validation", "change"], rows);
}

function stock(domain, listed, act) {
  const rows = listed.map((one) => {
    const name = rowHead(...described(one).childNodes);
    if (one.problem) return make("tr", "", name, make("td", "left", one.problem), make("td"));
    const load = button("quiet", "Put in service", () => ask(domain, one, act));
    load.setAttribute("aria-label", `Put ${one.checkpoint} in service`);
    return make("tr", "", name, make("td", "left", metrics(one)), make("td", "", load));
  });
  return table("Checkpoints on disk that do not serve here", ["checkpoint", "<on validation", "change"], rows);
}

function described(one) {
  const made = one.created ? make("small", "", `${one.recommender}, ${moment(one.created)}`) : make("small", "", "cannot be served");
  return make("span", "", make("span", "id", one.checkpoint), made);
}

function metrics({ metrics: all }) {
  const told = Object.entries(all).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`);
  return told.slice(0, 4).join(", ") || "–";
}

/** Ask how a checkpoint is to be put in service, then do it. */
function ask(domain, one, act) {
  $("reload-title").textContent = one.checkpoint;
  $("reload-role").value = one.role ?? "";
  $("reload-gate").checked = false;
  const dialog = $("reload");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "go") return;
    const body = { domain, checkpoint: one.checkpoint, role: $("reload-role").value };
    if ($("reload-gate").checked) body.gate = { confidence: 0.95 };
    act("checkpoints", `${one.checkpoint}: loading`, async () => {
      const done = await call("/v1/admin/checkpoints/reload", { method: "POST", body });
      return `${done.checkpoint} serves ${done.role} now${done.previous ? `, in place of ${done.previous}` : ""}.`;
    });
  };
  dialog.showModal();
}

/** What the log can be asked about: the checkpoints of the domain. */
function offer(listed) {
  const chosen = $("candidate").value;
  const options = listed.map((one) => new Option(one.checkpoint, one.checkpoint));
  $("candidate").replaceChildren(new Option("nothing else", ""), ...options);
  if (listed.some((one) => one.checkpoint === chosen)) $("candidate").value = chosen;
}
