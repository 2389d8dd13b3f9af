// Small helpers to build the page. Text always becomes text nodes: nothing here turns a string into markup.

/** Makes an element. `props`: `on` = listeners, `data` = data attributes, everything else = attributes. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "data") {
      for (const [key, own] of Object.entries(value)) node.dataset[key] = own;
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  put(node, children);
  return node;
}

function put(node, children) {
  for (const child of children.flat(4)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces everything inside a node. */
export function fill(node, ...children) {
  node.replaceChildren();
  put(node, children);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets the text of a node if it differs, so that screen readers and selections are left alone. */
export function say(node, text) {
  const now = String(text ?? "");
  if (node.textContent !== now) node.textContent = now;
}

/** Sets or takes away an attribute if it differs. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/**
 * Makes the children of `parent` follow a list: nodes are kept by key, moved only if needed, and redrawn by `draw` only
 * when their item's JSON has changed.
 */
export function follow(parent, items, keyOf, make, draw) {
  const old = new Map();
  for (const node of parent.children) old.set(node.dataset.key, node);
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = old.get(key);
    old.delete(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    const print = JSON.stringify(item);
    if (node.print !== print) {
      draw(node, item, node.print !== undefined);
      node.print = print;
    }
    if (node === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(node, at);
    }
  }
  for (const node of old.values()) node.remove();
}

/** Forgets what was drawn, so that the next `follow` draws everything anew (another language). */
export function forget(root) {
  for (const node of root.querySelectorAll("[data-key]")) node.print = undefined;
}

const SHAPES = {
  back: ["M15 5l-7 7 7 7"],
  ban: ["M12 3a9 9 0 100 18 9 9 0 000-18z", "M6 6l12 12"],
  board: ["M4 5h4v14H4z", "M10 5h4v9h-4z", "M16 5h4v12h-4z"],
  bolt: ["M13 3L5 14h6l-1 7 8-11h-6z"],
  card: ["M4 5h16v14H4z", "M7 9h10", "M7 13h7", "M7 16h4"],
  chat: ["M4 5h16v11H10l-5 4v-4H4z"],
  clock: ["M12 4a8 8 0 100 16 8 8 0 000-16z", "M12 8v4l3 2"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  doc: ["M7 3h7l4 4v14H7z", "M14 3v4h4", "M10 12h5", "M10 16h5"],
  dots: ["M6 12h.01", "M12 12h.01", "M18 12h.01"],
  image: ["M4 5h16v14H4z", "M4 16l5-5 4 4 2-2 5 4", "M15.500 9h.01"],
  mark: ["M12 4a8 8 0 100 16 8 8 0 000-16z", "M12 8v5", "M12 16h.01"],
  off: ["M4 4l16 16", "M5 10a10 10 0 014-2", "M15 8a10 10 0 014 2", "M9 14a5 5 0 016 0", "M12 18h.01"],
  phone: ["M8 3h8a1 1 0 011 1v16a1 1 0 01-1 1H8a1 1 0 01-1-1V4a1 1 0 011-1z", "M11 18h2"],
  place: ["M12 21c4-5 6-8 6-11a6 6 0 10-12 0c0 3 2 6 6 11z", "M12 10h.01"],
  plus: ["M12 5v14", "M5 12h14"],
  robot: ["M6 9h12v10H6z", "M12 5v4", "M9.500 13v1.500", "M14.500 13v1.500", "M3 13v3", "M21 13v3", "M12 4.500h.01"],
  send: ["M4 12l16-8-5 16-4-6z", "M11 14l9-10"],
  sound: ["M5 10v4", "M9 7v10", "M13 9v6", "M17 5v14"],
  tick: ["M5 13l4 4L18 7"],
  ticks: ["M1.500 13l4 4L14.500 7", "M10 16l1 1L20.500 7"],
  unseen: ["M3 12c3-5 6-7 9-7s6 2 9 7c-3 5-6 7-9 7s-6-2-9-7z", "M4 4l16 16"],
  what: ["M12 4a8 8 0 100 16 8 8 0 000-16z", "M9.800 10a2.300 2.300 0 114 1.500c-1 .9-1.800 1.200-1.800 2.300", "M12 16.500h.01"],
};
const SVG = "http://www.w3.org/2000/svg";

/** A drawn sign; says nothing to screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon i-" + name);
  for (const shape of SHAPES[name] ?? []) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", shape);
    svg.append(path);
  }
  return svg;
}

/** A short note at the edge of the page. */
export function toast(text, bad) {
  const note = h("p", { class: bad ? "toast bad" : "toast" }, text);
  byId("toasts").append(note);
  setTimeout(() => note.remove(), bad ? 8000 : 4000);
}
