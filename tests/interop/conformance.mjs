// The official conformance suite, against rmcp bare and behind the layer, check by check.
//
// Exit codes of the suite say nothing here: an inapplicable scenario is a success to it. What
// counts is every `checks.json`: the layer may lose no verdict, and none may be missing.

import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { here, inTurn, must, node, out, run, said, serve } from './processes.mjs';

const suite = `${here}node_modules/@modelcontextprotocol/conformance/dist/index.js`;

/** Whole requirement sets, with what they run and do not score. */
const SETS = ['2025-11-25', '2026-07-28'];
/** The scenario that is about sessions, also where no set asks for it. */
const LIFECYCLE = 'server-session-lifecycle';
const LIFECYCLE_AT = ['2025-03-26', '2025-06-18', '2025-11-25'];

/** The fewest verdicts that may be compared. Less, and something has silently not run. */
const MINIMUM = 570;

const VERDICTS = ['SUCCESS', 'SKIPPED', 'WARNING', 'FAILURE'];

/**
 * For an rmcp that has no sessions: the layer issues the ids. A tool that asks the client something
 * hangs there at 2025-11-25, so the suite is told to wait less.
 */
const SESSIONLESS = ['--rmcp-sessions', 'off'];

/**
 * Each run of the suite: its name, its arguments, and the scenarios it must produce. `mute` tells
 * of those that have no verdict on a server without sessions.
 */
async function runs() {
  const sets = SETS.map(async (set) => {
    const listed = await said(node, [suite, 'list', '--server', '--requirements', set]);
    const scored = [...listed.split('Client scenarios')[0].matchAll(/^  - (\S+)$/gm)];
    const others = [...listed.matchAll(/^ {4}- (\S+) \[server\]$/gm)];
    const scenarios = [...scored, ...others].map((match) => match[1]);
    return { name: set, args: ['--requirements', set], scenarios };
  });
  const lifecycle = LIFECYCLE_AT.map((revision) => ({
    name: `${LIFECYCLE} at ${revision}`,
    args: ['--scenario', LIFECYCLE, '--spec-version', revision],
    scenarios: [LIFECYCLE],
  }));
  const plain = [...(await Promise.all(sets)), ...lifecycle];
  const sessionless = plain.map(({ name, args, ...rest }) => ({
    ...rest,
    name: `${name}, rmcp without sessions`,
    args: name === SETS[0] ? [...args, '--timeout', '8000'] : args,
    flags: SESSIONLESS,
    mute: [LIFECYCLE],
  }));
  return [...plain, ...sessionless];
}

/** Verdicts by scenario and check. What is INFO is a log line and not a verdict. */
function read(folder) {
  const scenarios = {};
  for (const entry of readdirSync(folder)) {
    const name = /^server-(.+)-\d{4}-\d\d-\d\dT[\dTZ-]+$/.exec(entry)?.[1];
    if (!name || scenarios[name]) throw new Error(`${folder}: what is ${entry}?`);
    const checks = JSON.parse(readFileSync(`${folder}/${entry}/checks.json`, 'utf8'));
    scenarios[name] = {};
    for (const { id, status, errorMessage } of checks) {
      if (status === 'INFO') continue;
      if (!VERDICTS.includes(status)) throw new Error(`${entry}: ${id} is ${status}`);
      (scenarios[name][id] ??= []).push({ status, errorMessage });
    }
  }
  return scenarios;
}

async function one({ name, args, scenarios, flags = [], mute = [] }, layer) {
  const folder = `${out}/conformance/${name.replaceAll(/[, ]+/g, '-')}-${layer}`;
  rmSync(folder, { recursive: true, force: true });
  const server = await serve(layer, flags);
  try {
    await run(node, [suite, 'server', '--url', server.url, '-o', folder, ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
      limit: 180_000,
    });
  } finally {
    await server.stop();
  }
  const verdicts = read(folder);
  for (const scenario of scenarios) {
    const verdict = Object.keys(verdicts[scenario] ?? {}).length > 0;
    if (!verdicts[scenario] || verdict === (layer === 'off' && mute.includes(scenario))) {
      throw new Error(`${name}, layer ${layer}: ${scenario} has ${verdict ? 'a' : 'no'} verdict`);
    }
  }
  return verdicts;
}

/** How many did not pass, by how bad that is at the least. */
function shortfall(verdicts) {
  const from = (status) => VERDICTS.slice(VERDICTS.indexOf(status));
  const count = (statuses) => verdicts.filter(({ status }) => statuses.includes(status)).length;
  return [
    -count(['SUCCESS']),
    ...['SKIPPED', 'WARNING', 'FAILURE'].map((least) => count(from(least))),
  ];
}

/**
 * Where the layer stands by each check. Lost is a pass less or a miss more, or a worse one; a check
 * that the suite emits only as a complaint may be gone.
 */
function compare(bare, layered) {
  const rows = [];
  for (const id of new Set([...Object.keys(bare), ...Object.keys(layered)])) {
    const [ours, theirs] = [layered[id] ?? [], bare[id] ?? []];
    const [a, b] = [shortfall(ours), shortfall(theirs)];
    const lost = a.some((misses, at) => misses > b[at]);
    const won = a.some((misses, at) => misses < b[at]);
    rows.push({ id, bare: theirs, layer: ours, outcome: lost ? 'lost' : won ? 'won' : 'level' });
  }
  return rows;
}

/** Runs it all. `problems` is empty if the layer has lost nothing. */
export async function conformance() {
  const all = await runs();
  const jobs = all.flatMap((each) => [() => one(each, 'off'), () => one(each, 'on')]);
  // Those that wait longest are last, and begin first.
  const verdicts = (await inTurn(4, jobs.reverse())).reverse();
  const problems = [];
  const sets = all.map(({ name, scenarios }, at) => {
    const [bare, layered] = [verdicts[2 * at], verdicts[2 * at + 1]];
    const names = [...new Set([...scenarios, ...Object.keys(bare), ...Object.keys(layered)])];
    const rows = names.map((scenario) => {
      const checks = compare(bare[scenario] ?? {}, layered[scenario] ?? {});
      for (const { id, outcome, bare, layer } of checks) {
        if (outcome === 'lost') problems.push({ set: name, scenario, id, bare, layer });
      }
      return { scenario, checks };
    });
    return { name, rows };
  });
  const compared = sets.flatMap(({ rows }) => rows.flatMap(({ checks }) => checks));
  const count = compared.reduce((sum, { layer }) => sum + layer.length, 0);
  if (count < MINIMUM) problems.push({ compared: count, minimum: MINIMUM });
  return { count, sets, problems };
}

function tally(verdicts) {
  const count = (status) => verdicts.filter((verdict) => verdict.status === status).length;
  const rest = ['SKIPPED', 'WARNING', 'FAILURE'].filter(count);
  const named = rest.map((status) => `, ${count(status)} ${status.toLowerCase()}`).join('');
  return `${count('SUCCESS')}/${verdicts.length}${named}`;
}

/** The table to be committed. */
export function table({ count, sets }, { conformance, rmcp }) {
  const lines = [
    '# Conformance',
    '',
    'Written by `just interop`, which fails if a run of it says anything else.',
    '',
    `\`@modelcontextprotocol/conformance\` ${conformance} against rmcp ${rmcp}, bare and behind the`,
    `layer: ${count} verdicts, compared one by one. A cell is passed/all. Where rmcp is without`,
    'sessions, the layer issues the ids.',
  ];
  for (const { name, rows } of sets) {
    const all = (side) => rows.flatMap(({ checks }) => checks.flatMap((check) => check[side]));
    lines.push('', `## ${name}`, '', '| scenario | bare | layer |', '| --- | --- | --- |');
    for (const { scenario, checks } of rows) {
      const side = (which) => tally(checks.flatMap((check) => check[which]));
      lines.push(`| ${scenario} | ${side('bare')} | ${side('layer')} |`);
    }
    lines.push(`| **all ${rows.length}** | ${tally(all('bare'))} | ${tally(all('layer'))} |`);
  }
  const odd = sets.flatMap(({ name, rows }) =>
    rows.flatMap(({ scenario, checks }) =>
      checks
        .filter(({ bare, layer }) => [...bare, ...layer].some(({ status }) => status !== 'SUCCESS'))
        .map(({ id, bare, layer }) => {
          const said = (side) =>
            side.map(({ status }) => status.toLowerCase()).join(', ') || 'none';
          const why = [...bare, ...layer].find(({ errorMessage }) => errorMessage)?.errorMessage;
          const sides = `bare ${said(bare)}, layer ${said(layer)}`;
          return `- ${name}, ${scenario}, \`${id}\`: ${sides}. ${why ?? ''}`.trim();
        }),
    ),
  );
  const won = sets.flatMap(({ name, rows }) =>
    rows.flatMap(({ scenario, checks }) =>
      checks
        .filter(({ outcome }) => outcome === 'won')
        .map(({ id }) => `- ${name}, ${scenario}, \`${id}\``),
    ),
  );
  lines.push('', '## What the layer adds', '', ...(won.length > 0 ? won : ['Nothing.']));
  lines.push('', '## What did not pass', '', ...(odd.length > 0 ? odd : ['Nothing.']), '');
  return lines.join('\n');
}
