// Requests without a session id that no client should send, or that a server refuses.

import { request } from 'node:http';

const MODERN = '2026-07-28';
const BOTH = 'application/json, text/event-stream';

const initialize = (params) => ({ jsonrpc: '2.0', id: 1, method: 'initialize', params });
const usual = {
  protocolVersion: '2025-11-25',
  capabilities: {},
  clientInfo: { name: 'hostile', version: '0.1.0' },
};
const list = { jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} };

const get = (accept) => ({ method: 'GET', headers: { accept } });
const post = (body, { accept = BOTH, version } = {}) => ({
  method: 'POST',
  headers: {
    accept,
    'content-type': 'application/json',
    ...(version && { 'mcp-protocol-version': version }),
  },
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

const { id: _, ...notification } = initialize(usual);

export const HOSTILE = [
  { title: 'GET, `Accept: */*`', ...get('*/*') },
  { title: 'GET, `Accept: text/event-stream`', ...get('text/event-stream') },
  { title: 'DELETE', method: 'DELETE', headers: {} },
  { title: 'POST that is not JSON', ...post('not JSON') },
  { title: '`tools/list`', ...post(list) },
  { title: `\`tools/list\` of ${MODERN}`, ...post(list, { version: MODERN }) },
  {
    title: '`initialize`, `Accept: text/plain`',
    ...post(initialize(usual), { accept: 'text/plain' }),
  },
  { title: '`initialize` without parameters', ...post(initialize({})) },
  { title: '`initialize` without an `id`', ...post(notification) },
  {
    title: '`initialize` of a revision that never was',
    ...post(initialize({ ...usual, protocolVersion: '1999-01-01' })),
  },
  { title: '`[initialize]`', ...post([initialize(usual)]) },
  {
    title: `\`[initialize]\` of ${MODERN}`,
    ...post([initialize(usual)], { version: MODERN }),
  },
];

/** A stream that says nothing more for this long has said what it has to say. */
const SILENCE = 500;

/** Sends one, and tells the status and whether the answer names a session. */
export function send(url, { method, headers, body }) {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    const asked = request(url, { method, headers: { ...headers, ...length }, agent: false });
    asked.once('error', reject);
    asked.once('response', (answer) => {
      let text = '';
      const done = () => {
        clearTimeout(timer);
        asked.off('error', reject).on('error', () => {});
        asked.destroy();
        const session = answer.headers['mcp-session-id'] !== undefined;
        resolve({ status: answer.statusCode, session, text });
      };
      let timer = setTimeout(done, SILENCE);
      answer.setEncoding('utf8');
      answer.on('data', (chunk) => {
        text += chunk;
        clearTimeout(timer);
        timer = setTimeout(done, SILENCE);
      });
      answer.once('end', done).once('error', done);
    });
    asked.end(body);
  });
}

/** Whether an answer to it may name a session: to a legacy POST that a result came of. */
export function mayOpen({ method, headers }, { status, text }) {
  const modern = headers['mcp-protocol-version'] === MODERN;
  return method === 'POST' && !modern && status < 300 && text.includes('"result"');
}
