// What happens to a server: clients come and go in every way, then requests that no client should send.

import { createWriteStream, mkdirSync } from 'node:fs';
import { get } from 'node:http';
import { json } from 'node:stream/consumers';
import { Caller, ENDS, TERMINATES } from './caller.mjs';
import { HOSTILE, mayOpen, send } from './hostile.mjs';
import { examples, inTurn, out, sleep, talk } from './processes.mjs';

/** A stopped process keeps its connections. Its GET stream counts as use until the proxy ends it by age. */
const FLAGS = ['--idle-timeout', '5s', '--unused-timeout', '5s', '--stream-lifetime', '3s'];
/** For how long the two counts may differ, and for how long they must be as they should. */
const SETTLES = 20_000;
const STEADY = 500;
/** A session that is there for longer after a refusal stays. */
const LEAVES = 1_000;
/** How many clients start, or connect, at a time. More of them starve those that are there on a small machine. */
const AT_ONCE = 6;

/** On a connection of its own: a server may close one that is kept just as it is used again. */
function fetched(url) {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (answer) => json(answer).then(resolve, reject)).once(
      'error',
      reject,
    );
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
  program.ended.then(() => log.end());
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
  const deadline = Date.now() + SETTLES;
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

/** What the server does to each without the layer, and what of it stays. */
async function bare(server) {
  const rows = [];
  let before = 0;
  for (const each of HOSTILE) {
    const answer = await send(server.url, each);
    const deadline = Date.now() + LEAVES;
    let after;
    do {
      await sleep(50);
      after = (await held(server)).live;
    } while (after !== before && Date.now() < deadline);
    rows.push({ ...answer, left: after - before });
    before = after;
  }
  return rows;
}

/** All that happens to a server, and what came of it. */
export async function visit({ name, command, args }, clients) {
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
    const { closed } = await proxy.ask('/stats');
    expect(what, isSo, { wanted, ...count, closed });
    moments.push({ what, cell: told(count) });
  };
  const kinds = clients.map((kind) =>
    ENDS.map((end) => ({ end, caller: new Caller(kind, proxy.url) })),
  );
  const callers = kinds.flat();
  try {
    await moment('before', 0);
    const each = (act) =>
      inTurn(
        AT_ONCE,
        callers.map(
          ({ caller }) =>
            () =>
              act(caller),
        ),
      );
    const started = each((caller) => caller.start());
    const [answersAlone] = await Promise.all([bare(alone), started]);
    await each((caller) => caller.connect());
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
        alone: answersAlone[at],
        layer: answers[at],
      })),
    };
  } finally {
    await Promise.all(callers.map(({ caller }) => caller.stop()));
    await Promise.all([proxy.stop('SIGTERM'), server.stop(), alone.stop()]);
  }
}
