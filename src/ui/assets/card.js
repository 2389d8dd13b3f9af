// The tab on a card: the dialogs with its people, live, and writing to them. Whatever people wrote becomes text, never
// markup. A letter has a key from the moment it is begun until it is taken over, so that a second press, a retry after a
// cut or a reload cannot send it twice.
(function () {
  "use strict";
  var body = document.body;
  var base = body.dataset.base;
  var pass = body.dataset.pass;
  var texts = JSON.parse(body.dataset.texts);
  var language = document.documentElement.lang;
  var LOOK = 2500;
  var dialogs = [];
  var chosen = null;
  var drawn = "";
  var tag = "";
  var templates = {};
  var keys = {};
  var sending = false;
  var renewing = null;

  function $(id) { return document.getElementById(id); }
  function say(name, values) {
    return (texts[name] || name).replace(/\{(\w+)\}/g, function (all, place) {
      return values && place in values ? values[place] : all;
    });
  }
  function make(kind, name, text) {
    var element = document.createElement(kind);
    if (name) { element.className = name; }
    if (text) { element.textContent = text; }
    return element;
  }
  function newKey() {
    var bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, function (byte) { return byte.toString(16).padStart(2, "0"); }).join("");
  }
  // Of the letter that is being written in the chosen dialog.
  function key() { return keys[chosen] = keys[chosen] || newKey(); }
  function notice(name) {
    $("talk").hidden = true;
    $("dialogs").hidden = true;
    $("notice").hidden = false;
    $("notice").textContent = say(name);
  }
  function id(dialog) { return dialog.channel + " " + dialog.to; }
  function current() { return dialogs.find(function (dialog) { return id(dialog) === chosen; }); }

  // A pass lives for an hour; the portal gives this person a fresh token, and that gives another pass.
  function renew() {
    renewing = renewing || new Promise(function (resolve, reject) {
      if (!window.mostikFrame) { reject(new Error("no frame")); return; }
      setTimeout(function () { reject(new Error("the portal is silent")); }, 10000);
      window.mostikFrame.call("refreshAuth", null, function (auth) {
        if (!auth || !auth.AUTH_ID) { reject(new Error("no token")); return; }
        fetch(base + "/card/pass", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ pass: pass, token: auth.AUTH_ID })
        }).then(function (answer) {
          if (!answer.ok) { throw new Error("refused"); }
          return answer.json();
        }).then(function (given) { pass = given.pass; resolve(); }).catch(reject);
      });
    }).finally(function () { renewing = null; });
    return renewing;
  }

  function ask(path, options, again) {
    var headers = Object.assign({ authorization: "Bearer " + pass }, (options && options.headers) || {});
    return fetch(base + path, Object.assign({}, options, { headers: headers })).then(function (answer) {
      if (answer.status === 401 && !again) {
        return renew().then(function () { return ask(path, options, true); });
      }
      return answer;
    });
  }

  function look() {
    if (document.hidden) { return Promise.resolve(); }
    return ask("/card/dialogs", { headers: tag ? { "if-none-match": tag } : {}, cache: "no-store" })
      .then(function (answer) {
        if (answer.status === 304) { clock(); return null; }
        if (answer.status === 401 || answer.status === 403) { notice("reopen"); return null; }
        if (!answer.ok) { throw new Error("later"); }
        tag = answer.headers.get("etag") || "";
        return answer.json().then(function (found) { dialogs = found.dialogs; draw(); });
      })
      .then(function () { body.dataset.live = "yes"; }, function () { body.dataset.live = "no"; });
  }

  function time(at) {
    var date = new Date(at);
    var today = date.toDateString() === new Date().toDateString();
    return date.toLocaleString(language, today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" });
  }
  function left(dialog) {
    var minutes = Math.floor((dialog.closes_ms - Date.now()) / 60000);
    return minutes < 0 ? null : { hours: Math.floor(minutes / 60), minutes: minutes % 60 };
  }
  function windowOf(dialog) {
    if (dialog.window === "open" && !left(dialog)) { return "closed"; }
    return dialog.window;
  }
  function clock() {
    var dialog = current();
    if (!dialog) { return; }
    var state = windowOf(dialog);
    $("window").className = state;
    $("window").textContent = state === "unlimited" ? "" :
      state === "open" ? say("window_open", left(dialog)) : say("window_closed");
    if ($("letter").dataset.window !== state) { form(); }
  }

  function draw() {
    if (!dialogs.length) { notice("nobody"); return; }
    $("notice").hidden = true;
    $("dialogs").hidden = false;
    $("talk").hidden = false;
    if (!current()) { chosen = id(dialogs[0]); form(); }
    var list = $("dialogs");
    list.replaceChildren();
    dialogs.forEach(function (dialog) {
      var button = make("button", id(dialog) === chosen ? "chosen" : "");
      button.type = "button";
      button.dataset.messenger = dialog.messenger;
      button.append(make("strong", "", dialog.title),
        make("span", "", dialog.messenger + " · " + (dialog.address || dialog.sender)));
      var last = dialog.messages[dialog.messages.length - 1];
      button.append(make("small", "", last ? last.text.slice(0, 60) || last.file : dialog.to ? say("empty") : ""));
      button.addEventListener("click", function () { choose(id(dialog)); });
      list.append(button);
    });
    var dialog = current();
    $("who").textContent = dialog.title;
    $("via").textContent = dialog.messenger + " · " + dialog.sender + (dialog.paused ? " · " + say("paused") : "");
    bubbles(dialog);
    clock();
  }

  function bubbles(dialog) {
    var now = JSON.stringify([chosen, dialog.messages]);
    if (now === drawn) { return; }
    drawn = now;
    var log = $("messages");
    log.replaceChildren();
    if (!dialog.messages.length) { log.append(make("p", "empty", say("write_first"))); }
    dialog.messages.forEach(function (message) {
      var bubble = make("article", message.out ? "out" : "in");
      bubble.dataset.state = message.state;
      if (message.file) {
        var file = make(message.link ? "a" : "span", "file", message.file);
        if (message.link) { file.href = message.link; file.target = "_blank"; file.rel = "noopener noreferrer"; }
        bubble.append(file);
      }
      if (message.text) { bubble.append(make("p", "", message.text)); }
      if (message.why) { bubble.append(make("p", "why", message.why)); }
      var foot = make("footer", "", time(message.at_ms));
      if (message.out) {
        var mark = make("span", "mark", marks(message.state));
        mark.title = message.mark;
        mark.setAttribute("aria-label", message.mark);
        foot.append(mark);
      }
      bubble.append(foot);
      log.append(bubble);
    });
    log.scrollTop = log.scrollHeight;
  }
  function marks(state) {
    return { queued: "◷", undecided: "?", accepted: "✓", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "!",
      cancelled: "×" }[state] || "";
  }

  function choose(which) {
    if (which === chosen) { return; }
    chosen = which;
    $("error").hidden = true;
    form();
    draw();
  }

  // What can be written: free text while the window is open, otherwise a template.
  function form() {
    var dialog = current();
    if (!dialog) { return; }
    var state = windowOf(dialog);
    $("letter").dataset.window = state;
    $("text").placeholder = say("text");
    $("send").textContent = say("send");
    $("file").placeholder = say("file");
    $("name").hidden = Boolean(dialog.to);
    $("name").required = !dialog.to;
    $("template").hidden = !dialog.templates;
    if (dialog.templates) { offer(dialog, state); } else { fields(); }
  }
  function offer(dialog, state) {
    var select = $("template");
    var known = templates[dialog.channel];
    select.replaceChildren();
    var none = make("option", "", known ? say(known.length ? "template" : "no_templates") : say("loading"));
    none.value = "";
    select.append(none);
    (known || []).forEach(function (template) {
      var option = make("option", "", template.label);
      option.value = template.label;
      select.append(option);
    });
    fields();
    if (known) { return; }
    ask("/card/templates/" + encodeURIComponent(dialog.channel)).then(function (answer) {
      if (!answer.ok) { throw new Error("later"); }
      return answer.json();
    }).then(function (found) {
      templates[dialog.channel] = found.templates;
      if (current() && current().channel === dialog.channel) { offer(current(), state); }
    }).catch(function () { none.textContent = say("templates_later"); });
  }
  function template() {
    var dialog = current();
    var known = (dialog && templates[dialog.channel]) || [];
    return known.find(function (one) { return one.label === $("template").value; });
  }
  function fields() {
    var one = template();
    var box = $("params");
    box.replaceChildren();
    ((one && one.params) || []).forEach(function (param, at) {
      var input = make("input");
      input.type = "text";
      input.required = true;
      input.maxLength = 1000;
      input.placeholder = say("param", { number: at + 1 });
      input.addEventListener("input", preview);
      box.append(input);
    });
    var closed = $("letter").dataset.window === "closed";
    $("text").hidden = Boolean(one);
    $("text").disabled = closed;
    $("text").placeholder = say(closed ? "text_closed" : "text");
    $("file").hidden = one ? !one.file : closed;
    $("file").required = Boolean(one && one.file);
    $("send").disabled = sending || (closed && !one);
    preview();
  }
  function values() { return Array.from($("params").children, function (input) { return input.value.trim(); }); }
  function preview() {
    var one = template();
    $("preview").hidden = !one;
    if (!one) { return; }
    var given = values();
    $("preview").textContent = one.params.reduce(function (text, param, at) {
      return param.place ? text.split(param.place).join(given[at] || param.place) : text;
    }, one.body);
  }

  function fail(text) {
    $("error").hidden = false;
    $("error").textContent = text;
  }
  function send() {
    var dialog = current();
    var one = template();
    var text = $("text").value.trim();
    var file = $("file").hidden ? "" : $("file").value.trim();
    if (sending || !dialog || (!one && !text && !file)) { return; }
    var name = $("name").hidden ? "" : $("name").value.trim();
    var letter = { channel: dialog.channel, to: name ? (name[0] === "@" ? name : "@" + name) : dialog.to };
    if (one) {
      letter.template = one.label;
      letter.params = values().map(function (value, at) { return one.params[at].prefix + value; });
    } else {
      letter.text = text;
    }
    if (file) { letter.file = file; }
    var written = chosen;
    sending = true;
    $("send").disabled = true;
    $("error").hidden = true;
    ask("/card/messages", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key: key(), letter: letter })
    }).then(function (answer) {
      if (answer.status === 202) {
        delete keys[written];
        $("text").value = "";
        $("file").value = "";
        $("name").value = "";
        $("template").value = "";
        return look();
      }
      if (answer.status === 401 || answer.status === 403) { notice("reopen"); return null; }
      return answer.json().then(function (problem) {
        // Refused as it is: another letter, though it may read the same.
        if (answer.status === 409 || answer.status === 422) { delete keys[written]; }
        fail(answer.status === 409 || answer.status === 422 ? problem.detail : say("not_kept"));
      });
    }).catch(function () { fail(say("not_kept")); }).then(function () { sending = false; fields(); });
  }

  $("letter").addEventListener("submit", function (event) { event.preventDefault(); send(); });
  $("template").addEventListener("change", fields);
  $("text").addEventListener("keydown", function (event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  });
  document.addEventListener("visibilitychange", look);
  $("notice").textContent = say("loading");
  (function again() { look().then(function () { setTimeout(again, LOOK); }); })();
})();
