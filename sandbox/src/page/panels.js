// The panels beside the card: faults and load with counters, and the form of a new deal.

import { api } from "./api.js";
import { panel } from "./card.js";
import { fill, follow, h, icon, say, toast } from "./dom.js";
import { number, plural, t } from "./words.js";

/** What can be broken, and how the control API is told. */
const FAULTS = {
  delay: { target: "graph.messages", action: { do: "delay", ms: 3000 } },
  down: { target: "graph.messages", action: { do: "html", status: 503 } },
  many: { target: "graph.messages", action: { do: "error", code: "130429" } },
  cut: { target: "graph.messages", action: { do: "cut_after" } },
  drop: { target: "graph.messages", action: { do: "drop_answer", hold_ms: 60000 } },
  duplicate: { target: "webhook", action: { do: "duplicate", copies: 2, gap_ms: 150 } },
  reorder: { target: "webhook.statuses", action: { do: "reorder", within_ms: 4000 } },
  robot: { target: "robot.callback", action: { do: "duplicate", copies: 1, gap_ms: 300 } },
  token: { target: "rest", action: { do: "expire_token" } },
  limit: { target: "rest", action: { do: "error", code: "QUERY_LIMIT_EXCEEDED" } },
};
const TIMES = [1, 5, 0];
const LOADS = [100, 1000];
/** Numbers of the clients that bulk deals are for. */
const BULK_FROM = 79160000000;

const sameFault = (fault) =>
  Object.keys(FAULTS).find((key) => FAULTS[key].target === fault.target && FAULTS[key].action.do === fault.action.do);

export function labView(app) {
  const view = { root: null, draw, renew };
  let parts = {};
  let times = 1;
  let stage = "";
  let bulk = 0;

  async function add(key) {
    const fault = { ...FAULTS[key], ...(times > 0 ? { times } : {}) };
    await app.attempt(() => api.addFault(fault));
    app.refresh();
  }

  async function load(count, button) {
    const column = app.column(stage) ?? app.page.portal.columns[0];
    const portal = app.portal();
    button.disabled = true;
    say(parts.said, t("load_working", { n: number(count) }));
    const from = BULK_FROM + (app.page.phone_count + bulk) % 9000000;
    bulk += count;
    const moved = await app.attempt(async () => {
      const made = await api.bulk(portal, count, from, t("load_title"));
      const ids = Array.from({ length: made.last - made.first + 1 }, (_, nth) => made.first + nth);
      return api.move(portal, ids, column.stage_id);
    });
    button.disabled = false;
    say(parts.said, moved ? t("load_done", { n: number(moved.moved) }) : "");
    app.refresh();
  }

  function renew() {
    const often = h("div", { class: "switch", role: "group", "aria-label": t("times") }, TIMES.map((n) =>
      h("button", {
        type: "button", "aria-pressed": n === times ? "true" : "false",
        on: { click: (event) => {
          times = n;
          for (const own of event.currentTarget.parentNode.children) own.setAttribute("aria-pressed", own === event.currentTarget ? "true" : "false");
        } },
      }, n > 0 ? t("times_n", { n }) : t("times_all"))));
    const buttons = Object.keys(FAULTS).map((key) =>
      h("button", { type: "button", class: "fault", data: { fault: key }, "aria-label": t("add_fault", { name: t("fault_" + key) }), on: { click: () => add(key) } },
        h("b", {}, t("fault_" + key)), h("span", {}, t("fault_" + key + "_hint")), h("i", { "aria-hidden": "true" })));
    const active = h("ul", { class: "active" });
    const none = h("p", { class: "hint" }, t("no_faults"));
    const clear = h("button", { type: "button", class: "button quiet", on: { click: async () => {
      await app.attempt(() => api.clearFaults());
      app.refresh();
    } } }, t("clear_all"));
    const select = h("select", { id: "load-stage", on: { change: () => { stage = select.value; } } });
    const loads = LOADS.map((n) => {
      const button = h("button", { type: "button", class: "button quiet", data: { load: n } }, plural("load_n", n));
      button.addEventListener("click", () => load(n, button));
      return button;
    });
    const said = h("p", { class: "hint", role: "status" });
    const counters = h("dl", { class: "totals" });
    view.root = panel(app, "lab", "lab-title",
      h("section", {}, h("h3", {}, t("faults")), h("p", { class: "hint" }, t("faults_hint")),
        h("div", { class: "row" }, h("span", {}, t("times")), often), h("div", { class: "faults" }, buttons)),
      h("section", {}, h("h3", {}, t("active_faults")), none, active, clear),
      h("section", {}, h("h3", {}, t("load")), h("p", { class: "hint" }, t("load_hint")),
        h("div", { class: "row" }, h("label", { for: "load-stage" }, t("load_stage")), select),
        h("div", { class: "row" }, loads), said),
      h("section", {}, h("h3", {}, t("counters")), counters));
    parts = { buttons, active, none, clear, select, said, counters };
  }

  function draw() {
    const { page } = app;
    const make = (own) => h("li", {}, h("b"), h("span"), h("button", {
      type: "button", class: "close", "aria-label": t("remove"), on: { click: async () => {
        await app.attempt(() => api.removeFault(own.id));
        app.refresh();
      } },
    }, icon("close")));
    follow(parts.active, page.faults, (own) => own.id, make, (node, own) => {
      const key = sameFault(own);
      say(node.firstChild, key ? t("fault_" + key) : `${own.target}: ${own.action.do}`);
      say(node.children[1], own.times ? t("fired_of", { n: number(own.fired), all: number(own.times) }) : t("fired", { n: number(own.fired) }));
      node.classList.toggle("done", Boolean(own.times) && own.fired >= own.times);
    });
    for (const button of parts.buttons) {
      const own = page.faults.filter((fault) => sameFault(fault) === button.dataset.fault && (!fault.times || fault.fired < fault.times));
      const left = own.some((fault) => !fault.times) ? "∞" : own.reduce((all, fault) => all + fault.times - fault.fired, 0);
      button.classList.toggle("on", own.length > 0);
      say(button.lastChild, own.length > 0 ? `× ${left}` : "");
    }
    parts.none.hidden = page.faults.length > 0;
    parts.clear.hidden = page.faults.length === 0;
    const columns = page.portal?.columns ?? [];
    const print = JSON.stringify(columns.map((column) => [column.stage_id, column.name]));
    if (parts.select.print !== print) {
      parts.select.print = print;
      fill(parts.select, columns.map((column) => h("option", { value: column.stage_id }, column.name)));
      stage = stage || (columns.find((column) => column.robots.length > 0) ?? columns[0])?.stage_id || "";
      parts.select.value = stage;
    }
    const { totals } = page;
    const rows = [
      ["accepted", totals.accepted], ["delivered", totals.delivered], ["read", totals.read], ["failed", totals.failed],
      ["inbound", totals.inbound], ["repeated", totals.repeated], ["refused", totals.refused],
      ["limit", totals.limit], ["careless", totals.careless],
    ];
    follow(parts.counters, rows, ([key]) => key, () => h("div", {}, h("dt"), h("dd")), (node, [key, value]) => {
      say(node.firstChild, t(`count_${key}_long`));
      say(node.lastChild, number(value));
      node.classList.toggle("bad", key === "repeated" && value > 0);
    });
  }

  renew();
  return view;
}

export function dealView(app) {
  const view = { root: null, draw() {}, renew };

  function renew() {
    const title = h("input", { id: "deal-title", required: true, maxlength: "120", autocomplete: "off", value: t("deal_title_value") });
    const name = h("input", { id: "deal-name", required: true, maxlength: "80", autocomplete: "off" });
    const phone = h("input", { id: "deal-phone", required: true, maxlength: "40", inputmode: "tel", autocomplete: "off", "aria-describedby": "deal-hint" });
    const submit = h("button", { type: "submit", class: "button" }, t("create"));
    const form = h("form", { class: "form" },
      h("label", { for: "deal-title" }, t("deal_title")), title,
      h("label", { for: "deal-name" }, t("contact_name")), name,
      h("label", { for: "deal-phone" }, t("contact_phone")), phone,
      h("p", { class: "hint", id: "deal-hint" }, t("phone_hint")), submit);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      submit.disabled = true;
      const portal = app.portal();
      const [first, ...rest] = name.value.trim().split(/\s+/);
      const made = await app.attempt(async () => {
        const contact = await api.add(portal, { entity_type_id: 3, name: first, last_name: rest.join(" "), phones: [phone.value.trim()] });
        return api.add(portal, { title: title.value.trim(), contact_ids: contact.ids });
      });
      submit.disabled = false;
      if (!made) return;
      toast(t("created", { title: title.value.trim() }));
      name.value = phone.value = "";
      app.go("board");
      app.refresh();
    });
    view.root = panel(app, "new_deal", "new-title", form);
  }

  renew();
  return view;
}
