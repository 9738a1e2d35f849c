// What was asked of admin routes last, on the command line and by the service itself, without reads that were answered.

import { make, moment, rowHead, table } from "./elements.js";
import { call } from "./service.js";

const PAGE = 20;
const MOST = 1000;
const $ = (id) => document.getElementById(id);

let shown = PAGE;

/** Show the newest acts, as many as were asked for. */
export async function load({ signal }) {
  const { acts, next_cursor: older } = await call(`/v1/admin/audit?reads=false&limit=${shown}`, { signal });
  $("audit").replaceChildren(acts.length ? listed(acts) : make("p", "note", "Nothing is on record."));
  $("audit-more").hidden = older === null || shown >= MOST;
}

/** Show further back from the next look on. */
export function more() {
  shown = Math.min(shown + PAGE, MOST);
}

function listed(acts) {
  const rows = acts.map((act) => {
    const by = act.key_id ?? { COMMAND: "command line", SERVICE: "the service" }[act.method] ?? "nobody known";
    const what = act.method === "COMMAND" || act.method === "SERVICE" ? act.route : `${act.method} ${act.route}`;
    const told = act.status === null ? "not told" : act.problem ? `${act.status} ${act.problem}` : `${act.status}`;
    return make("tr", "", rowHead(moment(act.at * 1000)), make("td", "left", what), make("td", "left", by), make("td", "left", told));
  });
  return table("Acts on record", ["when", "<what", "<by", "<answer"], rows);
}
