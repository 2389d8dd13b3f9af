// Bitrix24's own JavaScript SDK against a portal of the sandbox.
import { assert, check, control, load, stage } from './checks.mjs';

const { B24OAuth } = load('@bitrix24/b24jssdk');

const portal = `portals/${stage.member_id}`;
const issued = stage.tokens;
const b24 = new B24OAuth(
    {
        applicationToken: stage.application_token,
        userId: 1,
        memberId: stage.member_id,
        accessToken: issued.access_token,
        refreshToken: issued.refresh_token,
        expires: issued.expires,
        expiresIn: issued.expires_in,
        scope: 'crm,bizproc,placement',
        domain: stage.domain,
        clientEndpoint: stage.client_endpoint,
        serverEndpoint: stage.server_endpoint,
        status: 'L',
    },
    { clientId: stage.client_id, clientSecret: stage.client_secret },
    { restrictionParams: { retryDelay: 10 } },
);
b24.offClientSideWarning();

const renewed = [];
b24.setCallbackRefreshAuth(async ({ b24OAuthParams }) => void renewed.push({ ...b24OAuthParams }));

/** `result` of a call. */
async function call(method, params = {}) {
    const answer = await b24.actions.v2.call.make({ method, params });
    assert.ok(answer.isSuccess, `${method}: ${answer.getErrorMessages().join('; ')}`);
    return answer.getData().result;
}

/** The SDK's error of a call that must fail. */
async function refused(method, params = {}) {
    try {
        const answer = await b24.actions.v2.call.make({ method, params });
        assert.ok(!answer.isSuccess, `${method} did not fail`);
        return [...answer.getErrors()][0];
    } catch (error) {
        if (error.code === 'ERR_ASSERTION') throw error;
        return error;
    }
}

const ofDeal = { ENTITY_ID: stage.deal, ENTITY_TYPE: 'deal' };

await check('the health check of the SDK passes', async () => {
    assert.equal(await b24.tools.healthCheck.make(), true);
});
await check('the SDK learns who the user is', async () => {
    await b24.initIsAdmin();
    assert.equal(b24.auth.isAdmin, true);
    assert.equal((await call('profile')).ID, '1');
});
await check('a card is read', async () => {
    const { item } = await call('crm.item.get', { entityTypeId: 2, id: stage.deal });
    assert.equal(item.id, stage.deal);
    assert.equal(item.title, '№ 1042');
    assert.equal(item.contactId, stage.contact);
});
await check('a list has total and time', async () => {
    const answer = await b24.actions.v2.call.make({
        method: 'crm.item.list',
        params: { entityTypeId: 2, select: ['id', 'title'], filter: { id: stage.deal } },
    });
    assert.deepEqual(answer.getData().result.items, [{ id: stage.deal, title: '№ 1042' }]);
    assert.equal(answer.getTotal(), 1);
    assert.equal(answer.isMore(), false);
    assert.equal(typeof answer.getData().time.operating, 'number');
});
await check('the SDK walks through all pages of a list', async () => {
    const answer = await b24.actions.v2.callList.make({
        method: 'crm.item.list',
        params: { entityTypeId: 2, select: ['id'] },
        idKey: 'id',
        customKeyForResult: 'items',
    });
    assert.ok(answer.isSuccess, answer.getErrorMessages().join('; '));
    assert.equal(answer.getData().length, stage.deals);
    assert.equal(new Set(answer.getData().map(({ id }) => id)).size, stage.deals);
});

let comment;
await check('a comment is added, read, changed and listed', async () => {
    comment = await call('crm.timeline.comment.add', { fields: { ...ofDeal, COMMENT: 'Отправлено & <ок>' } });
    assert.equal(typeof comment, 'number');
    assert.equal((await call('crm.timeline.comment.get', { id: comment })).COMMENT, 'Отправлено & <ок>');
    await call('crm.timeline.comment.update', { id: comment, fields: { COMMENT: 'Доставлено' } });
    const list = await call('crm.timeline.comment.list', { filter: ofDeal, select: ['ID', 'COMMENT'] });
    assert.deepEqual(list, [{ ID: String(comment), COMMENT: 'Доставлено' }]);
});
await check('a batch with names and a reference', async () => {
    const answer = await b24.actions.v2.batch.make({
        calls: {
            deal: { method: 'crm.item.get', params: { entityTypeId: 2, id: stage.deal } },
            contact: { method: 'crm.item.get', params: { entityTypeId: 3, id: '$result[deal][item][contactId]' } },
            note: ['crm.timeline.comment.add', { fields: { ...ofDeal, COMMENT: 'Из пакета: 1 + 1 = 2; a&b' } }],
        },
        options: { isHaltOnError: true, returnAjaxResult: true },
    });
    assert.ok(answer.isSuccess, answer.getErrorMessages().join('; '));
    const { deal, contact, note } = answer.getData();
    assert.equal(deal.getData().result.item.id, stage.deal);
    assert.equal(contact.getData().result.item.name, 'Анна');
    const written = await call('crm.timeline.comment.get', { id: note.getData().result });
    assert.equal(written.COMMENT, 'Из пакета: 1 + 1 = 2; a&b');
});
await check('a batch goes on after an error when told so', async () => {
    const answer = await b24.actions.v2.batch.make({
        calls: {
            wrong: { method: 'crm.item.get', params: { entityTypeId: 2, id: 999999 } },
            right: { method: 'profile', params: {} },
        },
        options: { isHaltOnError: false, returnAjaxResult: true },
    });
    const results = answer.getData();
    assert.equal(results.right.getData().result.ID, '1');
    assert.equal(answer.isSuccess, false);
    assert.match(answer.getErrorMessages().join('; '), /\S/);
});
await check('an unknown method is an error of its own', async () => {
    const error = await refused('crm.no.such.method');
    assert.equal(error.code, 'ERROR_METHOD_NOT_FOUND');
    assert.equal(error.status, 404);
});
await check('a card that is not there is NOT_FOUND', async () => {
    const error = await refused('crm.item.get', { entityTypeId: 2, id: 999999 });
    assert.equal(error.code, 'NOT_FOUND');
    assert.equal(error.status, 400);
});
await check('an expired token is renewed once and the call repeated', async () => {
    await control('POST', `${portal}/expire_tokens`);
    const [first, second] = await Promise.all([call('profile'), call('server.time')]);
    assert.equal(first.ID, '1');
    assert.match(second, /^\d{4}-\d\d-\d\dT/);
    assert.equal(renewed.length, 1);
    const [now] = renewed;
    assert.notEqual(now.accessToken, issued.access_token);
    assert.notEqual(now.refreshToken, issued.refresh_token);
    assert.equal(now.clientEndpoint, stage.client_endpoint);
    assert.equal(now.serverEndpoint, stage.server_endpoint);
    assert.equal(now.status, 'L');
    assert.ok(now.expires * 1000 > Date.now() && now.expiresIn === 3600);
});
await check('a burst that is too much is waited out', async () => {
    await control('POST', 'faults', {
        target: 'rest.crm.item.get',
        action: { do: 'error', code: 'QUERY_LIMIT_EXCEEDED' },
        times: 1,
    });
    const before = b24.getHttpClient('v2').getStats().retries;
    const { item } = await call('crm.item.get', { entityTypeId: 2, id: stage.deal });
    assert.equal(item.id, stage.deal);
    assert.equal(b24.getHttpClient('v2').getStats().retries, before + 1);
});
await check('a dead refresh token is told as invalid_grant', async () => {
    await control('POST', `${portal}/kill_refresh_tokens`);
    await control('POST', `${portal}/expire_tokens`);
    const error = await b24.auth.refreshAuth().then(() => undefined, (thrown) => thrown);
    assert.equal(error?.code, 'invalid_grant', `${error}`);
    assert.equal(error.status, 400);
});
b24.destroy();
