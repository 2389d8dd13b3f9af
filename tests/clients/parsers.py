"""Webhook and callback parsers of other makers, fed with what the sandbox really sent.

Standard input: {"robot": body, "events": [body …], "number": {…}, "challenge": query,
"webhooks": [{"body": text, "signature": header}]}. One line per check; the first that fails ends the script.
"""

import json
import logging
import sys
import traceback
from urllib.parse import parse_qsl

from b24pysdk.credentials import OAuthEventData, OAuthWorkflowData
from pywa import WhatsApp, types

# pywa tells about the forged signatures below.
logging.getLogger("pywa").setLevel(logging.ERROR)

given = json.load(sys.stdin)


def check(name):
    """Runs the function at once."""

    def run(function):
        try:
            function()
        except Exception:
            print(f"FAILED {name}", flush=True)
            traceback.print_exc()
            sys.exit(1)
        print(f"ok     {name}", flush=True)

    return run


def form(body):
    return dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))


@check("a robot's callback is read by Bitrix24's Python SDK")
def _():
    robot = OAuthWorkflowData.from_dict(form(given["robot"]))
    assert robot.code == "send_message", robot
    assert robot.document_id[:2] == ["crm", "CCrmDocumentDeal"], robot.document_id
    assert robot.document_type == ["crm", "CCrmDocumentDeal", "DEAL"], robot.document_type
    assert robot.event_token and robot.workflow_id, robot
    assert robot.use_subscription is True and robot.timeout_duration == 86400, robot
    assert robot.properties["phones"] == ["+7 916 123-45-67"], robot.properties
    assert robot.properties["text"] == "Заказ № 1042 готов\nждём", robot.properties
    assert robot.auth.member_id == given["member_id"], robot.auth
    assert robot.auth.client_endpoint == given["client_endpoint"], robot.auth
    assert robot.auth.application_token == given["application_token"], robot.auth


@check("events are read by Bitrix24's Python SDK")
def _():
    seen = {}
    for body in given["events"]:
        event = OAuthEventData.from_dict(form(body))
        assert event.event_handler_id >= 0, event
        assert event.auth.member_id == given["member_id"], event
        seen[event.event] = event
    assert set(seen) == {"ONAPPINSTALL", "ONCRMDEALADD", "ONAPPUNINSTALL"}, sorted(seen)
    assert not seen["ONAPPINSTALL"].is_system
    assert seen["ONCRMDEALADD"].data["FIELDS"]["ID"].isdigit(), seen["ONCRMDEALADD"].data
    assert seen["ONAPPUNINSTALL"].is_system, "after an uninstallation there are no tokens"


number = given["number"]
client = WhatsApp(
    phone_id=number["phone_number_id"],
    waba_id=number["waba_id"],
    token=number["access_token"],
    app_secret=number["app_secret"],
    verify_token=number["verify_token"],
    server=None,
    skip_duplicate_updates=False,
)
updates = []
client.on_message()(lambda _, update: updates.append(update))
client.on_message_status()(lambda _, update: updates.append(update))
client.on_callback_button()(lambda _, update: updates.append(update))
client.on_template_status_update()(lambda _, update: updates.append(update))


@check("the challenge is accepted by pywa")
def _():
    query = form(given["challenge"])
    assert query["hub.mode"] == "subscribe", query
    answer = client.webhook_challenge_handler(vt=query["hub.verify_token"], ch=query["hub.challenge"])
    assert answer == (query["hub.challenge"], 200), answer


@check("signatures are accepted by pywa, forged ones are not")
def _():
    assert given["webhooks"]
    for hook in given["webhooks"]:
        raw = hook["body"].encode()
        assert client.webhook_update_validator(raw, hook["signature"]) is None, hook
        assert client.webhook_update_validator(raw + b" ", hook["signature"]) == ("Forbidden", 403)


@check("every webhook becomes an update of pywa")
def _():
    for hook in given["webhooks"]:
        before = len(updates)
        body = json.loads(hook["body"])
        value = body["entry"][0]["changes"][0]["value"]
        if [own["status"] for own in value.get("statuses", [])] == ["failed"]:
            # Meta leaves `contacts` out of failures; pywa cannot read a status without it.
            assert "contacts" not in value, value
            value["contacts"] = [{"wa_id": given["customer"], "profile": {"name": "?"}}]
        assert client.webhook_update_handler(json.dumps(body).encode()) == ("ok", 200)
        assert len(updates) == before + 1, hook["body"]


@check("messages and statuses say what was meant")
def _():
    messages = [update for update in updates if isinstance(update, types.Message)]
    texts = {update.text for update in messages if update.text}
    assert texts == {"Здравствуйте! 😀 a/b"}, texts
    kinds = {update.type.value for update in messages}
    assert kinds >= {"text", "image", "location", "reaction"}, kinds
    for update in messages:
        assert update.from_user.wa_id == given["customer"], update.from_user
        assert update.metadata.phone_number_id == number["phone_number_id"], update.metadata
    image = next(update.image for update in messages if update.image)
    assert (image.mime_type, image.id.isdigit()) == ("image/jpeg", True), image
    statuses = [update for update in updates if isinstance(update, types.MessageStatus)]
    words = {update.status.value for update in statuses}
    assert words == {"sent", "delivered", "read", "failed"}, words
    failed = next(update for update in statuses if update.error)
    assert type(failed.error).__name__ == "ReEngagementMessage" and failed.error.code == 131047, failed.error
    assert {update.tracker for update in statuses} >= {"order-1042"}, statuses
    sent = next(update for update in statuses if update.status.value == "sent")
    assert sent.pricing.category == "utility" or sent.pricing.category.value == "utility", sent.pricing
    (template,) = [update for update in updates if isinstance(update, types.TemplateStatusUpdate)]
    assert template.template_name == "order_ready", template
