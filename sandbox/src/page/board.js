// The kanban: columns with counts and robots, cards with the state of their newest message.

import { attr, byId, fill, follow, h, icon, say } from "./dom.js";
import { dragging } from "./drag.js";
import { SIGNS, named, number, phoneText, stateOf, sum, t } from "./words.js";

/** What a card's badge shows: `{state, label}`. */
export function badgeOf(card) {
  const told = card.note && stateOf(card.note.text);
  const works = card.run && card.run.state === "waiting" && card.run.finished_ms === null;
  if (works && (!card.note || card.note.updated_ms < card.run.started_ms)) return { state: "waiting", label: t("badge_waiting") };
  if (told) return told;
  return card.note ? { state: "note", label: t("badge_note") } : { state: "none", label: t("badge_none") };
}

export function drawBadge(node, badge) {
  node.dataset.state = badge.state;
  fill(node, SIGNS[badge.state] ? icon(SIGNS[badge.state]) : null, h("span", {}, badge.label));
}

/** Lines that say what a robot does: `[label, text]`. */
export function robotLines(robot) {
  const own = robot.properties;
  const one = (key) => (Array.isArray(own[key]) ? own[key].join(" · ") : String(own[key] ?? "")).trim();
  const lines = [];
  const add = (label, text) => text && lines.push([t(label), text]);
  add("robot_text", one("text"));
  add("robot_template", one("template"));
  add("robot_params", one("params"));
  if (one("text")) add("robot_fallback", one("fallback_template") || t("robot_no_fallback"));
  const wait = ["accepted", "delivered", "read"].includes(one("wait")) ? one("wait") : "accepted";
  add("robot_wait", t("wait_" + wait));
  return lines;
}

/** A small bubble below a node; one for the whole page. */
function tips() {
  const tip = byId("tip");
  let owner = null;
  const hide = () => {
    tip.hidden = true;
    attr(owner ?? tip, "aria-expanded", owner ? "false" : null);
    owner = null;
  };
  const show = (node, robots) => {
    if (owner && owner !== node) hide();
    owner = node;
    attr(node, "aria-expanded", "true");
    fill(tip, robots.map((robot) => [
      h("strong", {}, named(robot.name, robot.code)),
      h("dl", {}, robotLines(robot).map(([label, text]) => [h("dt", {}, label), h("dd", {}, text)])),
    ]));
    tip.hidden = false;
    const at = node.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left - 12, innerWidth - tip.offsetWidth - 8));
    tip.style.left = `${left}px`;
    tip.style.top = `${at.bottom + 8}px`;
  };
  addEventListener("keydown", (event) => event.key === "Escape" && !tip.hidden && (hide(), event.preventDefault()), true);
  addEventListener("pointerdown", (event) => owner && !owner.contains(event.target) && !tip.contains(event.target) && hide(), true);
  return { show, hide, owner: () => owner };
}

/** The menu "Move to stage": arrows, Home, End, Escape. */
function menus(app) {
  const menu = byId("menu");
  let owner = null;
  const close = (back) => {
    if (menu.hidden) return;
    menu.hidden = true;
    attr(owner, "aria-expanded", "false");
    if (back) owner?.focus({ preventScroll: true });
    owner = null;
  };
  const open = (button, card) => {
    if (owner === button) return close(true);
    close(false);
    owner = button;
    attr(button, "aria-expanded", "true");
    const pick = (stage) => {
      close(false);
      app.move(card.id, stage);
      requestAnimationFrame(() => document.querySelector(`[data-deal="${card.id}"] .more`)?.focus());
    };
    const items = app.page.portal.columns.map((column) =>
      h("button", {
        type: "button", role: "menuitem", tabindex: "-1", data: { to: column.stage_id },
        disabled: column.stage_id === card.stage_id, on: { click: () => pick(column.stage_id) },
      }, column.name, column.robots.length > 0 ? icon("robot") : null));
    fill(menu, h("p", {}, t("move_to")), items);
    attr(menu, "aria-label", t("move_to"));
    menu.hidden = false;
    const at = button.getBoundingClientRect();
    const below = at.bottom + menu.offsetHeight + 8 < innerHeight;
    menu.style.left = `${Math.max(8, Math.min(at.right - menu.offsetWidth, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = `${Math.max(8, below ? at.bottom + 4 : at.top - menu.offsetHeight - 4)}px`;
    menu.querySelector("button:not([disabled])")?.focus();
  };
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.querySelectorAll("button:not([disabled])")];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (step !== undefined) items[(step + items.length) % items.length]?.focus();
    else if (event.key === "Escape") close(true);
    else if (event.key === "Tab") return close(false);
    else return;
    event.preventDefault();
  });
  addEventListener("pointerdown", (event) => {
    if (!menu.contains(event.target) && !owner?.contains(event.target)) close(false);
  }, true);
  return { open, close };
}

export function boardView(app, root) {
  const tip = tips();
  const menu = menus(app);
  const robotsOf = new WeakMap();

  function makeColumn(column) {
    const list = h("ol", { class: "cards" });
    const button = h("button", { type: "button", class: "robot", "aria-expanded": "false", hidden: true }, icon("robot"));
    const show = () => tip.show(button, robotsOf.get(button) ?? []);
    // A finger has no hover: there a tap opens and closes.
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show());
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tip.hide());
    button.addEventListener("focus", () => button.matches(":focus-visible") && show());
    button.addEventListener("blur", tip.hide);
    button.addEventListener("click", () => (tip.owner() === button && !byId("tip").matches(":hover") ? null : show()));
    return h("section", { class: "column", data: { stage: column.stage_id } },
      h("header", {}, h("h2"), h("span", { class: "count" }), button),
      list,
      h("p", { class: "rest" }));
  }

  function drawColumn(node, column) {
    const [heading, count, button] = node.querySelector("header").children;
    say(heading, column.name);
    say(count, number(column.count));
    attr(node, "aria-label", t("column", { name: column.name, count: column.count }));
    node.dataset.end = column.semantics;
    robotsOf.set(button, column.robots);
    attr(button, "hidden", column.robots.length > 0 ? null : "");
    const what = column.robots.map((robot) => named(robot.name, robot.code)).join(", ");
    attr(button, "aria-label", t("robot_here", { stage: column.name, what }));
    const left = column.count - column.cards.length;
    say(node.querySelector(".rest"), left > 0 ? t("more_cards", { n: number(left) }) : column.count === 0 ? t("no_cards") : "");
    follow(node.querySelector(".cards"), column.cards, (card) => card.id, makeCard, drawCard);
  }

  function makeCard(card) {
    const more = h("button", { type: "button", class: "more", "aria-haspopup": "menu", "aria-expanded": "false" }, icon("dots"));
    const node = h("li", { class: "card", data: { deal: card.id } },
      h("button", { type: "button", class: "open" }),
      h("p", { class: "client" }),
      h("p", { class: "foot" }, h("span", { class: "sum" }), more),
      h("p", { class: "badge", data: { testid: "badge" } }));
    node.querySelector(".open").addEventListener("click", () => app.open(card.id));
    more.addEventListener("click", () => {
      const own = app.deals().find((deal) => deal.id === card.id);
      if (own) menu.open(more, own);
    });
    return node;
  }

  function drawCard(node, card, again) {
    const open = node.querySelector(".open");
    say(open, card.title);
    attr(open, "aria-label", t("open_card", { title: card.title }));
    say(node.querySelector(".client"), card.client || phoneText(card.phone));
    say(node.querySelector(".sum"), sum(card.opportunity, card.currency_id));
    attr(node.querySelector(".more"), "aria-label", t("move_menu", { title: card.title }));
    const badge = node.querySelector(".badge");
    const before = badge.dataset.state;
    drawBadge(badge, badgeOf(card));
    if (again && before !== badge.dataset.state) {
      badge.classList.remove("news");
      requestAnimationFrame(() => badge.classList.add("news"));
    }
  }

  function draw(columns) {
    follow(root, columns, (column) => column.stage_id, makeColumn, drawColumn);
    for (const node of root.querySelectorAll(".card")) {
      node.classList.toggle("chosen", app.tab === "card" && Number(node.dataset.deal) === app.deal);
    }
  }

  dragging(app, root, () => {
    tip.hide();
    menu.close(false);
  });
  return { draw, renew() {} };
}
