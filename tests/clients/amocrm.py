"""aioamocrm, a client of another maker, works with a simulated account.

Standard input: {"base_url", "client_id", "client_secret", "redirect_uri", "code", "lead", "contact"}. One line per step; the
first that fails ends the script.
"""

import asyncio
import json
import sys

from aioamocrm import AmoCRMClient, AuthError, NotFoundError, OAuth2, ValidationError

given = json.load(sys.stdin)


def ok(what):
    print(f"ok     {what}", flush=True)


async def refused(kind, work):
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


async def main():
    auth = OAuth2(given["client_id"], given["client_secret"], given["redirect_uri"])
    async with AmoCRMClient(base_url=given["base_url"], auth=auth, rate_limit=4) as amo:
        first = await auth.exchange_code(amo._endpoint, given["code"])
        await refused(AuthError, auth.exchange_code(amo._endpoint, given["code"]))
        ok("a code is good for one exchange")

        account = await amo.account.get()
        assert account.subdomain == "acme", account
        ok("the account tells who it is")

        lead = await amo.leads.get(given["lead"], with_=["contacts"])
        linked = lead.embedded.contacts
        assert [(one.id, one.is_main) for one in linked] == [(given["contact"], True)], linked
        plain = await amo.leads.get(given["lead"])
        assert plain.embedded.contacts == [], plain
        await refused(NotFoundError, amo.leads.get(1))
        ok("leads are read, with contacts when asked for, and a missing one is found missing")

        people = [one async for one in amo.contacts.iterate(filter={"id": [given["contact"]]})]
        assert [one.id for one in people] == [given["contact"]], people
        assert people[0].field_value("PHONE") == "+7 905 111-22-33", people[0]
        nobody = [one async for one in amo.contacts.iterate(filter={"id": [1]})]
        assert nobody == [], nobody
        ok("contacts are filtered by id, and nobody is nobody")

        note = {
            "entity_id": given["lead"],
            "note_type": "extended_service_message",
            "params": {"service": "Test", "text": "Привет"},
            "is_need_to_trigger_digital_pipeline": False,
        }
        made = await amo.leads.notes.create([note])
        read = [one async for one in amo.leads.notes.iterate(entity_id=given["lead"])]
        assert [(one.id, one.text) for one in read] == [(made[0].id, "Привет")], read
        wrong = await refused(ValidationError, amo.leads.notes.create([note, {**note, "entity_id": 1}]))
        assert any("EntityNotFound" in str(issue) for issue in wrong.errors), wrong.errors
        assert len([one async for one in amo.leads.notes.iterate(entity_id=given["lead"])]) == 1
        ok("notes are written in arrays, all or none")

        changed = await amo.leads.update([{"id": given["lead"], "name": "Новое имя"}])
        assert changed[0].id == given["lead"]
        assert (await amo.leads.get(given["lead"])).name == "Новое имя"
        ok("leads are changed")

        # The client does not count calls of the token server, which share the limit of this address.
        await asyncio.sleep(1)
        second = await auth.refresh(amo._endpoint)
        assert second.refresh_token != first.refresh_token
        spent = OAuth2(given["client_id"], given["client_secret"], given["redirect_uri"])
        await spent.storage.save(first)
        await refused(AuthError, spent.refresh(amo._endpoint))
        ok("a refresh token is good for one exchange")


asyncio.run(main())
