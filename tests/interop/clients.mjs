// The official clients against the server, by the same stories. What each does is compared with
// what is committed, cell by cell: a version that behaves otherwise fails the run.

import { examples, here, inTurn, node, serve } from './processes.mjs';
import { Driven } from './driven.mjs';
import { IDLE, cutOff, forgotten, held, inUse, sessionless } from './stories.mjs';

const PROGRAMS = {
  sdk1: { command: node, args: [`${here}clients/sdk1.mjs`], terminates: true },
  sdk2: { command: node, args: [`${here}clients/sdk2.mjs`], terminates: true },
  rmcp: { command: `${examples}/interop_client`, args: [], terminates: false },
};
const ALL = ['sdk1', 'sdk2', 'rmcp'];
const NAMES = {
  sdk1: ({ sdk }) => `\`@modelcontextprotocol/sdk\` ${sdk}`,
  sdk2: ({ client }) => `\`@modelcontextprotocol/client\` ${client}`,
  rmcp: ({ rmcp }) => `rmcp ${rmcp}`,
};

const TIMES = ['--idle-timeout', `${IDLE}ms`, '--retry', '200ms'];
/** Of these clients each has a GET stream open, and would never be idle otherwise. */
const ALONE = [...TIMES, '--streams-hold', 'off'];

const STORIES = [
  { title: 'In use, behind the layer', story: inUse, layer: 'on', flags: ALONE, who: ALL },
  { title: 'In use, rmcp bare', story: inUse, layer: 'off', flags: ALONE, who: ALL },
  { title: 'Forgotten, behind the layer', story: forgotten, layer: 'on', flags: ALONE, who: ALL },
  {
    title: 'Forgotten, behind the layer, and told not to open another session by itself',
    story: forgotten,
    layer: 'on',
    flags: ALONE,
    who: ['rmcp'],
    options: { reinit: false },
  },
  { title: 'Forgotten, rmcp bare', story: forgotten, layer: 'off', flags: ALONE, who: ALL },
  {
    title: 'Silent, but listening',
    story: held,
    layer: 'on',
    flags: TIMES,
    who: ALL,
  },
  {
    title: 'Streams that end at an age of 1 s (`stream_lifetime`)',
    story: cutOff,
    layer: 'on',
    flags: ['--idle-timeout', '1m', '--stream-lifetime', '1s', '--retry', '200ms'],
    who: ALL,
  },
  {
    title:
      'A client that asks for 2026-07-28, and a server behind the layer that has only sessions',
    story: inUse,
    layer: 'on',
    flags: [...ALONE, '--legacy-only'],
    who: ['sdk2', 'rmcp'],
    options: { modern: true },
  },
  {
    title: 'A client that asks for 2026-07-28, and a bare rmcp that has only sessions',
    story: inUse,
    layer: 'off',
    flags: [...ALONE, '--legacy-only'],
    who: ['sdk2', 'rmcp'],
    options: { modern: true },
  },
  {
    title: '2026-07-28, without sessions, behind the layer',
    story: sessionless,
    layer: 'on',
    flags: ['--idle-timeout', '1s'],
    who: ['sdk2', 'rmcp'],
    options: { modern: true },
  },
  {
    title: '2026-07-28, without sessions, rmcp bare',
    story: sessionless,
    layer: 'off',
    flags: ['--idle-timeout', '1s'],
    who: ['sdk2', 'rmcp'],
    options: { modern: true },
  },
];

async function tell({ story, layer, flags, options = {} }, name) {
  const server = await serve(layer, flags);
  const client = new Driven(PROGRAMS[name], { ...options, url: server.url });
  const cells = {};
  try {
    await story(client, server, cells);
  } catch (error) {
    // The end of a story is a cell as well: what is committed will not have it.
    cells['the story broke off'] = error.message;
  }
  try {
    return { cells, traffic: await server.traffic() };
  } finally {
    await client.stop();
    await server.stop();
  }
}

/** Tells all stories. What was found is judged against the committed table. */
export async function clients() {
  const told = STORIES.flatMap((each) => each.who.map((name) => ({ each, name })));
  const found = await inTurn(
    6,
    told.map(
      ({ each, name }) =>
        () =>
          tell(each, name),
    ),
  );
  const stories = STORIES.map(({ title, who }) => ({ title, who, columns: {} }));
  told.forEach(({ each, name }, at) => {
    stories[STORIES.indexOf(each)].columns[name] = found[at];
  });
  const broken = told.filter((_, at) => 'the story broke off' in found[at].cells);
  const problems = broken.map(({ each, name }) => ({ story: each.title, client: name }));
  return { stories, problems };
}

/** The table to be committed. */
export function table({ stories }, versions) {
  const lines = [
    '# Clients',
    '',
    'Written by `just interop`, which fails if a client does anything else.',
    '',
    'The same server for all, rmcp, by the same steps. Sessions are short here: the idle timeout',
    'is 3 s, and the layer has `streams_hold(false)` unless a client is listening on purpose. rmcp',
    'bare has the same time as its `keep_alive`. Streams tell clients to wait 200 ms before they',
    'reconnect.',
    "rmcp's client has no terminating apart from closing, and reports no errors beside answers.",
  ];
  for (const { title, who, columns } of stories) {
    const head = who.map((name) => NAMES[name](versions));
    lines.push(
      '',
      `## ${title}`,
      '',
      `| | ${head.join(' | ')} |`,
      `| --- |${' --- |'.repeat(who.length)}`,
    );
    const rows = new Set(who.flatMap((name) => Object.keys(columns[name].cells)));
    for (const row of rows) {
      const cells = who.map((name) => columns[name].cells[row] ?? '');
      lines.push(`| ${row} | ${cells.join(' | ')} |`);
    }
  }
  lines.push('');
  return lines.join('\n');
}
