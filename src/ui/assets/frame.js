// Speaks with the Bitrix24 page that frames us: tells it our height, that the installation is finished, and asks it for
// fresh tokens. The protocol is text messages "COMMAND:PARAMETERS:KEY:SID" to the parent, whose origin is in window.name.
(function () {
  "use strict";
  var language = document.documentElement.lang;
  document.querySelectorAll("time").forEach(function (time) {
    var at = new Date(time.dateTime);
    if (!isNaN(at)) { time.textContent = at.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" }); }
  });
  // A second press while the first is on its way would only repeat it.
  document.querySelectorAll(".buttons form").forEach(function (form) {
    form.addEventListener("submit", function () { form.querySelector("button").disabled = true; });
  });

  var parts = window.name.split("|");
  if (parts.length !== 3 || window.parent === window) { return; }
  var host = parts[0].replace(/:(80|443)$/, "");
  var origin = (parts[1] === "0" ? "http://" : "https://") + host;
  var sid = parts[2];
  var waiting = {};
  var counter = 0;

  function call(command, params, done) {
    var message = command;
    if (params) { message += ":" + JSON.stringify(params); }
    if (done) {
      counter += 1;
      var key = "m" + counter;
      waiting[key] = done;
      message += ":" + key;
    }
    window.parent.postMessage(message + ":" + sid, origin);
  }

  window.addEventListener("message", function (event) {
    if (event.origin !== origin || typeof event.data !== "string") { return; }
    var at = event.data.indexOf(":");
    var key = at < 0 ? event.data : event.data.slice(0, at);
    var done = waiting[key];
    if (!done) { return; }
    delete waiting[key];
    var answer = null;
    try { answer = JSON.parse(event.data.slice(at + 1)); } catch (e) { answer = null; }
    done(answer);
  });

  window.mostikFrame = { call: call };
  var tab = document.body.classList.contains("tab");
  call("getInitData", null, function (data) {
    var height = tab ? 640 : Math.max(document.documentElement.scrollHeight, 400);
    call("resizeWindow", { width: "100%", height: height });
    if (data && data.INSTALL && document.body.dataset.installing === "yes") { call("setInstallFinish"); }
  });
})();
