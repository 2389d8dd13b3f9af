// What both scripts stand on: the packages, the stage they play on, and one line per check.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

if (!process.env.CLIENTS_NODE) {
    throw new Error('CLIENTS_NODE is not set: run tests/run, or source tests/tools/clients first');
}

/** Imports from the folder that holds the packages, which is outside the repository. */
export const load = createRequire(`${process.env.CLIENTS_NODE}/package.json`);

/** What the test has prepared. */
export const stage = JSON.parse(process.env.CLIENTS_STAGE);

/** Runs one check; the first that fails ends the script. */
export async function check(name, run) {
    try {
        await run();
    } catch (error) {
        console.log(`FAILED ${name}`);
        console.error(error);
        process.exit(1);
    }
    console.log(`ok     ${name}`);
}

/** A call to the sandbox's control API. */
export async function control(method, path, body) {
    const answer = await fetch(`${stage.control}/control/${path}`, {
        method,
        headers: { 'content-type': 'application/json' },
        body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    assert.equal(answer.status, 200, `${method} ${path}: ${text}`);
    return JSON.parse(text);
}

/** Waits until `condition` gives something. */
export async function until(what, condition) {
    for (let tries = 0; tries < 500; tries += 1) {
        const found = condition();
        if (found) return found;
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`waited in vain for ${what}`);
}

export { assert };
