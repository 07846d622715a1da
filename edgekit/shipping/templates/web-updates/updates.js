// Takes new releases of the model from the folder that updates.json names, in browsers. Every file is signed; what is
// not verified is not even parsed, and never replaces the model in use.
//
//     import { Classifier } from "./classifier.js";
//     import { Updates } from "./updates.js";
//     const updates = await Updates.open();
//     const release = await updates.start();                                     // null: the kit's own model
//     const model = await Classifier.open(undefined, { files: release?.files });
//     console.log((await model.classify(file))[0]);
//     await updates.good();                                                      // after the first good answer
//     const { state, reason } = await updates.check();                           // in the background, such as once a day
//
// None of the four throws. A new release is used from the next `start` on, so after the page was loaded again. If two
// starts have no good answer, the release before comes back. Needs a page that is secure: https, or localhost.
// Made by edgekit.
const SMALL = 65_536; // bytes of a metadata file
const LARGE = 8_388_608; // bytes of the metadata that lists releases
const MOST_FILES = 256;
const MOST_BYTES = 2 ** 31; // of a release
const MOST_TURNS = 256; // of root metadata in a check
const DEEPEST = 32;
const FAILED_STARTS = 2;
const FAILED_TESTS = 2;
const NO_MORE = [403, 404, 410]; // HTTP status where there is no newer root metadata
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(\/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const NEEDED = ['manifest.json', 'preprocess.json', 'labels.txt'];
class Refused extends Error {
}
class Unreachable extends Error {
    status;
    constructor(message, status = 0) {
        super(message);
        this.status = status;
    }
}
/** Keeps the model of a kit up to date. */
export class Updates {
    setup;
    started = null;
    /** @param setup what it works with, or why there are no updates here. */
    constructor(setup) {
        this.setup = setup;
    }
    /**
     * Opens the updates of a kit in a browser. Where there can be none, `start` returns null and `check` says why.
     *
     * @param folder address of the kit; default: where this file lies.
     * @param options as for `Classifier.open`: releases are tested so before they are used.
     */
    static async open(folder = new URL('.', import.meta.url), options = {}) {
        try {
            return new Updates(await inBrowser(new URL(folder, globalThis.document?.baseURI ?? import.meta.url), options));
        }
        catch (error) {
            return new Updates(failure(error));
        }
    }
    /** Returns the release to use now; null: the kit's own files. Every file of it was verified. */
    async start() {
        if ('reason' in this.setup)
            return null;
        const { store } = this.setup;
        try {
            const release = await store.exclusive('state', true, () => this.begun());
            this.started = release?.id ?? '';
            return release;
        }
        catch {
            return null; // without storage there is the kit's own model
        }
    }
    /** Says that the release gives good answers: it stays. */
    async good() {
        if ('reason' in this.setup)
            return;
        try {
            await this.change((state) => {
                // A release that a check has brought since the start has not answered yet.
                if (!state.trying || (this.started ?? state.active) !== state.active)
                    return;
                state.trying = false;
                state.starts = 0;
            });
            this.setup.store.unmark();
        }
        catch { /* it stays on trial */ }
    }
    /**
     * Looks for a new release, takes it, and tests it on this device.
     *
     * @param app version of the app, for releases that need one. @param now seconds since 1970.
     */
    async check({ app = 0, now = Date.now() / 1000 } = {}) {
        if ('reason' in this.setup)
            return this.setup;
        const { store } = this.setup;
        try {
            const outcome = await store.exclusive('update', false, () => this.checked(app, Math.floor(now)));
            return outcome ?? { state: 'busy', release: '', reason: 'another check runs' };
        }
        catch (error) {
            return failure(error);
        }
    }
    get ready() {
        return this.setup;
    }
    /** Decides what this start uses. */
    async begun() {
        const { store } = this.ready;
        const [state, saved] = await this.load();
        // Pages that are still open have not failed.
        const others = state.trying ? await store.mark() : 0;
        if (state.trying && state.starts - others >= FAILED_STARTS) {
            bar(state, state.active);
            back(state);
        }
        const release = await this.stored(state);
        if (state.trying)
            state.starts += 1;
        else
            store.unmark();
        try {
            await this.save(state, saved);
        }
        catch {
            if (!state.trying)
                return release;
            back(state); // a start that is not counted could be repeated for ever
            return this.stored(state);
        }
        return release;
    }
    /** Returns the active release; where it is damaged (a power cut), the one before. */
    async stored(state) {
        while (state.active) {
            const release = await this.complete(state.active);
            if (release)
                return release;
            await this.ready.store.remove(`releases/${state.active}`).catch(() => { });
            back(state);
        }
        return null;
    }
    /** Returns a release with all its files; null where one is missing or damaged. */
    async complete(id) {
        const { store } = this.ready;
        try {
            const listed = record(JSON.parse(decoded(await present(store, `releases/${id}/files.json`))), 'files.json');
            const files = new Map();
            for (const [name, told] of Object.entries(listed)) {
                const bytes = NAME.test(name) ? await present(store, `releases/${id}/${name}`) : null;
                const wanted = record(told, name);
                if (!bytes || bytes.length !== wanted.length || (await sha256(bytes)) !== wanted.sha256)
                    return null;
                files.set(name, bytes);
            }
            return { id, files };
        }
        catch {
            return null;
        }
    }
    /** Checks the release folder, step by step as TUF says. */
    async checked(app, now) {
        const { settings: { channel, built } } = this.ready;
        const before = await this.change((state) => ({ ...state }));
        const clock = Math.max(now, before.clock);
        const root = await this.newestRoot();
        if (root.expires <= clock)
            throw new Refused('root.json: expired');
        const keys = keysOf(root);
        const seen = before.keys === keys ? before : { timestamp: 0, snapshot: 0, targets: 0 }; // a thief's high numbers do not stay
        const timestamp = await verified(await this.get('timestamp.json', SMALL, 60), root, 'timestamp');
        await this.fresh(timestamp, 'timestamp', clock);
        const snapshotNamed = named(timestamp, 'snapshot.json', 'timestamp');
        const version = whole(timestamp.version, 'timestamp.json', 1);
        if (version < seen.timestamp || snapshotNamed.version < seen.snapshot) {
            throw new Refused('timestamp.json: older than the last one');
        }
        await this.change((state) => { Object.assign(state, { ...versions(seen), timestamp: version, keys }); });
        const settled = `${snapshotNamed.version} ${app} ${channel} ${built}`;
        if (settled === before.settled)
            return { state: 'current', release: before.active, reason: '' };
        const snapshot = await this.metadata(snapshotNamed, root, 'snapshot', SMALL);
        const targetsNamed = named(snapshot, 'targets.json', 'snapshot');
        if (targetsNamed.version < seen.targets)
            throw new Refused('snapshot.json: older than the last one');
        await this.fresh(snapshot, 'snapshot', clock);
        await this.change((state) => { state.snapshot = snapshotNamed.version; });
        const targets = await this.metadata(targetsNamed, root, 'targets', LARGE);
        await this.fresh(targets, 'targets', clock);
        const outcome = await this.taken(targets, app, async () => {
            await this.change((state) => { Object.assign(state, { targets: targetsNamed.version, clock: Math.max(state.clock, clock) }); });
        });
        await this.change((state) => { state.settled = settled; });
        return outcome;
    }
    /** Follows the root metadata to the newest, which the one before and itself have signed. */
    async newestRoot() {
        const { store } = this.ready;
        let root = await rootOf(this.ready.root);
        try {
            const kept = await rootOf(await present(store, 'root.json'));
            if (kept.version > root.version)
                root = kept;
        }
        catch { /* there is none, or it is damaged */ }
        for (let turn = 0; turn < MOST_TURNS; turn++) {
            const name = `${root.version + 1}.root.json`;
            let file;
            try {
                file = await this.get(name, SMALL, 60);
            }
            catch (error) {
                if (error instanceof Unreachable && NO_MORE.includes(error.status))
                    break;
                throw error;
            }
            await verified(file, root, 'root', name);
            const next = await rootOf(file, name);
            if (next.version !== root.version + 1)
                throw new Refused(`${name}: another version`);
            await store.write('root.json', file);
            root = next;
        }
        return root;
    }
    /** Returns verified metadata that other metadata names. */
    async metadata(wanted, root, role, most) {
        const file = await this.get(`${wanted.version}.${role}.json`, Math.min(wanted.length ?? most, most), 60);
        const isWanted = (wanted.length ?? file.length) === file.length && (!wanted.sha256 || (await sha256(file)) === wanted.sha256);
        if (!isWanted)
            throw new Refused(`${role}.json: not the file that was published`);
        const signed = await verified(file, root, role);
        if (signed.version !== wanted.version)
            throw new Refused(`${role}.json: another version`);
        return signed;
    }
    /** Refuses what has expired, and keeps the time, so that a clock set back does not revive it. */
    async fresh(signed, role, clock) {
        const expires = seconds(signed.expires, `${role}.json`);
        if (expires > clock)
            return;
        await this.change((state) => { state.clock = Math.max(state.clock, expires); });
        throw new Refused(`${role}.json: expired`);
    }
    /** Chooses a release for this device, downloads and tests it, and switches to it. */
    async taken(signed, app, accepted) {
        const { settings: { channel, kit }, store } = this.ready;
        const ours = record(signed['x-edgekit'], 'targets.json: x-edgekit');
        if (ours.schema !== 1)
            throw new Refused('targets.json: made by a newer edgekit');
        const releases = record(ours.releases, 'targets.json: releases');
        const recalled = texts(ours.recalled, 'targets.json: recalled');
        const channels = record(ours.channels, 'targets.json: channels');
        await accepted();
        if (!has(channels, channel))
            throw new Refused(`no channel ${channel}`);
        const state = await this.change((found) => ({ ...found }));
        const { candidates, reasons } = await offered(record(channels[channel], `channel ${channel}`), state.id);
        let chosen = '';
        for (const id of candidates) {
            const why = this.unsuited(id, releases, recalled, state, app);
            if (!why) {
                chosen = id;
                break;
            }
            reasons.push(why);
        }
        const isBad = (id) => recalled.includes(id) || state.barred.includes(id);
        if (!chosen && state.active && isBad(state.active)) {
            return this.withdrawn(isBad, `${state.active} ${recalled.includes(state.active) ? 'was recalled' : 'failed here before'}`);
        }
        if (!chosen || chosen === state.active) {
            return { state: 'current', release: state.active, reason: chosen ? '' : reasons.join('; ') };
        }
        await this.downloaded(chosen, filesOf(chosen, record(releases[chosen], chosen), kit, signed));
        await this.tested(chosen);
        await this.change(async (found) => {
            const last = found.trying || found.active === chosen ? found.previous : found.active;
            const isKept = last !== chosen && !recalled.includes(last);
            Object.assign(found, { previous: isKept ? last : '', active: chosen, trying: true, starts: 0, testing: '', tests: 0 });
        });
        await this.tidied(store);
        return { state: 'updated', release: chosen, reason: '' };
    }
    /** Returns why a release is not for this device; "" if it is. */
    unsuited(id, releases, recalled, state, app) {
        const { settings: { kit, contract } } = this.ready;
        if (!ID.test(id) || !has(releases, id))
            return `${id} is not listed`;
        if (recalled.includes(id))
            return `${id} was recalled`;
        if (state.barred.includes(id))
            return `${id} failed here before`;
        const release = record(releases[id], id);
        if (!has(record(release.kits, id), kit))
            return `${id} is not for ${kit}`;
        if (whole(release.app, id) > app)
            return `${id} needs version ${release.app} of the app`;
        if (whole(release.contract, id) > contract)
            return `${id} needs contract ${release.contract}`;
        return '';
    }
    /** Leaves a release that was recalled, or failed, for the one before or the kit's own model. */
    async withdrawn(isBad, reason) {
        const release = await this.change(async (state) => {
            const isThere = state.previous !== '' && !isBad(state.previous) && (await this.complete(state.previous)) !== null;
            if (!isThere)
                state.previous = '';
            back(state);
            return state.active;
        });
        await this.tidied(this.ready.store);
        return { state: 'updated', release, reason };
    }
    /** Brings every file of a release onto this device. */
    async downloaded(id, wanted) {
        const { store } = this.ready;
        const part = `releases/.${id}.part`;
        for (const name of await store.list('releases')) {
            if (name.startsWith('.') && `releases/${name}` !== part)
                await store.remove(`releases/${name}`);
        }
        if (await this.isThere(id, wanted))
            return;
        const { active } = await this.change((state) => ({ ...state }));
        const inUse = await this.listed(active);
        try {
            for (const [name, target] of wanted) {
                const isWhole = async (bytes) => bytes?.length === target.length && (await sha256(bytes)) === target.sha256;
                if (await isWhole(await store.read(`${part}/${name}`)))
                    continue;
                const same = inUse.get(target.sha256);
                let bytes = same === undefined ? null : await store.read(`releases/${active}/${same}`);
                if (!(await isWhole(bytes)))
                    bytes = await this.ready.own(target.sha256);
                if (!(await isWhole(bytes))) {
                    const cut = target.path.lastIndexOf('/') + 1;
                    const path = `targets/${target.path.slice(0, cut)}${target.sha256}.${target.path.slice(cut)}`;
                    bytes = await this.get(path, target.length, 60 + target.length / 10_000, name);
                    if (!(await isWhole(bytes)))
                        throw new Refused(`${name}: not the file that was released`);
                }
                await store.write(`${part}/${name}`, bytes);
            }
            const { model } = record(JSON.parse(decoded(await present(store, `${part}/manifest.json`))), 'manifest.json');
            if (typeof model !== 'string' || !wanted.has(model))
                throw new Refused(`${id}: manifest.json names no model of it`);
            const told = Object.fromEntries([...wanted].map(([name, { length, sha256 }]) => [name, { length, sha256 }]));
            await store.write(`${part}/files.json`, encoded(JSON.stringify(told)));
            await store.exclusive('state', true, async () => {
                await store.remove(`releases/${id}`);
                await store.rename(part, `releases/${id}`);
            });
        }
        catch (error) {
            if (error.name !== 'QuotaExceededError')
                throw error;
            await store.remove(part);
            throw new Unreachable(`no space for ${id}`);
        }
    }
    /** Returns whether a release lies on this device already, whole, with these very files. */
    async isThere(id, wanted) {
        const listed = await this.listed(id);
        const hashes = new Set([...wanted.values()].map((target) => target.sha256));
        if (listed.size !== hashes.size || ![...hashes].every((hash) => listed.has(hash)))
            return false;
        const release = await this.complete(id);
        return release !== null && [...wanted.keys()].every((name) => release.files.has(name));
    }
    /** Returns the names of a release's files by SHA-256, as it lies on this device. */
    async listed(id) {
        try {
            const listed = JSON.parse(decoded(await present(this.ready.store, `releases/${id}/files.json`)));
            return new Map(Object.entries(listed).map(([name, told]) => [String(record(told, name).sha256), name]));
        }
        catch {
            return new Map();
        }
    }
    /** Runs the test of a release; one that fails it is never used. */
    async tested(id) {
        const { store, seconds: { test: most } } = this.ready;
        const failed = async (why) => {
            await this.change(async (state) => {
                bar(state, id);
                Object.assign(state, { testing: '', tests: 0, settled: '' });
                await store.remove(`releases/${id}`);
            });
            throw new Refused(`self-test: ${why}`);
        };
        const hasDied = await this.change((state) => {
            if (state.testing === id && state.tests >= FAILED_TESTS)
                return true;
            state.tests = state.testing === id ? state.tests + 1 : 1;
            state.testing = id;
            return false;
        });
        if (hasDied)
            await failed('it crashed or hung');
        const release = await this.complete(id);
        if (!release)
            throw new Unreachable(`${id}: cannot be read back`);
        const stop = new AbortController();
        let timer;
        const late = new Promise((resolve) => {
            timer = setTimeout(() => { stop.abort(); resolve(`it took more than ${most} s`); }, most * 1000);
        });
        const why = await Promise.race([this.ready.test(release, stop.signal).catch(reasonOf), late]);
        clearTimeout(timer);
        if (why)
            await failed(why);
    }
    /** Removes every release but the active one and the one before. */
    async tidied(store) {
        await this.change(async ({ active, previous }) => {
            for (const name of await store.list('releases')) {
                if (name !== active && name !== previous)
                    await store.remove(`releases/${name}`);
            }
        }).catch(() => { }); // the next switch does it
    }
    /** Changes state.json while no other page does. */
    async change(job) {
        const done = await this.ready.store.exclusive('state', true, async () => {
            const [state, saved] = await this.load();
            const result = await job(state);
            await this.save(state, saved);
            return { result };
        });
        return done.result;
    }
    /** Returns the state, and the text that is saved of it; a new state where it is missing or damaged. */
    async load() {
        const { store, settings: { built } } = this.ready;
        let [state, saved] = [newState(built), ''];
        try {
            saved = decoded(await present(store, 'state.json'));
            state = stateOf(saved) ?? state;
        }
        catch { /* there is none, or it is damaged */ }
        if (state.built !== built) { // the app came with another model since
            Object.assign(state, { built, active: '', previous: '', settled: '', testing: '', trying: false });
        }
        return [state, saved];
    }
    async save(state, saved) {
        const text = JSON.stringify(state);
        if (text !== saved)
            await this.ready.store.write('state.json', encoded(text));
    }
    /** Returns a file of the release folder, in time and no longer than it may be. */
    async get(path, most, allowed, name = path) {
        const { settings: { url }, seconds: { read } } = this.ready;
        const stop = new AbortController();
        const late = () => stop.abort();
        const whole = setTimeout(late, allowed * 1000);
        let silent = setTimeout(late, read * 1000);
        try {
            const request = new Request(`${url.replace(/\/+$/, '')}/${path}`, {
                cache: 'no-store', credentials: 'omit', referrerPolicy: 'no-referrer', redirect: 'manual', signal: stop.signal,
                headers: { 'Accept-Encoding': 'identity' },
            });
            const answer = await fetch(request);
            if (answer.type === 'opaqueredirect' || (answer.status >= 300 && answer.status < 400)) {
                throw new Unreachable(`${name}: redirect, which is not followed`);
            }
            if (answer.status !== 200)
                throw new Unreachable(`${name}: HTTP status ${answer.status}`, answer.status);
            // Browsers choose the encoding themselves and take the header away; lengths and hashes are those of the file.
            if (request.headers.has('Accept-Encoding') && (answer.headers.get('Content-Encoding') ?? 'identity') !== 'identity') {
                throw new Unreachable(`${name}: compressed, which was not asked for`);
            }
            const bytes = new Uint8Array(most);
            let length = 0;
            const reader = answer.body?.getReader();
            for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
                clearTimeout(silent);
                silent = setTimeout(late, read * 1000);
                if (length + part.value.length > most)
                    throw new Refused(`${name}: longer than it may be`);
                bytes.set(part.value, length);
                length += part.value.length;
            }
            return length === most ? bytes : bytes.slice(0, length);
        }
        catch (error) {
            if (error instanceof Refused || error instanceof Unreachable)
                throw error;
            throw new Unreachable(`${name}: ${stop.signal.aborted ? 'no answer in time' : reasonOf(error)}`);
        }
        finally {
            clearTimeout(whole);
            clearTimeout(silent);
            stop.abort();
        }
    }
}
function newState(built) {
    return {
        schema: 1, built, id: hex(crypto.getRandomValues(new Uint8Array(16))), timestamp: 0, snapshot: 0, targets: 0, keys: '',
        clock: 0, settled: '', active: '', trying: false, starts: 0, previous: '', barred: [], testing: '', tests: 0,
    };
}
/** Returns a saved state; null where it is damaged. */
function stateOf(saved) {
    const state = record(JSON.parse(saved), 'state.json');
    const wanted = newState('');
    const isSame = Object.entries(wanted).every(([name, value]) => typeof state[name] === typeof value);
    const numbers = ['timestamp', 'snapshot', 'targets', 'clock', 'starts', 'tests'];
    if (!isSame || state.schema !== 1 || !numbers.every((name) => Number.isSafeInteger(state[name]) && state[name] >= 0))
        return null;
    if (!['active', 'previous', 'testing'].every((name) => state[name] === '' || ID.test(state[name])))
        return null;
    if (!/^[0-9a-f]{32}$/.test(state.id))
        return null;
    return { ...state, barred: [...texts(state.barred, 'state.json')] };
}
function bar(state, id) {
    if (!state.barred.includes(id))
        state.barred.push(id);
}
/** Goes back to the release before, or to the kit's own model. */
function back(state) {
    Object.assign(state, { active: state.previous, previous: '', trying: false, starts: 0, settled: '' });
}
function versions({ timestamp, snapshot, targets }) {
    return { timestamp, snapshot, targets };
}
/** Returns the releases that a channel has for this device, the best first, and why there are no others. */
async function offered(channel, device) {
    const release = text(channel.release, 'targets.json: release');
    const previous = text(channel.previous, 'targets.json: previous');
    const place = parseInt((await sha256(encoded(`${release}\n${device}`))).slice(0, 8), 16) % 10_000;
    const isOffered = place < whole(channel.rollout, 'targets.json: rollout');
    return {
        candidates: [...(isOffered ? [release] : []), ...(previous ? [previous] : [])],
        reasons: isOffered ? [] : [`${release} is not yet for this device`],
    };
}
/** Returns the files of a release for a kit, by name. */
function filesOf(id, release, kit, signed) {
    const targets = record(signed.targets, 'targets.json: targets');
    const listed = Object.entries(record(record(release.kits, id)[kit], id));
    if (listed.length > MOST_FILES)
        throw new Refused(`targets.json: ${id} has more than ${MOST_FILES} files`);
    const found = new Map();
    for (const [name, path] of listed) {
        const cut = typeof path === 'string' ? path.indexOf('/') : -1;
        const isNamed = NAME.test(name) && name !== 'files.json';
        if (!isNamed || cut !== 16 || !/^[0-9a-f]{16}\/$/.test(text(path, id).slice(0, 17)) || !NAME.test(text(path, id).slice(17))) {
            throw new Refused(`targets.json: ${JSON.stringify(name).slice(0, 100)} is no file of a release`);
        }
        if (!has(targets, text(path, id)))
            throw new Refused(`targets.json: ${name} is not signed`);
        const target = record(targets[text(path, id)], name);
        const hash = text(record(target.hashes, name).sha256, name);
        if (!SHA256.test(hash))
            throw new Refused(`targets.json: ${name} has no SHA-256`);
        found.set(name, { path: text(path, id), length: whole(target.length, name), sha256: hash });
    }
    const total = [...found.values()].reduce((sum, target) => sum + target.length, 0);
    if (total > MOST_BYTES)
        throw new Refused(`targets.json: ${id} has more than 2 GiB`);
    const missing = NEEDED.find((name) => !found.has(name));
    if (missing)
        throw new Refused(`targets.json: ${id} has no ${missing}`);
    return found;
}
/** Returns what a metadata file says, once enough keys of its role have signed it. */
async function verified(file, root, role, name = `${role}.json`) {
    const { signatures, signed } = envelope(file, name);
    const { ids, threshold } = root.roles[role];
    const bytes = encoded(signed.replaceAll('\\n', '\n'));
    const by = new Set();
    for (const [id, signature] of signatures) {
        if (ids.has(id) && !by.has(id) && (await isSigned(root.keys[id], signature, bytes)))
            by.add(id);
    }
    if (by.size < threshold)
        throw new Refused(`${name}: signed by ${by.size} of ${threshold} keys`);
    return parsed(signed, role, name);
}
/** Takes a metadata file apart: its signatures by key, and the text that they sign. */
function envelope(file, name) {
    const refused = new Refused(`${name}: not a file of metadata`);
    let all;
    try {
        all = decoded(file);
    }
    catch {
        throw refused;
    }
    const one = '\\{"keyid":"[0-9a-f]{64}","sig":"(?:[0-9a-f]{2})*"\\}';
    const head = new RegExp(`^\\{"signatures":\\[((?:${one}(?:,${one}){0,15})?)\\],"signed":(?=\\{)`).exec(all);
    if (!head || !all.endsWith('}}'))
        throw refused;
    const signed = all.slice(head[0].length, -1);
    if (/\\(?!n)/.test(signed))
        throw refused;
    const signatures = [...head[1].matchAll(/"keyid":"([0-9a-f]*)","sig":"([0-9a-f]*)"/g)];
    return { signatures: signatures.map(([, id, signature]) => [id, signature]), signed };
}
/** Parses verified canonical JSON. JSON.parse takes more than that, so the value is written again and compared. */
function parsed(signed, role, name) {
    let value;
    try {
        value = record(JSON.parse(signed), name);
    }
    catch {
        throw new Refused(`${name}: no JSON`);
    }
    if (canonical(value, 1, name) !== signed)
        throw new Refused(`${name}: not in canonical form`);
    if (value._type !== role)
        throw new Refused(`${name}: of another type`);
    return value;
}
/** Returns a value as canonical JSON, with newlines as \n. */
function canonical(value, depth, name) {
    if (value === null || typeof value === 'boolean')
        return String(value);
    if (typeof value === 'string')
        return `"${value.replaceAll('\n', '\\n')}"`;
    if (typeof value === 'number') {
        if (Number.isInteger(value) && Math.abs(value) < 1e15)
            return String(value);
        throw new Refused(`${name}: a number has a point, or more than 15 digits`);
    }
    if (depth > DEEPEST)
        throw new Refused(`${name}: more than ${DEEPEST} levels deep`);
    if (Array.isArray(value))
        return `[${value.map((each) => canonical(each, depth + 1, name)).join(',')}]`;
    const members = Object.entries(value).sort(([one], [other]) => byCodePoints(one, other));
    return `{${members.map(([key, each]) => `${canonical(key, depth, name)}:${canonical(each, depth + 1, name)}`).join(',')}}`;
}
/** Compares texts by Unicode's numbers; JavaScript compares halves of those above 65,535. */
function byCodePoints(one, other) {
    const [first, second] = [[...one], [...other]];
    const at = first.findIndex((character, n) => character !== second[n]);
    return at < 0 ? first.length - second.length : first[at].codePointAt(0) - (second[at]?.codePointAt(0) ?? -1);
}
/** Returns whether a key has signed bytes with ECDSA P-256 and SHA-256. */
async function isSigned(key, signature, bytes) {
    const { keytype, scheme, keyval } = record(key, 'root.json: key');
    if (keytype !== 'ecdsa' || scheme !== 'ecdsa-sha2-nistp256')
        return false;
    const pem = text(record(keyval, 'root.json: key').public, 'root.json: key');
    const raw = rawSignature(bytesOf(signature));
    if (!raw)
        return false;
    try {
        const spki = Uint8Array.from(atob(pem.replace(/-----[A-Z ]+-----|\n/g, '')), (character) => character.charCodeAt(0));
        const imported = await crypto.subtle.importKey('spki', spki, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['verify']);
        return await crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, imported, raw, bytes);
    }
    catch {
        return false;
    }
}
/** Returns the 64 bytes that WebCrypto takes of a signature in DER; null where it is none. */
export function rawSignature(der) {
    if (der.length < 8 || der[0] !== 0x30 || der[1] !== der.length - 2)
        return null;
    const raw = new Uint8Array(64);
    let at = 2;
    for (const end of [32, 64]) {
        const length = der[at + 1] ?? 0;
        const number = der.subarray(at + 2, at + 2 + length);
        if (der[at] !== 2 || length === 0 || number.length !== length || number[0] > 127)
            return null; // whole, not negative
        const isPadded = length > 1 && number[0] === 0;
        if (isPadded && number[1] < 128)
            return null;
        const digits = number.subarray(isPadded ? 1 : 0);
        if (digits.length > 32)
            return null;
        raw.set(digits, end - digits.length);
        at += 2 + length;
    }
    return at === der.length ? raw : null;
}
/** Reads root metadata, which must be signed by itself at least: whoever trusts it already has it from elsewhere. */
async function rootOf(file, fileName = 'root.json') {
    const signed = parsed(envelope(file, fileName).signed, 'root', fileName);
    const keys = record(signed.keys, 'root.json: keys');
    const all = record(signed.roles, 'root.json: roles');
    const keysFor = (name) => {
        const role = record(all[name], `root.json: ${name}`);
        const ids = new Set(texts(role.keyids, `root.json: ${name}`));
        if (![...ids].every((id) => has(keys, id)))
            throw new Refused(`root.json: ${name} has unknown keys`);
        return { ids, threshold: whole(role.threshold, `root.json: ${name}`, 1) };
    };
    const roles = { root: keysFor('root'), timestamp: keysFor('timestamp'), snapshot: keysFor('snapshot'), targets: keysFor('targets') };
    const root = { version: whole(signed.version, 'root.json', 1), expires: seconds(signed.expires, 'root.json'), keys, roles };
    await verified(file, root, 'root', fileName);
    return root;
}
/** Returns which keys sign what changes often, as text. */
function keysOf(root) {
    const roles = ['timestamp', 'snapshot', 'targets'];
    return roles.map((role) => `${role}:${[...root.roles[role].ids].sort().join(',')}`).join(';');
}
/** Returns what metadata says of other metadata. */
function named(signed, name, role) {
    const found = record(record(signed.meta, `${role}.json`)[name], `${role}.json: ${name}`);
    const hash = has(found, 'hashes') ? text(record(found.hashes, name).sha256, name) : null;
    if (hash !== null && !SHA256.test(hash))
        throw new Refused(`${role}.json: no SHA-256 of ${name}`);
    return { version: whole(found.version, name, 1), length: has(found, 'length') ? whole(found.length, name) : null, sha256: hash };
}
/** Returns a time such as 2030-01-31T00:00:00Z, in seconds since 1970. */
function seconds(value, what) {
    const told = text(value, what);
    const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(told) ? Date.parse(told) : NaN;
    if (Number.isNaN(time) || new Date(time).toISOString() !== told.replace('Z', '.000Z'))
        throw new Refused(`${what}: no time`);
    return time / 1000;
}
function has(fields, name) {
    return Object.hasOwn(fields, name);
}
function record(value, what) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
        throw new Refused(`${what}: no object`);
    return Object.assign(Object.create(null), value); // without what every object has: "constructor" and others
}
function texts(value, what) {
    if (!Array.isArray(value))
        throw new Refused(`${what}: no list`);
    return value.map((each) => text(each, what));
}
function text(value, what) {
    if (typeof value !== 'string')
        throw new Refused(`${what}: no text`);
    return value;
}
function whole(value, what, least = 0) {
    if (!Number.isSafeInteger(value) || value < least)
        throw new Refused(`${what}: no whole number`);
    return value;
}
async function present(store, path) {
    const bytes = await store.read(path);
    if (!bytes)
        throw new Unreachable(`${path}: missing`);
    return bytes;
}
async function sha256(bytes) {
    return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)));
}
function hex(bytes) {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
function bytesOf(digits) {
    return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}
/** Decodes UTF-8, and refuses what is none. */
function decoded(bytes) {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
}
function encoded(text) {
    return new TextEncoder().encode(text);
}
function reasonOf(error) {
    const { message, cause } = error;
    return cause?.message || message || String(error);
}
/** Returns what a failed check came to. */
function failure(error) {
    const isFull = error.name === 'QuotaExceededError';
    const state = error instanceof Refused ? 'refused' : 'unreachable';
    return { state, release: '', reason: isFull ? 'no space for updates' : reasonOf(error) };
}
/** Returns what `Updates` works with in a browser. */
async function inBrowser(base, options) {
    if (!globalThis.isSecureContext || !globalThis.crypto?.subtle || !globalThis.navigator?.locks) {
        throw new Refused('this page is not secure: browsers verify signatures on https and on localhost only');
    }
    const file = async (name) => {
        const answer = await fetch(new URL(name, base));
        if (!answer.ok)
            throw new Unreachable(`${name}: HTTP status ${answer.status}`);
        return new Uint8Array(await answer.arrayBuffer());
    };
    const settings = JSON.parse(decoded(await file('updates.json')));
    if (settings.schema !== 1)
        throw new Refused('updates.json: made by another edgekit than updates.js');
    return {
        settings,
        root: await file('root.json'),
        store: await Database.open(`edgekit updates of ${base.href}`),
        own: async (sha256) => {
            const { files } = JSON.parse(decoded(await file('manifest.json')));
            const name = Object.keys(files).find((each) => files[each] === sha256);
            return name === undefined ? null : file(name).catch(() => null);
        },
        test: (release) => selfTest(release, base, options),
        seconds: { read: 15, test: 300 },
    };
}
/** Compares a release with its golden set in this browser: pixels to tensor, values, scores and labels. */
async function selfTest({ files }, base, options) {
    const [{ Classifier }, { check, noise, open }] = await Promise.all([import('./classifier.js'), import('./golden.js')]);
    const model = await Classifier.open(base, { ...options, files });
    try {
        const file = async (name) => {
            const bytes = files.get(`golden/${name}`);
            if (!bytes)
                throw new Error(`golden/${name} is missing`);
            return bytes;
        };
        const golden = await open(file, model.labels.length);
        const levels = await check(golden, {
            contract: model.contract,
            labels: model.labels,
            delegate: model.accelerator === 'webgpu' ? 'gpu' : 'cpu',
            noFiles: 'some browsers change what a page reads of a picture, whatever the model',
            pixels: (each) => model.pixels(noise(each.source)),
            scores: (square) => model.scores(square),
        });
        const wrong = levels.find((each) => !each.skipped && (each.problems.length > 0 || each.checked === 0));
        return wrong ? `${wrong.level}: ${wrong.cause || wrong.problems[0] || 'nothing to check'}` : '';
    }
    finally {
        model.close();
    }
}
/** Files in IndexedDB, and locks between the pages of an origin. */
class Database {
    database;
    name;
    answered = null;
    constructor(database, name) {
        this.database = database;
        this.name = name;
    }
    static async open(name) {
        const request = indexedDB.open(name, 1);
        const database = await new Promise((resolve, reject) => {
            request.onupgradeneeded = () => request.result.createObjectStore('files');
            request.onsuccess = () => resolve(request.result);
            request.onerror = () => reject(request.error);
        });
        return new Database(database, name);
    }
    async read(path) {
        return (await this.run('readonly', (files) => files.get(path))) ?? null;
    }
    async write(path, bytes) {
        await this.run('readwrite', (files) => files.put(bytes, path));
    }
    async list(folder) {
        const paths = (await this.run('readonly', (files) => files.getAllKeys(inside(folder))));
        return [...new Set(paths.map((path) => path.slice(folder.length + 1).split('/')[0]))];
    }
    async remove(folder) {
        await this.run('readwrite', (files) => files.delete(inside(folder)));
    }
    async rename(from, to) {
        await this.run('readwrite', (files) => {
            const request = files.openCursor(inside(from));
            request.onsuccess = () => {
                const cursor = request.result;
                if (!cursor)
                    return;
                files.put(cursor.value, to + cursor.key.slice(from.length));
                cursor.delete();
                cursor.continue();
            };
            return request;
        });
    }
    async exclusive(lock, waits, job) {
        return navigator.locks.request(`${this.name}: ${lock}`, { ifAvailable: !waits }, async (held) => (held ? job() : null));
    }
    async mark() {
        this.unmark();
        const name = `${this.name}: started`;
        const { held = [] } = await navigator.locks.query();
        await new Promise((marked) => {
            void navigator.locks.request(name, { mode: 'shared' }, () => {
                marked();
                return new Promise((resolve) => { this.answered = resolve; });
            });
        });
        return held.filter((lock) => lock.name === name).length;
    }
    unmark() {
        this.answered?.();
        this.answered = null;
    }
    /** Runs a request in a transaction of its own. */
    run(mode, job) {
        return new Promise((resolve, reject) => {
            const transaction = this.database.transaction('files', mode, { durability: 'strict' });
            const request = job(transaction.objectStore('files'));
            transaction.oncomplete = () => resolve(request.result);
            transaction.onabort = () => reject(transaction.error ?? new Error('the browser ended the storage'));
        });
    }
}
/** Returns the keys of what is in a folder. */
function inside(folder) {
    return IDBKeyRange.bound(`${folder}/`, `${folder}0`, false, true); // 0 comes after /
}
