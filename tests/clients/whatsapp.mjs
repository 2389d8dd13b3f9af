// An independent WhatsApp Cloud API client against the sandbox's Graph API and its webhooks.
import { createServer } from 'node:http';

import { assert, check, control, load, stage, until } from './checks.mjs';

const { GraphApiError, WhatsAppClient, buildTemplateSendPayload } = load('@kapso/whatsapp-cloud-api');
const { normalizeWebhook, verifySignature } = load('@kapso/whatsapp-cloud-api/server');

const client = new WhatsAppClient({ accessToken: stage.access_token, baseUrl: stage.graph, graphVersion: 'v24.0' });
const phoneNumberId = stage.phone_number_id;
const to = stage.customer;
const number = `numbers/${phoneNumberId}`;

const asked = [];
const hooks = [];
const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://127.0.0.1');
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
        if (request.method === 'GET') {
            asked.push(Object.fromEntries(url.searchParams));
            const known = url.searchParams.get('hub.verify_token') === stage.verify_token;
            response.writeHead(known ? 200 : 403).end(known ? url.searchParams.get('hub.challenge') : '');
        } else {
            hooks.push({ raw: Buffer.concat(chunks), headers: request.headers });
            response.writeHead(200).end();
        }
    });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

/** Everything of one kind that has come by webhook, as the client reads it. */
const come = (kind) => hooks.flatMap(({ raw }) => normalizeWebhook(JSON.parse(raw))[kind]);
const statusOf = (id, status) => until(`${status} of ${id}`, () =>
    come('statuses').find((own) => own.id === id && own.status === status));

/** The client's error of a call that must fail. */
async function refused(promise) {
    const error = await promise.then(() => undefined, (thrown) => thrown);
    assert.ok(error instanceof GraphApiError, `not refused by the API: ${error}`);
    assert.ok(error.fbtraceId, 'an error has a trace id');
    return error;
}

function accepted(answer) {
    assert.equal(answer.messagingProduct, 'whatsapp');
    const [contact] = answer.contacts;
    assert.deepEqual([contact.input, contact.waId], [to, to]);
    assert.match(contact.userId, /^[A-Z]{2}\./);
    assert.match(answer.messages[0].id, /^wamid\./);
    return answer.messages[0].id;
}

await check('the callback address is verified by a challenge', async () => {
    await control('POST', `${number}/subscribe`, { url: `http://127.0.0.1:${server.address().port}/hook` });
    assert.equal(asked.length, 1);
    assert.equal(asked[0]['hub.mode'], 'subscribe');
    assert.match(asked[0]['hub.challenge'], /^\d+$/);
});

let template;
await check('templates are listed', async () => {
    const { data, paging } = await client.templates.list({ businessAccountId: stage.waba_id, limit: 100 });
    template = data.find(({ name }) => name === 'order_ready');
    assert.deepEqual(
        [template.language, template.status, template.category],
        ['ru', 'APPROVED', 'UTILITY'],
    );
    assert.ok(paging.cursors.after);
});
await check('a template with a parameter is sent and its life is told', async () => {
    const id = accepted(await client.messages.sendTemplate({
        phoneNumberId,
        to,
        bizOpaqueCallbackData: 'order-1042',
        template: buildTemplateSendPayload({
            name: 'order_ready',
            language: 'ru',
            body: [{ type: 'text', text: '№ 1042' }],
        }),
    }));
    for (const status of ['sent', 'delivered', 'read']) {
        const told = await statusOf(id, status);
        assert.equal(told.recipientId, to);
        assert.equal(told.bizOpaqueCallbackData, 'order-1042');
        assert.match(told.timestamp, /^\d{10}$/);
    }
});
await check('a template that is not there is 132001', async () => {
    const error = await refused(client.messages.sendTemplate({
        phoneNumberId,
        to,
        template: { name: 'no_such_template', language: { code: 'ru' } },
    }));
    assert.equal(error.code, 132001);
    assert.equal(error.httpStatus, 404);
    assert.ok(error.isTemplateError());
    assert.equal(error.type, 'OAuthException');
});
await check('free text outside the window fails later, by webhook, with 131047', async () => {
    const id = accepted(await client.messages.sendText({ phoneNumberId, to, body: 'Рано' }));
    const failed = await statusOf(id, 'failed');
    assert.equal(failed.errors[0].code, 131047);
    assert.ok(failed.errors[0].title && failed.errors[0].errorData.details);
});

let inbound;
await check('an inbound message comes and is understood', async () => {
    await control('POST', `phones/${to}/send`, {
        number: phoneNumberId,
        message: { type: 'text', body: 'Здравствуйте! 😀 a/b' },
    });
    inbound = await until('the inbound message', () => come('messages')[0]);
    assert.equal(inbound.from, to);
    assert.equal(inbound.type, 'text');
    assert.equal(inbound.text.body, 'Здравствуйте! 😀 a/b');
    assert.equal(inbound.kapso.direction, 'inbound');
    const [contact] = come('contacts').filter(({ profile }) => profile?.name);
    assert.equal(contact.waId, to);
    const last = normalizeWebhook(JSON.parse(hooks.at(-1).raw));
    assert.equal(last.object, 'whatsapp_business_account');
    assert.equal(last.phoneNumberId, phoneNumberId);
});
await check('it is marked as read', async () => {
    assert.equal((await client.messages.markRead({ phoneNumberId, messageId: inbound.id })).success, true);
});
await check('text in the window, as an answer', async () => {
    const id = accepted(await client.messages.sendText({
        phoneNumberId, to, body: 'Готово', previewUrl: false, contextMessageId: inbound.id,
    }));
    await statusOf(id, 'read');
});
await check('media by link', async () => {
    const id = accepted(await client.messages.sendImage({
        phoneNumberId, to, image: { link: 'https://files.example/photo.jpg', caption: 'Фото' },
    }));
    await statusOf(id, 'delivered');
    accepted(await client.messages.sendDocument({
        phoneNumberId, to, document: { link: 'https://files.example/a.pdf', filename: 'Счёт.pdf' },
    }));
});
await check('media by id: upload, look up, download, send, delete', async () => {
    const bytes = new TextEncoder().encode('%PDF-1.4 test');
    const { id: mediaId } = await client.media.upload({
        phoneNumberId, type: 'application/pdf', file: new Blob([bytes], { type: 'application/pdf' }), fileName: 'a.pdf',
    });
    const about = await client.media.get({ mediaId });
    assert.equal(about.mimeType, 'application/pdf');
    assert.equal(Number(about.fileSize), bytes.length);
    const back = await client.media.download({ mediaId, auth: 'always' });
    assert.deepEqual(new Uint8Array(back), bytes);
    accepted(await client.messages.sendDocument({ phoneNumberId, to, document: { id: mediaId, filename: 'a.pdf' } }));
    assert.equal((await client.media.delete({ mediaId })).success, true);
});
await check('a reply button and its tap', async () => {
    const id = accepted(await client.messages.sendInteractiveButtons({
        phoneNumberId, to, bodyText: 'Ждать?', buttons: [{ id: 'yes', title: 'Да' }, { id: 'no', title: 'Нет' }],
    }));
    await statusOf(id, 'delivered');
    await control('POST', `phones/${to}/tap`, { number: phoneNumberId, wamid: id, caption: 'Да' });
    const tap = await until('the tap', () => come('messages').find(({ type }) => type === 'interactive'));
    assert.deepEqual(tap.interactive.buttonReply, { id: 'yes', title: 'Да' });
    assert.equal(tap.context.id, id);
});
await check('a wrong token is an authorization error', async () => {
    const stranger = new WhatsAppClient({ accessToken: 'EAAwrong', baseUrl: stage.graph, graphVersion: 'v24.0' });
    const error = await refused(stranger.messages.sendText({ phoneNumberId, to, body: 'x' }));
    assert.equal(error.code, 190);
    assert.equal(error.httpStatus, 401);
    assert.ok(error.isAuthError() && error.requiresTokenRefresh());
});
await check('too much at once is told as throttling', async () => {
    await control('POST', 'faults', {
        target: 'graph.messages', action: { do: 'error', code: '130429' }, times: 1,
    });
    const error = await refused(client.messages.sendText({ phoneNumberId, to, body: 'x' }));
    assert.equal(error.code, 130429);
    assert.ok(error.isRateLimit());
});
await check('every webhook is signed with the application secret, and with nothing else', async () => {
    await control('GET', 'settled?within_ms=5000');
    assert.ok(hooks.length >= 10, `${hooks.length} webhooks`);
    for (const { raw, headers } of hooks) {
        const signatureHeader = headers['x-hub-signature-256'];
        assert.match(headers['content-type'], /^application\/json/);
        assert.ok(verifySignature({ appSecret: stage.app_secret, rawBody: raw, signatureHeader }));
        assert.ok(!verifySignature({ appSecret: 'another', rawBody: raw, signatureHeader }));
        const changed = Buffer.concat([raw, Buffer.from(' ')]);
        assert.ok(!verifySignature({ appSecret: stage.app_secret, rawBody: changed, signatureHeader }));
    }
});
server.close();
server.closeAllConnections();
