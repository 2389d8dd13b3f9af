// The page of the sandbox: a board of deals, a card, a client's phone, and ways to break things.

import { api } from "./api.js";
import { boardView } from "./board.js";
import { cardView } from "./card.js";
import { attr, byId, fill, follow, forget, h, icon, say, toast } from "./dom.js";
import { live } from "./live.js";
import { dealView, labView } from "./panels.js";
import { phoneView } from "./phone.js";
import { choose, digits, lang, number, stateOf, t } from "./words.js";

const PANELS = ["card", "lab", "new"];
const TABS = [["board", "board"], ["card", "card"], ["phone", "phone"], ["lab", "bolt"]];
const narrow = matchMedia("(max-width: 860px)");

const app = {
  page: null,
  tab: "board",
  deal: null,
  card: null,
  chat: null,
  talk: null,
  find: "",
  /** A card is being dragged: the board holds still. */
  dragging: false,
  /** The deal whose news are read out. */
  watched: null,
  /** Clock of the sandbox minus ours. */
  skew: 0,

  now: () => Date.now() + app.skew,
  portal: () => app.page?.portal?.member_id,
  deals: () => (app.page?.portal?.columns ?? []).flatMap((column) => column.cards),
  column: (stage) => app.page?.portal?.columns.find((column) => column.stage_id === stage),

  /** Shows a panel or tab; focus goes along. */
  go(tab, focus = true) {
    const from = app.tab;
    app.tab = tab;
    document.body.dataset.tab = tab;
    draw();
    if (!focus) return;
    const panel = byId("panel");
    if (PANELS.includes(tab)) panel.focus({ preventScroll: true });
    else if (tab === "phone") byId("phone").focus({ preventScroll: true });
    else if (PANELS.includes(from)) (document.querySelector(`[data-deal="${app.deal}"] .open`) ?? byId("board")).focus({ preventScroll: true });
  },

  open(id) {
    if (app.deal !== id) {
      app.deal = id;
      app.card = null;
    }
    app.follow(id);
    app.go("card");
    refresh();
  },

  /** The phone shows the client of this deal, unless somebody is writing on it. */
  follow(id) {
    const own = digits(app.deals().find((card) => card.id === id)?.phone);
    if (own && !phone.isBusy()) app.pick(own);
  },

  pick(own) {
    if (app.chat === own) return;
    app.chat = own;
    app.talk = null;
    refresh();
  },

  showPhone(own) {
    app.pick(own);
    if (narrow.matches) app.go("phone");
    else phone.focus();
    draw();
  },

  async move(id, stage) {
    const card = app.deals().find((own) => own.id === id);
    const column = app.column(stage);
    if (!card || !column || card.stage_id === stage) return;
    // Shown at once; the next answer of the sandbox has the last word.
    const from = app.column(card.stage_id);
    from.cards = from.cards.filter((own) => own.id !== id);
    from.count -= 1;
    card.stage_id = stage;
    column.cards = [card, ...column.cards];
    column.count += 1;
    app.watched = { id, title: card.title, state: stateOf(card.note?.text)?.state, note: card.note?.id };
    app.hear(t("moved", { title: card.title, stage: column.name }));
    app.follow(id);
    draw();
    await app.attempt(() => api.move(app.portal(), [id], stage));
    refresh();
  },

  async attempt(work) {
    try {
      return await work();
    } catch (error) {
      toast(t("failed", { error: error.message }), true);
      return undefined;
    }
  },

  hear: (text) => say(byId("say"), text),
  refresh: () => refresh(),
  draw: () => draw(),
};

const board = boardView(app, byId("board"));
const card = cardView(app);
const lab = labView(app);
const deal = dealView(app);
const phone = phoneView(app, byId("phone"));
const views = { card, lab, new: deal };
let refresh = () => {};

async function load() {
  const [page, own, talk] = await Promise.all([
    api.page(app.portal(), app.find),
    app.tab === "card" && app.deal && app.page?.portal ? api.card(app.portal(), app.deal).catch(() => null) : null,
    app.chat ? api.chat(app.chat).catch(() => null) : null,
  ]);
  if (!app.dragging) app.page = page;
  app.skew = page.now_ms - Date.now();
  app.card = own && own.item.id === app.deal ? own : app.card;
  app.talk = talk && talk.phone.wa_id === app.chat ? talk : app.talk;
  tellNews();
  draw();
}

/** Reads out what became of the message of the deal that was moved last. */
function tellNews() {
  const own = app.watched && app.deals().find((deal) => deal.id === app.watched.id);
  const news = own && stateOf(own.note?.text);
  if (!news || (news.state === app.watched.state && own.note.id === app.watched.note)) return;
  app.watched.state = news.state;
  app.watched.note = own.note.id;
  app.hear(t("told", { title: app.watched.title, state: news.label }));
}

function draw() {
  const { page } = app;
  if (!page) return;
  const { portal } = page;
  say(byId("portal-name"), portal ? portal.name : "");
  attr(byId("no-portal"), "hidden", portal ? "" : null);
  const link = byId("app-link");
  const own = portal?.apps[0];
  attr(link, "hidden", own ? null : "");
  if (own && /^https?:/.test(own.frame_url)) attr(link, "href", own.frame_url);
  counters(page.totals);
  if (!app.dragging) board.draw(portal?.columns ?? []);
  const panel = byId("panel");
  const view = views[app.tab];
  attr(panel, "hidden", view ? null : "");
  if (view) {
    if (panel.firstElementChild !== view.root) fill(panel, view.root);
    attr(panel, "aria-labelledby", view.root.dataset.title);
    view.draw();
  }
  attr(byId("lab"), "aria-expanded", app.tab === "lab");
  attr(byId("new-deal"), "aria-expanded", app.tab === "new");
  phone.draw();
  tabs();
}

function counters(totals) {
  const rows = [
    ["accepted", totals.accepted, false],
    ["repeated", totals.repeated, totals.repeated > 0],
    ["refused", totals.refused, false],
  ];
  const make = ([key]) => h("div", { class: "counter", data: { counter: key } }, h("dd"), h("dt"));
  follow(byId("counters"), rows, ([key]) => key, make, (node, [key, value, isBad]) => {
    say(node.firstChild, number(value));
    say(node.lastChild, t("count_" + key));
    attr(node, "title", t(`count_${key}_long`));
    node.classList.toggle("bad", isBad);
  });
}

function tabs() {
  const make = ([tab, sign]) =>
    h("button", { type: "button", data: { testid: "tab-" + tab }, on: { click: () => app.go(tab) } }, icon(sign), h("span"));
  follow(byId("tabs"), TABS, ([tab]) => tab, make, (node, [tab]) => say(node.lastChild, t("tab_" + tab)));
  for (const node of byId("tabs").children) attr(node, "aria-current", node.dataset.key === app.tab ? "page" : null);
}

/** Texts that stand in the HTML. */
function speak() {
  document.documentElement.lang = lang();
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-t]")) say(node, t(node.dataset.t));
  attr(byId("app-link"), "title", t("app_page_hint"));
  fill(byId("new-deal"), icon("plus"), h("span", {}, t("new_deal")));
  fill(byId("lab"), icon("bolt"), h("span", {}, t("lab")));
  attr(byId("board"), "aria-label", t("board"));
  attr(byId("phone"), "aria-label", t("phones"));
  for (const button of byId("languages").children) attr(button, "aria-pressed", button.dataset.lang === lang());
}

function status(state) {
  const node = byId("live");
  node.dataset.state = state;
  say(byId("live-text"), t(state));
  attr(node, "title", t(state));
}

byId("languages").addEventListener("click", (event) => {
  const wanted = event.target.closest("button")?.dataset.lang;
  if (!wanted) return;
  choose(wanted);
  speak();
  forget(document);
  for (const view of [board, card, lab, deal, phone]) view.renew();
  status(byId("live").dataset.state);
  draw();
});
byId("lab").addEventListener("click", () => app.go(app.tab === "lab" ? "board" : "lab"));
byId("new-deal").addEventListener("click", () => app.go(app.tab === "new" ? "board" : "new"));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && PANELS.includes(app.tab)) app.go("board");
});
// The service window runs out by itself.
setInterval(() => phone.tick(), 15000);

speak();
refresh = live(load, status);
