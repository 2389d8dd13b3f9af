// The client's phone: conversations, one chat as the client sees it, and switches for how the phone behaves.

import { api } from "./api.js";
import { attr, fill, follow, h, icon, say } from "./dom.js";
import { clock, moment, number, phoneText, span, t } from "./words.js";

const FILES = { image: "image", video: "image", sticker: "image", audio: "sound", document: "doc", location: "place" };
const SKIPPED = ["reaction", "edit", "revoke"];
/** Behaviour: text, sign, whether it is on, and the change that turns it. */
const TRAITS = {
  block: { sign: "ban", is: (phone, number) => phone.blocked.includes(number), set: (on, number) => ({ block: [number, on] }) },
  offline: { sign: "off", is: (phone) => !phone.online, set: (on) => ({ online: !on }) },
  absent: { sign: "close", is: (phone) => !phone.exists, set: (on) => ({ exists: !on }) },
  receipts: { sign: "unseen", is: (phone) => !phone.read_receipts, set: (on) => ({ read_receipts: !on }) },
};

const initials = (name) => [...String(name)].slice(0, 1).join("").toUpperCase();

function lineOf(last) {
  if (!last) return t("no_messages");
  const text = last.text || kind(last.kind);
  return last.route === "in" ? t("you", { text }) : text;
}

function kind(name) {
  return ["image", "video", "audio", "document", "sticker", "location", "contacts", "unsupported", "revoke"].includes(name) ? t("kind_" + name) : name;
}

export function phoneView(app, root) {
  const view = { draw, renew, tick: () => drawWindow(), isBusy: () => Boolean(parts.input?.value.trim()), focus: () => parts.back?.focus() };
  let parts = {};
  let stuck = true;

  function renew() {
    const find = h("input", { type: "search", id: "find", placeholder: t("find_phone"), "aria-label": t("find_phone"), autocomplete: "off", maxlength: "60", value: app.find });
    find.addEventListener("input", () => {
      app.find = find.value.trim();
      app.refresh();
    });
    const chats = h("ul", { class: "chats" });
    const more = h("p", { class: "hint" });
    const list = h("div", { class: "list" }, h("header", {}, h("h2", {}, t("phones"))), find, chats, more);

    const back = h("button", { type: "button", class: "back", "aria-label": t("back"), on: { click: leave } }, icon("back"));
    const who = h("h2", { class: "who" });
    const digits = h("p", { class: "digits" });
    const face = h("span", { class: "face", "aria-hidden": "true" });
    const traits = h("div", { class: "traits", role: "group", "aria-label": t("traits") }, Object.entries(TRAITS).map(([key, trait]) =>
      h("button", { type: "button", data: { trait: key }, title: t("trait_" + key + "_hint"), on: { click: () => turn(key) } }, icon(trait.sign), h("span", {}, t("trait_" + key)))));
    const frame = h("p", { class: "window", data: { testid: "window" } });
    const talk = h("ol", { class: "talk", tabindex: "0", role: "log", "aria-label": t("phones") });
    talk.addEventListener("scroll", () => {
      stuck = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
    });
    const input = h("input", { id: "answer", autocomplete: "off", maxlength: "4000", placeholder: t("write"), "aria-label": t("write"), data: { testid: "answer" } });
    const submit = h("button", { type: "submit", "aria-label": t("send"), data: { testid: "send" } }, icon("send"));
    const form = h("form", { class: "compose", on: { submit: write } }, input, submit);
    const chat = h("div", { class: "chat" },
      h("header", {}, back, face, h("div", { class: "names" }, who, digits)), frame, traits, talk, form);
    parts = { list, chats, more, chat, back, who, digits, face, traits, frame, talk, input, submit };
    fill(root, h("div", { class: "device" }, list, chat));
    stuck = true;
  }

  function leave() {
    app.chat = null;
    app.talk = null;
    draw();
    parts.chats.querySelector("button")?.focus();
  }

  async function turn(key) {
    const phone = app.talk?.phone;
    if (!phone) return;
    const on = !TRAITS[key].is(phone, own());
    await app.attempt(() => api.traits(phone.wa_id, TRAITS[key].set(on, own())));
    app.refresh();
  }

  /** The business number this phone talks with. */
  const own = () => app.talk?.messages.at(-1)?.phone_number_id ?? app.page?.numbers[0]?.id;

  async function write(event) {
    event.preventDefault();
    const body = parts.input.value.trim();
    if (!body || !own()) return;
    parts.input.value = "";
    stuck = true;
    const sent = await app.attempt(() => api.write(app.chat, own(), body));
    if (!sent && !parts.input.value) parts.input.value = body;
    parts.input.focus();
    app.refresh();
  }

  function drawList() {
    const { page } = app;
    const make = (chat) => h("li", {}, h("button", { type: "button", data: { phone: chat.phone.wa_id }, on: { click: () => {
      app.pick(chat.phone.wa_id);
      draw();
      parts.back.focus();
    } } }, h("span", { class: "face", "aria-hidden": "true" }), h("b"), h("time"), h("span", { class: "last" })));
    follow(parts.chats, page.chats, (chat) => chat.phone.wa_id, make, (node, chat) => {
      const [face, name, time, last] = node.firstChild.children;
      say(face, initials(chat.phone.name));
      face.dataset.tint = Number(chat.phone.wa_id.slice(-2)) % 5;
      say(name, chat.phone.name);
      say(time, chat.last ? clock(chat.last.at_ms) : "");
      say(last, chat.last ? lineOf(chat.last) : phoneText(chat.phone.wa_id));
    });
    const hidden = page.phone_count > page.chats.length && !app.find;
    say(parts.more, page.chats.length === 0 ? t("no_phones") : hidden ? t("phones_more", { n: number(page.chats.length), all: number(page.phone_count) }) : "");
  }

  function drawWindow() {
    const until = app.talk?.phone.windows[own()] ?? 0;
    const left = until - app.now();
    const isOpen = left > 0;
    parts.frame.dataset.open = isOpen;
    say(parts.frame, isOpen ? t("window_open", { time: span(left - (left % 60000)), at: clock(until) }) : t("window_closed"));
  }

  function makeBubble(message) {
    const isOut = message.route === "out";
    return h("li", { class: isOut ? "bubble theirs" : "bubble mine", data: { testid: "bubble", wamid: message.wamid, route: message.route } });
  }

  function drawBubble(node, message) {
    const { shown } = message;
    const isOut = message.route === "out";
    const tick = message.marked_read ? "read" : "delivered";
    const file = shown.media || FILES[shown.kind];
    const name = shown.media?.filename || (shown.kind === "location" ? shown.text : "") || kind(shown.media?.kind ?? shown.kind);
    const words = shown.kind === "location" ? "" : shown.text || (file || shown.template ? "" : kind(shown.kind));
    const quoted = message.reply_to && app.talk.messages.find((other) => other.wamid === message.reply_to);
    const at = moment(message.at_ms);
    fill(node,
      h("span", { class: "hear" }, isOut ? t("from_business", { at }) : t("from_client", { at, state: t("tick_" + tick) })),
      quoted ? h("p", { class: "quote" }, quoted.shown.text || kind(quoted.shown.kind)) : null,
      file ? h("p", { class: "file", data: { kind: shown.media?.kind ?? shown.kind } }, icon(FILES[shown.media?.kind ?? shown.kind] ?? "doc"), h("span", {}, name)) : null,
      shown.header ? h("p", { class: "headline" }, shown.header) : null,
      words ? h("p", { class: "words" }, words) : null,
      shown.footer ? h("p", { class: "footer" }, shown.footer) : null,
      h("p", { class: "meta" }, shown.template ? h("span", { class: "template" }, t("template_badge", { name: shown.template })) : null,
        h("time", {}, clock(message.at_ms)), isOut ? null : h("span", { class: "ticks", data: { state: tick } }, icon("ticks"))),
      message.reaction ? h("span", { class: "reaction" }, message.reaction) : null,
      shown.buttons.map((button) => drawButton(message, button)));
  }

  function drawButton(message, button) {
    const taps = ["quick_reply", "reply", "list_row"].includes(button.kind);
    if (!taps) return h("span", { class: "answer still" }, button.text);
    return h("button", { type: "button", class: "answer", "aria-label": t("tap", { text: button.text }), on: { click: async () => {
      stuck = true;
      await app.attempt(() => api.tap(app.chat, message.phone_number_id, message.wamid, button.text));
      app.refresh();
    } } }, button.text);
  }

  function drawChat() {
    const { talk } = app;
    const phone = talk?.phone;
    say(parts.who, phone?.name ?? phoneText(app.chat));
    say(parts.digits, phone ? phoneText(phone.wa_id) : "");
    say(parts.face, initials(phone?.name ?? ""));
    parts.face.dataset.tint = Number(String(app.chat).slice(-2)) % 5;
    drawWindow();
    const hinders = [];
    for (const button of parts.traits.children) {
      const key = button.dataset.trait;
      const on = Boolean(phone) && TRAITS[key].is(phone, own());
      attr(button, "aria-pressed", on ? "true" : "false");
      if (on && key !== "receipts") hinders.push(t("trait_" + key));
    }
    parts.input.disabled = parts.submit.disabled = !phone || hinders.length > 0;
    attr(parts.input, "placeholder", hinders.length > 0 ? t("cannot_write", { what: hinders.join(", ") }) : t("write"));
    // A phone shows what has reached it, and nothing of what failed on the way.
    const messages = (talk?.messages ?? []).filter((own) => own.arrived && !SKIPPED.includes(own.shown.kind));
    const before = parts.talk.childElementCount;
    parts.talk.dataset.empty = talk && messages.length === 0 ? t("chat_empty") : "";
    follow(parts.talk, messages, (own) => own.wamid, makeBubble, drawBubble);
    if (parts.talk.dataset.chat !== app.chat || (stuck && before !== messages.length)) {
      if (talk) parts.talk.dataset.chat = app.chat;
      parts.talk.scrollTop = parts.talk.scrollHeight;
      stuck = true;
    }
  }

  function draw() {
    if (!app.page) return;
    attr(parts.list, "hidden", app.chat ? "" : null);
    attr(parts.chat, "hidden", app.chat ? null : "");
    if (app.chat) drawChat();
    else drawList();
  }

  renew();
  return view;
}
