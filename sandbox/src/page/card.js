// A deal's card: fields, and the timeline with comments and robot runs, newest first.

import { attr, fill, follow, h, icon, say } from "./dom.js";
import { bbcode } from "./bbcode.js";
import { SIGNS, digits, moment, named, phoneText, plural, span, stateOf, sum, t } from "./words.js";

/** A panel with a title and a close button. */
export function panel(app, key, id, ...body) {
  const title = h("h2", { id }, key ? t(key) : "");
  const close = h("button", { type: "button", class: "close", "aria-label": t("close"), on: { click: () => app.go("board") } }, icon("close"));
  const above = h("p", {});
  return h("div", { class: "sheet", data: { title: id } }, h("header", {}, h("div", {}, key ? null : above, title), close), h("div", { class: "body" }, ...body));
}

const text = (value) => (value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));

function results(run) {
  return Object.entries(run.results).flatMap(([key, value]) => {
    const shown = (Array.isArray(value) ? value.map(text) : [text(value)]).filter((own) => own !== "").join("\n");
    return shown ? [h("dt", {}, key), h("dd", {}, shown)] : [];
  });
}

function runState(app, run) {
  const from = run.callback_ms ?? run.started_ms;
  const time = span((run.finished_ms ?? app.now()) - from);
  return t("run_" + run.state, { time });
}

function verdict(run) {
  if (run.state === "waiting") return ["pending", t("run_pending")];
  if (run.results.status === "Y") return ["good", t("run_success")];
  return run.results.status === "N" || run.state === "timed_out" ? ["bad", t("run_failure")] : ["plain", ""];
}

export function cardView(app) {
  const view = { root: null, draw, renew };
  let parts = {};

  function renew() {
    const stage = h("select", { id: "card-stage", on: { change: () => app.move(app.deal, stage.value) } });
    const show = h("button", { type: "button", class: "link", on: { click: () => app.showPhone(digits(parts.number)) } }, t("show_phone"));
    const fields = h("dl", { class: "fields" });
    const list = h("ol", { class: "timeline" });
    const empty = h("p", { class: "hint" }, t("timeline_empty"));
    const shown = h("div", {}, fields, h("h3", {}, t("timeline")), empty, list);
    const none = h("p", { class: "hint" }, t("no_card"));
    view.root = panel(app, "", "card-title", none, shown);
    parts = { stage, show, fields, list, empty, shown, none, number: "" };
  }

  function field(label, ...value) {
    return [h("dt", {}, label), h("dd", {}, ...value)];
  }

  function drawFields(card) {
    const { item, contacts, company } = card;
    const print = JSON.stringify([item, contacts, company, app.page.portal.columns.map((column) => column.stage_id)]);
    if (parts.fields.print === print) return;
    parts.fields.print = print;
    const owner = app.page.portal.users[item.assigned_by_id];
    const [contact] = contacts;
    const phone = [...item.fm, ...(contact?.fm ?? []), ...(company?.fm ?? [])].find((own) => own.type_id === "PHONE")?.value ?? "";
    parts.number = phone;
    fill(parts.stage, app.page.portal.columns.map((column) => h("option", { value: column.stage_id }, column.name)));
    parts.stage.value = item.stage_id;
    const amount = sum(item.opportunity, item.currency_id);
    fill(parts.fields,
      h("dt", {}, h("label", { for: "card-stage" }, t("stage"))), h("dd", {}, parts.stage),
      amount ? field(t("amount"), amount) : null,
      contact ? field(t("client"), contact.title) : null,
      company ? field(t("company"), company.title) : null,
      phone ? field(t("phone_number"), h("span", { class: "number" }, phoneText(phone)), " ", parts.show) : null,
      owner ? field(t("responsible"), owner) : null);
  }

  function makeEntry(own) {
    return own.run
      ? h("li", { class: "entry run" }, h("p", { class: "head" }, icon("robot"), h("b"), h("span", { class: "pill" }), h("time")),
        h("p", { class: "quiet" }), h("dl", { class: "results" }))
      : h("li", { class: "entry note" }, h("p", { class: "head" }, icon("chat"), h("b"), h("span", { class: "ticks" }), h("time")),
        h("div", { class: "text", data: { testid: "comment" } }), h("p", { class: "quiet" }));
  }

  function drawEntry(node, own, again) {
    const [, title, mark, time] = node.querySelector(".head").children;
    const quiet = node.querySelector(".quiet");
    if (own.run) {
      const { run } = own;
      const robots = app.page.portal.columns.flatMap((column) => column.robots);
      say(title, named(robots.find((robot) => robot.code === run.code)?.name, `${t("run")} ${run.code}`));
      const [kind, word] = verdict(run);
      mark.className = "pill " + kind;
      say(mark, word);
      say(time, moment(run.started_ms));
      const lost = run.callback_status !== null && run.callback_status !== 200;
      say(quiet, runState(app, run) + (lost ? " · " + t("callback_failed", { status: run.callback_status }) : ""));
      fill(node.querySelector(".results"), results(run));
      return;
    }
    const { note } = own;
    say(title, note.title || t("comment"));
    say(time, moment(note.created_ms));
    const told = stateOf(note.text);
    mark.dataset.state = told?.state ?? "none";
    fill(mark, told ? icon(SIGNS[told.state]) : null);
    fill(node.querySelector(".text"), bbcode(note.text));
    const who = app.page.portal.users[note.author_id];
    const facts = [who ? t("by", { who }) : "", note.edits > 0 ? plural("edits", note.edits) + ", " + moment(note.updated_ms) : ""];
    say(quiet, facts.filter(Boolean).join(" · "));
    if (again) {
      node.classList.remove("news");
      requestAnimationFrame(() => node.classList.add("news"));
    }
  }

  function draw() {
    const { card } = app;
    attr(parts.none, "hidden", app.deal ? "" : null);
    attr(parts.shown, "hidden", card ? null : "");
    const title = view.root.querySelector("h2");
    say(view.root.querySelector("header p"), card ? t("deal", { id: app.deal }) : "");
    if (!card) return say(title, app.deal ? t("deal", { id: app.deal }) : t("tab_card"));
    say(title, card.item.title);
    drawFields(card);
    const entries = [
      ...card.timeline.map((note) => ({ key: "n" + note.id, at: note.created_ms, note: { ...note, history: undefined } })),
      // A waiting robot's line counts the seconds.
      ...card.runs.map((run) => ({ key: run.event_token, at: run.started_ms, run, beat: run.state === "waiting" ? Math.floor(app.now() / 1000) : 0 })),
    ].sort((left, right) => right.at - left.at || (left.key < right.key ? 1 : -1));
    attr(parts.empty, "hidden", entries.length > 0 ? "" : null);
    follow(parts.list, entries.slice(0, 200), (own) => own.key, makeEntry, drawEntry);
  }

  setInterval(() => {
    if (app.tab === "card" && app.card?.runs.some((run) => run.state === "waiting")) draw();
  }, 1000);
  renew();
  return view;
}
