// What happens to a client, and what it does about it. A story fills the cells of a column.

import { Failed } from './driven.mjs';
import { sleep } from './processes.mjs';

/** The idle timeout of the servers: more than a client takes for its next step, however busy. */
export const IDLE = 3_000;

/** Asks until it is so; a run that waits for nothing in vain is better than a flaky one. */
async function until(what, isSo, within = 15_000) {
  const deadline = Date.now() + within;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await sleep(25);
  }
}

const opens = ({ method, session, opened }) =>
  method === 'POST' && session === null && opened !== null;
const gets = (traffic) => traffic.filter(({ method }) => method === 'GET');
const gaps = (requests) => requests.slice(1).map(({ at }, before) => at - requests[before].at);
const deletes = (traffic) => traffic.filter(({ method }) => method === 'DELETE');

/** What came of a call, in words. */
async function outcome(call) {
  try {
    await call;
    return 'answers';
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    const { name, code, status, message } = error.shape;
    const codes = [code, status].filter((each) => each !== null && each !== undefined);
    const shape = codes.length > 0 ? `${name} (${codes.join(', ')})` : name;
    // rmcp names the types on the way, and each says the same again.
    const plain = message.replaceAll(/Transport \[[^\]]*\] error: /g, '').replaceAll(/\s+/g, ' ');
    const once = [...new Set(plain.split(': '))].join(': ');
    return `fails: ${shape}: \`${once.replaceAll('|', '\\|')}\``;
  }
}

/** What the client told its program beside the answers. */
async function reported(client) {
  const errors = await client.errors();
  return errors.length > 0
    ? `${errors.length} errors, at last: \`${errors.at(-1).message}\``
    : 'nothing';
}

async function count(server) {
  const { layer, rmcp } = await server.sessions();
  return `${layer} in the layer, ${rmcp} in rmcp`;
}

async function listening(server) {
  await until('a GET stream', async () =>
    gets(await server.traffic()).some(({ status }) => status === 200),
  );
}

/** Until there is no new request for some seconds; what came meanwhile. */
async function settled(server, since, quiet = 3_000, within = 12_000) {
  const deadline = Date.now() + within;
  let seen = (await server.traffic()).length;
  let last = Date.now();
  while (Date.now() - last < quiet && Date.now() < deadline) {
    await sleep(100);
    const { length } = await server.traffic();
    if (length > seen) [seen, last] = [length, Date.now()];
  }
  const still = Date.now() - last < quiet ? ', and goes on' : '';
  return { requests: (await server.traffic()).slice(since), still };
}

/** Requests as words: `2 × GET 404, 1 × DELETE 202`. */
function words({ requests, still = '' }) {
  const kinds = new Map();
  for (const { method, status } of requests) {
    const kind = `${method} ${status}`;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  if (kinds.size === 0) return 'nothing';
  return [...kinds].map(([kind, times]) => `${times} × ${kind}`).join(', ') + still;
}

/** Whether there is a session, with its stream open. */
async function connected(client, server, cells) {
  const connecting = client.connect();
  const failed = await connecting.then(
    () => null,
    () => outcome(connecting),
  );
  if (failed) {
    cells['opens a session'] = failed;
    return false;
  }
  const { version } = await connecting;
  const opened = (await server.traffic()).filter(opens);
  cells['opens a session'] = `${opened.length === 1 ? 'one' : opened.length}, of ${version}`;
  await listening(server);
  cells['opens a GET stream'] = 'yes';
  return true;
}

/** Whether a notification arrives; or one of several, where the stream may be away for a moment. */
async function told(client, times = 1) {
  for (let time = 0; time < times; time++) {
    await client.call('notify');
    const deadline = Date.now() + 3_000;
    let notified = [];
    while (notified.length === 0 && Date.now() < deadline) {
      await sleep(50);
      notified = await client.notified();
    }
    if (notified.includes('notified')) return 'arrives';
  }
  return 'does not arrive';
}

/** The DELETE that comes within 2 s, if one does. */
async function farewell(server, since) {
  const said = async () => deletes((await server.traffic()).slice(since));
  await until('a DELETE', async () => (await said()).length > 0, 2_000).catch(() => {});
  return said();
}

async function goodbye(client, server, cells) {
  const { length } = await server.traffic();
  if (client.terminates) await client.terminate();
  else await client.close();
  cells['terminates its session'] = words({ requests: await farewell(server, length) });
  if (client.terminates) await client.close();
}

/** A session that has work to do. */
export async function inUse(client, server, cells) {
  if (!(await connected(client, server, cells))) return;
  cells['a notification on the GET stream'] = await told(client);
  const long = client.call('sleep', { ms: IDLE * 2 + 1_000 }, 15_000);
  cells['a call longer than two idle timeouts'] = await outcome(long);
  const before = (await server.traffic()).filter(opens).length;
  cells['the next call'] = await outcome(client.call('test_simple_text'));
  const after = (await server.traffic()).filter(opens).length;
  cells['in'] = before === 1 && after === 1 ? 'the same session' : 'another session';
  await goodbye(client, server, cells);
  cells['leaves'] = await count(server);
}

/** A session that nobody uses for as long as the idle timeout. */
export async function forgotten(client, server, cells) {
  if (!(await connected(client, server, cells))) return;
  const { length } = await server.traffic();
  let closed = true;
  await until('closed', async () => {
    const { layer, rmcp } = await server.sessions();
    return layer === 0 && rmcp === 0;
  }).catch(() => (closed = false));
  cells['is closed when idle'] = closed ? 'yes' : `no: ${await count(server)}`;
  const then = await settled(server, length);
  cells['then, by itself'] = words(then);
  cells['waits as it is told'] = gaps(gets(then.requests)).every((gap) => gap >= 190)
    ? 'yes'
    : 'no';
  cells['and reports'] = await reported(client);

  const before = (await server.traffic()).length;
  const call = client.call('test_simple_text');
  cells['the next call'] = await outcome(call);
  const since = (await server.traffic()).slice(before);
  const reopened = since.some(opens);
  cells['opens a session by itself'] = reopened ? 'yes' : 'no';
  if (!reopened) {
    await client.close().catch(() => {});
    const { length } = await server.traffic();
    await client.connect();
    await listening(server);
    cells['connected again by hand'] = await outcome(client.call('test_simple_text'));
    cells['by'] = (await server.traffic()).slice(length).some(opens)
      ? 'another session'
      : 'nothing';
  }
  const open = (await server.traffic()).length;
  await client.close();
  cells['closed without a word more'] = words({ requests: await farewell(server, open) });
  let gone = true;
  await until('reaped', async () => {
    const { layer, rmcp } = await server.sessions();
    return layer === 0 && rmcp === 0;
  }).catch(() => (gone = false));
  cells['leaves, an idle timeout later'] = gone ? 'nothing' : await count(server);
}

/** A client that only listens is there; one that is gone is not. */
export async function held(client, server, cells) {
  if (!(await connected(client, server, cells))) return;
  await sleep(3 * IDLE);
  cells['silent for three idle timeouts'] = await count(server);
  cells['a notification on the GET stream'] = await told(client);
  await client.kill();
  await until('reaped', async () => (await server.sessions()).rmcp === 0);
  cells['killed, an idle timeout later'] = await count(server);
}

/** Streams that the layer ends, of a session that lives. */
export async function cutOff(client, server, cells) {
  if (!(await connected(client, server, cells))) return;
  await sleep(6_000);
  const streams = gets(await server.traffic());
  const all = streams.every(({ status }) => status === 200);
  cells['comes back'] =
    streams.length > 2 && all ? 'every time' : `${words({ requests: streams })}`;
  cells['waits as it is told'] = gaps(streams).every((gap) => gap >= 1_150) ? 'yes' : 'no';
  const resumes = streams.filter(({ last_event_id }) => last_event_id !== null).length;
  const always = resumes === streams.length - 1;
  cells['by `Last-Event-ID`'] = resumes === 0 ? 'never' : always ? 'always' : 'sometimes';
  cells['a notification afterwards'] = await told(client, 5);
  cells['reports'] = await reported(client);
  cells['in'] = await count(server);
  await goodbye(client, server, cells);
}

/** The revision that has no sessions: there is nothing for the layer to do. */
export async function sessionless(client, server, cells) {
  const { version } = await client.connect();
  cells['connects as'] = version;
  cells['a call longer than two idle timeouts'] = await outcome(
    client.call('sleep', { ms: 3_000 }),
  );
  await sleep(3_000);
  cells['a call after three idle timeouts'] = await outcome(client.call('test_simple_text'));
  cells['keeps'] = await count(server);
  await client.close();
  await sleep(500);
  const traffic = await server.traffic();
  const ids = traffic.filter(({ session, opened }) => session !== null || opened !== null);
  cells['requests or answers with a session id'] = `${ids.length}`;
  cells['versions in the header'] = [...new Set(traffic.map(({ version }) => version))].join(', ');
  cells['requests'] = words({ requests: traffic });
}
