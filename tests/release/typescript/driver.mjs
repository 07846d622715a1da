// Runs the client of the kit for browsers in Node.js, on a folder instead of IndexedDB.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [program, ...words] = process.argv.slice(2);
const { Updates } = await import(pathToFileURL(program));
const given = { timeout: '15', test: '', 'test-seconds': '300', app: '0' };
const commands = [];
for (let i = 0; i < words.length; i++) {
  if (words[i].startsWith('--')) given[words[i].slice(2)] = words[++i];
  else commands.push(words[i]);
}

const bytesOf = (file) => {
  try {
    return new Uint8Array(fs.readFileSync(file));
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR'].includes(error.code)) return null;
    throw error;
  }
};

/** Files in a folder, as `Store` says. */
class Folder {
  constructor(root) { this.root = root; }
  at(name) { return path.join(this.root, name); }
  async read(name) { return bytesOf(this.at(name)); }
  async write(name, bytes) {
    const file = this.at(name);
    const temporary = path.join(path.dirname(file), `.${path.basename(file)}.new`);
    try {
      fs.mkdirSync(path.dirname(file), { recursive: true });
      const handle = fs.openSync(temporary, 'w');
      try {
        fs.writeSync(handle, bytes);
        if (fs.fstatSync(handle).size !== bytes.length) throw Object.assign(new Error(), { code: 'ENOSPC' });
        fs.fsyncSync(handle);
      } finally {
        fs.closeSync(handle);
      }
      fs.renameSync(temporary, file);
    } catch (error) {
      fs.rmSync(temporary, { force: true });
      if (error.code !== 'ENOSPC') throw error;
      throw Object.assign(new Error('no space'), { name: 'QuotaExceededError' });
    }
  }
  async list(folder) { return fs.existsSync(this.at(folder)) ? fs.readdirSync(this.at(folder)) : []; }
  async remove(folder) { fs.rmSync(this.at(folder), { recursive: true, force: true }); }
  async rename(from, to) { fs.renameSync(this.at(from), this.at(to)); }
  async exclusive(lock, waits, job) {
    fs.mkdirSync(this.root, { recursive: true });
    const file = this.at(`${lock}.lock`);
    while (!taken(file)) {
      if (!waits && fs.existsSync(file)) return null;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    try {
      return await job();
    } finally {
      fs.rmSync(file, { force: true });
    }
  }
  async mark() { return 0; }
  unmark() {}
}

/** Makes a file that says who holds a lock; one of a process that has ended does not count. */
function taken(file) {
  const mine = `${file}.${process.pid}`;
  fs.writeFileSync(mine, String(process.pid));
  try {
    fs.linkSync(mine, file);
    return true;
  } catch {
    const owner = Number(bytesOf(file) && fs.readFileSync(file, 'utf8'));
    try {
      if (owner) process.kill(owner, 0);
    } catch {
      fs.rmSync(file, { force: true });
    }
    return false;
  } finally {
    fs.rmSync(mine, { force: true });
  }
}

/** Runs a self-test; one that ends with 86 ends this program, as a crash in an app does. */
function tested(folder, stop) {
  if (!given.test) return Promise.resolve('');
  return new Promise((resolve) => {
    const child = spawn(given.test, [folder], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
    stop.addEventListener('abort', () => process.kill(-child.pid, 'SIGKILL'));
    let said = '';
    child.stdout.on('data', (data) => { said += data; });
    child.on('close', (status) => {
      if (status === 86) process.kill(process.pid, 'SIGKILL');
      resolve(status === 0 ? '' : said.trim() || `exit status ${status}`);
    });
  });
}

const settings = JSON.parse(fs.readFileSync(path.join(given.kit, 'updates.json'), 'utf8'));
const inside = fs.readdirSync(given.kit, { recursive: true }).map((name) => path.join(given.kit, name));
const updates = new Updates({
  settings: { ...settings, ...(given.url && { url: given.url }), ...(given.channel && { channel: given.channel }) },
  root: bytesOf(path.join(given.kit, 'root.json')),
  store: new Folder(given.state),
  own: async (wanted) => inside.filter((name) => fs.statSync(name).isFile()).map(bytesOf)
    .find((bytes) => createHash('sha256').update(bytes).digest('hex') === wanted) ?? null,
  test: (release, stop) => tested(path.join(given.state, 'releases', release.id), stop),
  seconds: { read: Number(given.timeout), test: Number(given['test-seconds']) },
});
for (const command of commands) {
  let answer = {};
  if (command === 'check') {
    answer = await updates.check({ app: Number(given.app), ...(given.now && { now: Number(given.now) }) });
  } else if (command === 'start') {
    const release = await updates.start();
    answer = { release: release?.id ?? '', folder: release ? path.join(given.state, 'releases', release.id) : given.kit };
  } else if (command === 'good') {
    await updates.good();
  } else {
    process.exit(2);
  }
  console.log(JSON.stringify({ did: command, ...answer }));
}
