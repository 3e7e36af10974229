// Servers as people run them, behind the example proxy, and the official clients in front of it. A session at
// the server is a session of the layer, before, during and after; whatever clients do, nothing stays.
//
// What must hold is judged here, whatever is committed. The table says how each server and client goes about it.

import { examples, here, inTurn, node } from './processes.mjs';
import { environments, pinned, python } from './python.mjs';
import { visit } from './visit.mjs';

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
  {
    ...client(python('mcp-1.20'), 'python.py'),
    title: () => `Python ${pinned('mcp-1.20', 'mcp')}`,
  },
  { ...client(python('mcp-1'), 'python.py'), title: () => `Python ${pinned('mcp-1', 'mcp')}` },
  {
    ...client(python('mcp-2'), 'python.py', { modern: true }),
    title: () => `Python ${pinned('mcp-2', 'mcp')}, newest revision`,
  },
  { ...client(`${examples}/interop_client`), title: ({ rmcp }) => `rmcp ${rmcp}` },
];

/** The environments that servers and clients need. */
export function install() {
  return environments(['mcp-1.20', 'mcp-1.29', 'mcp-1', 'mcp-2', 'fastmcp']);
}

/** Visits the servers; `problems` is what must not be, committed or not. */
export async function servers(names = SERVERS.map(({ name }) => name)) {
  const wanted = SERVERS.filter(({ name }) => names.includes(name));
  const visits = await inTurn(
    2,
    wanted.map((server) => () => visit(server, CLIENTS)),
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
    'end after 5 s. A count is the sessions at the server, by the table of its SDK, and those in the layer.',
  ];
  for (const { name, moments, stale, clients, hostile } of visits) {
    const { title } = SERVERS.find((server) => server.name === name);
    const counts = moments.map(({ what, cell }) => `| ${what} | ${cell} |`);
    lines.push('', `## ${name}`, '');
    lines.push(`${(title ?? (() => name))(versions)}.`);
    if (stale)
      lines.push('Its table keeps an entry for a session that was deleted; nothing runs for it.');
    lines.push('', '| | sessions |', '| --- | --- |', ...counts);
    lines.push('', '| client | speaks | at its close, reports |', '| --- | --- | --- |');
    clients.forEach(({ versions: spoken, failures, reported }, at) => {
      const all = [...failures.map((each) => `fails: ${each}`), ...(reported ?? [])];
      const said = all.length > 0 ? all.map((each) => `\`${each}\``).join(', ') : 'nothing';
      lines.push(`| ${CLIENTS[at].title(versions)} | ${spoken.join(', ')} | ${said} |`);
    });
    lines.push('', '| without an id | alone | leaves | behind the layer |');
    lines.push('| --- | --- | --- | --- |');
    for (const { title: what, alone, layer } of hostile) {
      const cells = [answered(alone), alone.left === 0 ? 'nothing' : `${alone.left}`];
      lines.push(`| ${what} | ${cells.join(' | ')} | ${answered(layer)} |`);
    }
  }
  lines.push('');
  return lines.join('\n');
}
