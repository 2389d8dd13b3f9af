// The control API of the sandbox. Paths are below /control; errors are shown as they are told.

async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch("/control/" + path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error ?? String(answer.status));
  return said;
}

const part = encodeURIComponent;

export const api = {
  page: (portal, find) => call("GET", `page?per_stage=12&chats=30&portal=${part(portal ?? "")}&find=${part(find ?? "")}`),
  card: (portal, id) => call("GET", `portals/${part(portal)}/items/2/${id}`),
  move: (portal, ids, stage) => call("POST", `portals/${part(portal)}/move`, { ids, stage_id: stage }),
  add: (portal, items) => call("POST", `portals/${part(portal)}/items`, items),
  bulk: (portal, count, from, title) =>
    call("POST", `portals/${part(portal)}/bulk`, { count, phone_from: from, title }),
  chat: (phone) => call("GET", `phones/${part(phone)}?limit=200`),
  write: (phone, number, body) => call("POST", `phones/${part(phone)}/send`, { number, message: { type: "text", body } }),
  tap: (phone, number, wamid, caption) => call("POST", `phones/${part(phone)}/tap`, { number, wamid, caption }),
  traits: (phone, traits) => call("PATCH", `phones/${part(phone)}`, traits),
  addFault: (fault) => call("POST", "faults", fault),
  removeFault: (id) => call("DELETE", `faults/${id}`),
  clearFaults: () => call("DELETE", "faults"),
};
