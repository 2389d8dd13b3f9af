"use strict";
// The part of an account's pages that a widget sees: AMD, `APP`, the base object with its documented methods, and the
// callbacks in their documented order (amocrm.md §4.5, §4.6, §5.1). What the widget does wrong is shown, and counted.
(function ($) {
  const asked = new URLSearchParams(location.search);
  const lang = asked.get("lang") || "ru";
  const base = location.pathname.replace(/\/host$/, "");
  const ru = lang === "ru";
  const words = ru
    ? { pipeline: "Воронка", designer: "Salesbot", trigger: "Digital Pipeline", settings: "Настройки виджета", advanced: "Дополнительно",
        save: "Сохранить", run: "Запустить для сделки", notes: "Примечания", contacts: "Контакты", install: "Установить", move: "В этап" }
    : { pipeline: "Pipeline", designer: "Salesbot", trigger: "Digital Pipeline", settings: "Widget settings", advanced: "Advanced",
        save: "Save", run: "Run on the lead", notes: "Notes", contacts: "Contacts", install: "Install", move: "To stage" };
  const stages = [[60010203, ru ? "Новая" : "New"], [60010204, ru ? "Оплачено" : "Paid"], [142, ru ? "Успешно" : "Won"]];
  let state = null;
  let Constructor = null;
  let widget = null;
  let area = "";

  function fail(text) {
    $("#errors").prop("hidden", false).append(document.createTextNode(text + "\n"));
  }

  function api(path, body) {
    return $.ajax({ url: base + "/host/" + path, method: body ? "POST" : "GET", contentType: "application/json",
      data: body ? JSON.stringify(body) : undefined, dataType: "json" });
  }

  window.define = function (names, factory) {
    const parts = names.map((name) => {
      if (name !== "jquery") fail("the module " + name + " is not there");
      return name === "jquery" ? $ : undefined;
    });
    Constructor = factory.apply(null, parts);
    if (typeof Constructor !== "function") fail("script.js must return a constructor");
  };

  const texts = (key) => key.split(".").reduce((part, name) => (part || {})[name], state.i18n[lang]) || key;

  function phonesOf(contact) {
    return (contact.custom_fields_values || []).filter((field) => field.field_code === "PHONE")
      .flatMap((field) => field.values.map((value) => value.value));
  }

  function leadOf(id) {
    return state.leads.find((lead) => lead.id === id);
  }

  function contactsOf(lead) {
    const ids = lead._embedded.contacts.map((contact) => contact.id);
    return state.contacts.filter((contact) => ids.includes(contact.id));
  }

  // What the system gives to every widget.
  function Base() {
    const own = this;
    this.params = { path: state.path, images_path: state.path + "/images", widget_code: state.code, version: state.manifest.widget.version };
    this.langs = state.i18n[lang];
    this.actions = {};
    this.system = () => ({ area: area, amouser_id: "2718281", amouser: "admin@client.example", amohash: "" });
    this.get_settings = () => $.extend({}, state.settings, this.params);
    this.set_settings = (values) => $.extend(state.settings, values);
    this.get_version = () => this.params.version;
    this.get_install_status = () => (state.installed ? "installed" : "not_configured");
    this.set_status = () => undefined;
    this.i18n = (key) => this.langs[key];
    this.get_accounts_current = () => $.Deferred().resolve(state.account).promise();
    this.get_current_card_contacts_data = () => {
      const lead = leadOf(window.APP.data.current_card.id);
      return Promise.resolve(contactsOf(lead).map((contact) => ({ id: contact.id, name: contact.name,
        first_name: contact.first_name, last_name: contact.last_name, phones: phonesOf(contact), emails: [] })));
    };
    this.render_template = (block) => {
      const $block = $("<section>").addClass("column").append($("<h2>").addClass(block.caption.class_name)
        .append($("<img>", { src: state.path + "/images/logo_min.png", alt: "", width: 28, height: 28 }), " Mostik"));
      $("#right").append($block.append(block.render || block.body));
    };
    this.add_action = (kind, callback) => {
      if (kind !== "phone" && kind !== "email") fail("add_action: " + kind + " is unknown");
      own.actions[kind] = callback;
    };
    this.widgetsOverlay = () => undefined;
    // A fresh disposable token for each call (§2).
    this.$authorizedAjax = (wish) => {
      const answer = $.Deferred();
      api("token", {}).then((given) => {
        const headers = $.extend({}, wish.headers, { "X-Auth-Token": given.token });
        $.ajax($.extend({}, wish, { headers: headers })).then(answer.resolve, answer.reject);
      }, answer.reject);
      return answer.promise();
    };
  }

  // Begins an area: render, then bind_actions and init; each must give true (§4.5).
  function enter(name) {
    area = name;
    Constructor.prototype = new Base();
    widget = new Constructor();
    const places = state.manifest.locations.map((place) => place.replace(/-[01]$/, ""));
    if (!places.includes(name)) return;
    const calls = widget.callbacks || {};
    for (const need of ["render", "init", "bind_actions"]) {
      if (typeof calls[need] !== "function") return fail("the callback " + need + " is missing");
    }
    if (calls.render() !== true) return fail("render must give true");
    if (calls.bind_actions() !== true) fail("bind_actions must give true");
    if (calls.init() !== true) fail("init must give true");
  }

  function leave() {
    if (widget && widget.callbacks && widget.callbacks.destroy) widget.callbacks.destroy();
    $(".menu").remove();
    $("#area").empty();
    window.APP.data.current_card = { id: 0 };
  }

  window.APP = {
    lang_id: lang,
    data: { current_card: { id: 0 } },
    getBaseEntity: () => "leads",
    isCard: () => area === "lcard",
    getWidgetsArea: () => area,
    constant: (name) => ({
      account: { id: state.account.id, subdomain: state.account.subdomain, amojo_id: "" },
      user: { id: 2718281 },
      managers: { 2718281: { id: 2718281, title: "Ольга" } },
      groups: {}, task_types: {},
    })[name],
  };

  function drawPipeline() {
    const $columns = $("<div>").addClass("columns");
    for (const [id, name] of stages) {
      const $column = $("<section>").addClass("column").attr("data-stage", id).append($("<h2>").text(name));
      for (const lead of state.leads.filter((one) => one.status_id === id)) {
        $column.append($("<a>", { href: "#lead/" + lead.id, "class": "lead", "data-lead": lead.id }).text(lead.name));
      }
      $columns.append($column);
    }
    $("#area").append($columns);
    enter("llist");
  }

  function drawNotes(id) {
    const $notes = $("#notes").empty();
    for (const note of state.notes.filter((one) => one.lead === id)) {
      $notes.append($("<div>").addClass("note").attr("data-testid", "note").text(note.text));
    }
  }

  function drawCard(id) {
    const lead = leadOf(id);
    const $left = $("<section>").addClass("column").append($("<h2>").text(lead.name), $("<h3>").text(words.contacts));
    for (const contact of contactsOf(lead)) {
      $left.append($("<p>").text(contact.name));
      for (const phone of phonesOf(contact)) {
        const $phone = $("<button>", { type: "button", "class": "phone", "data-phone": phone }).text(phone);
        $phone.on("click", (event) => menu(event, phone));
        $left.append($("<p>").append($phone));
      }
    }
    for (const [stage, name] of stages.slice(1)) {
      const $move = $("<button>", { type: "button", "class": "button", "data-move": stage }).text(words.move + " " + name);
      $move.on("click", () => api("leads/" + id + "/status", { status: stage }));
      $left.append($("<p>").append($move));
    }
    $("#area").append($("<div>").addClass("card").append($left,
      $("<section>").addClass("column").append($("<h2>").text(words.notes), $("<div>", { id: "notes" })),
      $("<div>", { id: "right" })));
    drawNotes(id);
    window.APP.data.current_card = { id: id };
    enter("lcard");
  }

  // The context menu of a phone; a widget's entry carries `widget.call_action` (§4.6).
  function menu(event, phone) {
    $(".menu").remove();
    if (!widget.actions.phone) return;
    const $entry = $("<button>", { type: "button", "data-testid": "call-action" }).text(texts("widget.call_action"));
    const $menu = $("<div>").addClass("menu").append($entry).offset({ left: event.pageX, top: event.pageY });
    $entry.on("click", () => {
      $menu.remove();
      widget.actions.phone({ value: phone });
    });
    $("body").append($menu);
  }

  // The three shapes in which a designer was seen to hand values over (§4.5).
  function shaped(values) {
    const shape = asked.get("params") || "flat";
    if (shape === "nested") return { params: values };
    if (shape === "objects") {
      return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, { value: "", value_manual: value }]));
    }
    return values;
  }

  // One step at a time, as in the designer: whoever builds a bot picks its block first.
  function drawDesigner(chosen) {
    const $sheet = $("<section>").addClass("sheet narrow").append($("<h2>").text(words.designer));
    $("#area").append($sheet);
    const blocks = state.manifest.salesbot_designer;
    const codes = Object.keys(blocks).filter((one) => one !== "logo");
    if (!codes.includes(chosen)) {
      for (const code of codes) {
        $sheet.append($("<p>").append($("<a>", { href: "#designer/" + code }).text(texts(blocks[code].name))));
      }
      return;
    }
    enter("salesbot_designer");
    const block = blocks[chosen];
    const $body = $("<div>").addClass("rows").attr("data-block", chosen);
    for (const key of Object.keys(block.settings)) {
      const setting = block.settings[key];
      $body.append($("<div>").addClass("field").append($("<span>").text(texts(setting.name)),
        $("<input>", { type: "text", name: "value_manual", "data-field-name": key }).val(setting.default_value)));
    }
    const $save = $("<button>", { type: "button", "class": "button", "data-testid": "save-block", "data-code": chosen }).text(words.save);
    const $said = $("<p>").attr("data-testid", "said");
    $sheet.append($("<h3>").text(texts(block.name)), $body, $save, $said);
    const told = widget.callbacks.salesbotDesignerSettings && widget.callbacks.salesbotDesignerSettings($body, () => "", {});
    if (!told || !Array.isArray(told.exits)) {
      fail("salesbotDesignerSettings must give {exits}");
      return;
    }
    $save.on("click", () => {
      const values = {};
      $body.find("[data-field-name]").each((at, input) => { values[input.dataset.fieldName] = input.value; });
      const made = widget.callbacks.onSalesbotDesignerSave(chosen, shaped(values));
      if (typeof made !== "string") return fail("onSalesbotDesignerSave must give a string");
      api("blocks", { handler: chosen, code: made, exits: told.exits.map((exit) => exit.code) }).then(
        (saved) => $said.text("№ " + saved.block).attr("data-block", saved.block),
        (answer) => fail(answer.responseText));
    });
  }

  function drawTrigger() {
    const $sheet = $("<section>").addClass("sheet narrow").append($("<h2>").text(texts(state.manifest.dp.title)));
    const $form = $("<div>").attr("data-action", "send_widget_hook");
    for (const key of Object.keys(state.manifest.dp.settings)) {
      $form.append($("<div>").addClass("field").append($("<span>").text(texts(state.manifest.dp.settings[key].name)),
        $("<input>", { type: "text", name: key })));
    }
    const $mark = $("<div>").addClass("digital-pipeline__short-task_widget-style_" + state.code);
    const $save = $("<button>", { type: "button", "class": "button", "data-testid": "save-trigger" }).text(words.save);
    const $said = $("<p>").attr("data-testid", "said");
    $sheet.append($("<div>").append($("<div>").append($mark), $form), $save, $said);
    $("#area").append($sheet);
    enter("digital_pipeline");
    widget.callbacks.dpSettings();
    $save.on("click", () => {
      const settings = {};
      $form.find("input[name]").each((at, input) => { settings[input.name] = input.value; });
      const lacks = Object.keys(state.manifest.dp.settings).filter((key) => state.manifest.dp.settings[key].required && !settings[key]);
      if (lacks.length) return fail("required: " + lacks.join(", "));
      api("triggers", { status: stages[1][0], settings: settings }).then(() => $said.text("OK").attr("data-saved", "1"));
    });
  }

  function drawSettings() {
    const fields = state.manifest.settings || {};
    const $modal = $("<section>").addClass("sheet narrow").append($("<h2>").text(texts("widget.name")), $("<p>").text(texts("widget.description")));
    for (const key of Object.keys(fields)) {
      const custom = fields[key].type === "custom";
      const $input = $("<input>", { type: custom ? "hidden" : "text", name: key }).val((state.settings || {})[key] || "");
      if (custom) $input.attr("id", state.code + "_custom");
      $modal.append($("<div>").addClass("field").append($("<strong>").text(texts(fields[key].name)), $input));
      if (custom) $modal.append($("<div>", { id: state.code + "_custom_content" }));
    }
    const $install = $("<button>", { type: "button", "class": "button", "data-testid": "install" }).text(words.install);
    const $said = $("<p>").attr("data-testid", "said");
    $("#area").append($modal.append($install, $said));
    enter("settings");
    widget.callbacks.settings($modal, {});
    $install.on("click", async () => {
      const given = {};
      $modal.find("input[name]").each((at, input) => { given[input.name] = input.value; });
      if ((await widget.callbacks.onSave({ active: "Y", fields: given })) !== true) return;
      api("settings", { fields: given }).then(() => $said.text("OK").attr("data-saved", "1"),
        (answer) => $said.text(answer.responseJSON.error).attr("data-saved", "0"));
    });
  }

  function drawAdvanced() {
    $("#area").append($("<section>").addClass("sheet").append($("<h2>").text(texts(state.manifest.advanced.title)), $("<div>", { id: "list_page_holder" })));
    enter("advanced_settings");
    widget.callbacks.advancedSettings();
  }

  async function show() {
    state = await api("state");
    leave();
    const [place, id] = (location.hash.slice(1) || "pipeline").split("/");
    $("#tabs a").each((at, link) => { $(link).attr("aria-current", link.hash === "#" + place ? "page" : null); });
    ({ pipeline: drawPipeline, designer: () => drawDesigner(id), trigger: drawTrigger, settings: drawSettings, advanced: drawAdvanced,
      lead: () => drawCard(Number(id)) })[place]();
    document.body.dataset.area = place;
  }

  // Notes come while the card is open.
  async function look() {
    const [place, id] = location.hash.slice(1).split("/");
    if (place === "lead" && $("#notes").length) {
      state.notes = (await api("state")).notes;
      drawNotes(Number(id));
    }
    setTimeout(look, 1000);
  }

  async function start() {
    document.documentElement.lang = lang;
    document.title = words.pipeline;
    for (const tab of ["pipeline", "designer", "trigger", "settings", "advanced"]) {
      $("#tabs").append($("<a>", { href: "#" + tab }).text(words[tab]));
    }
    state = await api("state");
    $("#account").text(state.account.subdomain);
    if (!state.manifest) return fail("no widget was uploaded");
    await new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = state.path + "/script.js";
      script.onload = resolve;
      script.onerror = () => fail("script.js cannot be loaded");
      document.head.append(script);
    });
    window.addEventListener("error", (event) => fail(event.message));
    window.addEventListener("hashchange", show);
    await show();
    look();
  }

  start();
})(window.jQuery);
