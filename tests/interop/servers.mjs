// Servers as people run them, behind the example proxy, and the official clients in front of it. A session at
// the server is a session of the layer, before, during and after; whatever clients do, nothing stays.
//
// What must hold is judged here, whatever is committed. The table says how each server and client goes about it.

import { createWriteStream, mkdirSync } from 'node:fs';
import { get } from 'node:http';
import { json } from 'node:stream/consumers';
import { examples, here, inTurn, node, out, sleep, talk } from './processes.mjs';
import { Driven, Failed } from './driven.mjs';
import { HOSTILE, mayOpen, send } from './hostile.mjs';
import { environments, pinned, python } from './python.mjs';

const typescript = (setUp) => ({ command: node, args: [`${here}servers/node/server.mjs`, setUp] });
const official = (name, line) => ({
  command: python(name),
  args: [`${here}servers/python/server.py`, line],
  title: () => `Python \`mcp\` ${pinned(name, 'mcp')}`,
});

const SERVERS = [
  { name: 'mcp-1.20', ...official('mcp-1.20', 'sdk1') },
  { name: 'mcp-1.29', ...official('mcp-1.29', 'sdk1') },
  { name: 'mcp-1', ...official('mcp-1', 'sdk1') },
  { name: 'mcp-2', ...official('mcp-2', 'sdk2') },
  {
    name: 'fastmcp',
    ...official('fastmcp', 'fastmcp'),
    title: () => `FastMCP ${pinned('fastmcp', 'fastmcp')}, on \`mcp\` ${pinned('fastmcp', 'mcp')}`,
  },
  {
    name: 'routes',
    ...typescript('routes'),
    title: ({ sdk }) => `\`@modelcontextprotocol/sdk\` ${sdk}, routes for POST, GET and DELETE`,
  },
  {
    name: 'no-get',
    ...typescript('no-get'),
    title: ({ sdk }) => `\`@modelcontextprotocol/sdk\` ${sdk}, no GET route`,
  },
  {
    name: 'any',
    ...typescript('any'),
    title: ({ sdk }) =>
      `\`@modelcontextprotocol/sdk\` ${sdk}, a transport for any request without an id`,
  },
  {
    name: 'rmcp',
    command: `${examples}/interop_server`,
    // Its own timer is far off, as the others' are.
    args: ['--layer', 'off', '--idle-timeout', '1h'],
    title: ({ rmcp }) => `rmcp ${rmcp}`,
  },
];

const client = (command, program, options = {}) => ({
  command,
  args: program ? [`${here}clients/${program}`] : [],
  terminates: program?.endsWith('.mjs') ?? false,
  options,
});
const CLIENTS = [
  { ...client(node, 'sdk1.mjs'), title: ({ sdk }) => `TypeScript ${sdk}` },
  { ...client(node, 'sdk2.mjs'), title: (v) => `TypeScript ${v.client}` },
  {
    ...client(node, 'sdk2.mjs', { modern: true }),
    title: (v) => `TypeScript ${v.client}, newest revision`,
  },
  { ...client(python('mcp-1.20'), 'python.py'), title: () => `Python ${pinned('mcp-1.20', 'mcp')}` },
  { ...client(python('mcp-1'), 'python.py'), title: () => `Python ${pinned('mcp-1', 'mcp')}` },
  { ...client(python('mcp-2'), 'python.py'), title: () => `Python ${pinned('mcp-2', 'mcp')}` },
  {
    ...client(python('mcp-2'), 'python.py', { modern: true }),
    title: () => `Python ${pinned('mcp-2', 'mcp')}, newest revision`,
  },
  { ...client(`${examples}/interop_client`), title: ({ rmcp }) => `rmcp ${rmcp}` },
];

/** What a client of each kind does in the end. */
const TERMINATES = 'terminates';
const FREEZES = 'freezes';
const KILLED = 'is killed';
const ENDS = [TERMINATES, FREEZES, KILLED];

/** A stopped process keeps its connections. Its GET stream counts as use until the proxy ends it by age. */
const FLAGS = ['--idle-timeout', '3s', '--unused-timeout', '3s', '--stream-lifetime', '3s'];
/** As long as nobody may be idle, each client calls its tool this often. */
const BETWEEN_CALLS = 500;
/** For how long the two counts may differ, and for how long they must be as they should. */
const PATIENCE = 20_000;
const STEADY = 500;
/** More clients than this do not connect at one moment: a server needs a second for its first call. */
const AT_ONCE = 6;
const LEGACY = /^20(24|25)-/;

/** On a connection of its own: a server may close one that is kept just as it is used again. */
function fetched(url) {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (answer) => json(answer).then(resolve, reject)).once('error', reject);
  });
}

/** A program that listens, and whose log is kept. */
async function start(name, command, args) {
  let listening;
  const address = new Promise((resolve) => (listening = resolve));
  mkdirSync(`${out}/servers`, { recursive: true });
  const log = createWriteStream(`${out}/servers/${name}.log`);
  const heard = (line) => {
    log.write(`${line}\n`);
    listening(/^listening on (http:\S+)/.exec(line)?.[1]);
  };
  const program = talk(command, args, heard, log);
  const url = await Promise.race([address, program.ended.then(() => undefined)]);
  if (!url) throw new Error(`${name} did not start: ${out}/servers/${name}.log`);
  const ask = (path) => fetched(new URL(path, url));
  return { url, ask, stop: program.stop };
}

/** Sessions by the SDK's own table, and by what runs for them; and entries of those that have ended. */
async function held(server) {
  const { sessions, rmcp, tasks = 0, kept = 0 } = await server.ask('/sessions');
  const live = sessions ?? rmcp;
  return { live: Math.max(live, tasks), stale: kept - live > 0 };
}

const live = async (proxy) => (await proxy.ask('/stats')).live;

/** The counts at the server and in the layer, once they have been `wanted` for a while, or as they then are. */
async function settled(server, proxy, wanted) {
  const deadline = Date.now() + PATIENCE;
  let since;
  for (;;) {
    const [{ live: at }, layer] = await Promise.all([held(server), live(proxy)]);
    const now = Date.now();
    if (at !== wanted || layer !== wanted) since = undefined;
    else since ??= now;
    if (now - since >= STEADY || now > deadline) return { server: at, layer };
    await sleep(50);
  }
}

const told = (count) => `${count.server} = ${count.layer}`;

function message(error) {
  const text = String(error.message).replaceAll(/\s+/g, ' ').replaceAll('|', '\\|');
  return text.replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1').slice(0, 300);
}

/** What a client has not done by then, it never does. */
function soon(what, promise) {
  const late = sleep(PATIENCE).then(() => {
    throw new Failed({ message: `${what}: nothing within ${PATIENCE} ms` });
  });
  return Promise.race([promise, late]);
}

/** A client that calls until it is told to stop. */
class Caller {
  #driven;
  #calling;
  #done = false;
  failure;
  version;

  constructor(kind, url) {
    this.#driven = new Driven(kind, { ...kind.options, url });
  }

  /** Starting takes a Python longer than an idle session lives. */
  ready() {
    return this.#driven.errors();
  }

  async connect() {
    try {
      this.version = (await soon('connect', this.#driven.connect())).version;
      await soon('call', this.#driven.call('test_simple_text', {}, PATIENCE));
    } catch (error) {
      this.failure = message(error);
      return;
    }
    this.#calling = this.#call();
  }

  async #call() {
    while (!this.#done) {
      await sleep(BETWEEN_CALLS);
      try {
        await soon('call', this.#driven.call('test_simple_text', {}, PATIENCE));
      } catch (error) {
        this.failure ??= message(error);
        return;
      }
    }
  }

  get inSession() {
    return this.version !== undefined && LEGACY.test(this.version);
  }

  async end(how) {
    this.#done = true;
    await this.#calling;
    if (how === KILLED) await this.#driven.kill();
    if (how === FREEZES) this.#driven.freeze();
    if (how === TERMINATES) await this.#leave();
  }

  async #leave() {
    await this.#driven.errors();
    try {
      if (this.#driven.terminates) await soon('terminate', this.#driven.terminate());
      await soon('close', this.#driven.close());
      this.reported = (await this.#driven.errors()).map(message);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      this.reported = [message(error)];
    }
  }

  stop() {
    return this.#driven.kill();
  }
}

/** What the server does to each without the layer, and what of it stays. */
async function bare(server) {
  const rows = [];
  let before = 0;
  for (const each of HOSTILE) {
    const answer = await send(server.url, each);
    await sleep(300);
    const { live: after } = await held(server);
    rows.push({ ...answer, left: after - before });
    before = after;
  }
  return rows;
}

async function visit({ name, command, args }) {
  const problems = [];
  const expect = (what, isSo, found) => isSo || problems.push({ server: name, what, found });
  const [alone, server] = await Promise.all([
    start(`${name}-alone`, command, args),
    start(name, command, args),
  ]);
  const proxy = await start(`${name}-proxy`, `${examples}/reverse_proxy`, [
    ...['--addr', '127.0.0.1:0', '--upstream', new URL('/', server.url).href],
    ...FLAGS,
  ]);
  const moments = [];
  const moment = async (what, wanted) => {
    const count = await settled(server, proxy, wanted);
    const isSo = count.server === wanted && count.layer === wanted;
    expect(what, isSo, `${told(count)}, not ${wanted} = ${wanted}`);
    moments.push({ what, cell: told(count) });
  };
  const kinds = CLIENTS.map((kind) => ENDS.map((end) => ({ end, caller: new Caller(kind, proxy.url) })));
  const callers = kinds.flat();
  try {
    await moment('before', 0);
    const answersBare = await bare(alone);
    await Promise.all(callers.map(({ caller }) => caller.ready()));
    await inTurn(
      AT_ONCE,
      callers.map(
        ({ caller }) =>
          () =>
            caller.connect(),
      ),
    );
    const inSession = callers.filter(({ caller }) => caller.inSession).length;
    await moment(`${callers.length} clients, ${inSession} of them with a session`, inSession);
    await Promise.all(callers.map(({ caller, end }) => caller.end(end)));
    for (const { caller } of callers) expect('a client failed', !caller.failure, caller.failure);
    await moment('a third terminated, a third frozen, a third killed', 0);

    const answers = [];
    for (const each of HOSTILE) answers.push(await send(proxy.url, each));
    HOSTILE.forEach((each, at) => {
      const named = answers[at].session && !mayOpen(each, answers[at]);
      expect(`a session in the answer to ${each.title}`, !named, answers[at].status);
    });
    await moment('requests that no client should send', 0);

    return {
      name,
      problems,
      moments,
      stale: (await held(server)).stale,
      clients: kinds.map((ends) => ({
        versions: [...new Set(ends.map(({ caller }) => caller.version))],
        failures: [...new Set(ends.map(({ caller }) => caller.failure).filter(Boolean))],
        reported: ends.find(({ end }) => end === TERMINATES).caller.reported,
      })),
      hostile: HOSTILE.map(({ title }, at) => ({
        title,
        bare: answersBare[at],
        layer: answers[at],
      })),
    };
  } finally {
    await Promise.all(callers.map(({ caller }) => caller.stop()));
    await Promise.all([proxy.stop('SIGTERM'), server.stop(), alone.stop()]);
  }
}

/** The environments that servers and clients need. */
export function install() {
  return environments(['mcp-1.20', 'mcp-1.29', 'mcp-1', 'mcp-2', 'fastmcp']);
}

/** Visits the servers; `problems` is what must not be, committed or not. */
export async function servers(names = SERVERS.map(({ name }) => name)) {
  const wanted = SERVERS.filter(({ name }) => names.includes(name));
  const visits = await inTurn(
    3,
    wanted.map((server) => () => visit(server)),
  );
  return { visits, problems: visits.flatMap(({ problems }) => problems) };
}

const answered = ({ status, session }) => (session ? `${status}, names a session` : `${status}`);

/** The table to be committed. */
export function table({ visits }, versions) {
  const lines = [
    '# Servers',
    '',
    'Written by `just interop`, which fails if a server or a client does anything else.',
    '',
    'Each server is behind `examples/reverse_proxy`, with three clients of each kind in front of it: one',
    'terminates, one is frozen with its connections open, one is killed. Idle and unused sessions',
    'end after 3 s. A count is the sessions at the server, by the table of its SDK, and those in the layer.',
  ];
  for (const { name, moments, stale, clients, hostile } of visits) {
    const { title } = SERVERS.find((server) => server.name === name);
    const counts = moments.map(({ what, cell }) => `| ${what} | ${cell} |`);
    lines.push('', `## ${name}`, '');
    lines.push(`${(title ?? (() => name))(versions)}.`);
    if (stale) lines.push('Its table keeps an entry for a session that was deleted; nothing runs for it.');
    lines.push('', '| | sessions |', '| --- | --- |', ...counts);
    lines.push('', '| client | speaks | at its close, reports |', '| --- | --- | --- |');
    clients.forEach(({ versions: spoken, failures, reported }, at) => {
      const all = [...failures.map((each) => `fails: ${each}`), ...(reported ?? [])];
      const said = all.length > 0 ? all.map((each) => `\`${each}\``).join(', ') : 'nothing';
      lines.push(`| ${CLIENTS[at].title(versions)} | ${spoken.join(', ')} | ${said} |`);
    });
    lines.push('', '| without an id | alone | leaves | behind the layer |');
    lines.push('| --- | --- | --- | --- |');
    for (const { title: what, bare: alone, layer } of hostile) {
      const cells = [answered(alone), alone.left === 0 ? 'nothing' : `${alone.left}`];
      lines.push(`| ${what} | ${cells.join(' | ')} | ${answered(layer)} |`);
    }
  }
  lines.push('');
  return lines.join('\n');
}
