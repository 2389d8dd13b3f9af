// Speaks with the Bitrix24 page that frames us: tells it our height, and that the installation is finished.
// The protocol is text messages "COMMAND:PARAMETERS:KEY:SID" to the parent, whose origin stands in window.name.
(function () {
  "use strict";
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

  call("getInitData", null, function (data) {
    call("resizeWindow", { width: "100%", height: Math.max(document.documentElement.scrollHeight, 400) });
    if (data && data.INSTALL && document.body.dataset.installing === "yes") { call("setInstallFinish"); }
  });
})();
