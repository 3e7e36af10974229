// Interoperability: the official conformance suite, the official clients, and servers as people run them.
//
//   node tests/interop/run.mjs              everything; fails where anything is not as committed
//   node tests/interop/run.mjs --write      the same, and writes down what it found, unless it must not be
//   node tests/interop/run.mjs --no-install with what is installed already
//   node tests/interop/run.mjs conformance  or `clients`, or `servers`: one part

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as clients from './clients.mjs';
import * as suite from './conformance.mjs';
import * as real from './servers.mjs';
import { here, out, prepare, versions } from './processes.mjs';

const args = process.argv.slice(2);
const write = args.includes('--write');
const halves = args.filter((arg) => !arg.startsWith('--'));
const wanted = (half) => halves.length === 0 || halves.includes(half);
const failures = [];

/** What was found must be what is committed. What must not be is never written down. */
function settle(file, found, isSound) {
  mkdirSync(out, { recursive: true });
  writeFileSync(`${out}/${file}`, found);
  if (write && isSound) writeFileSync(`${here}${file}`, found);
  const committed = existsSync(`${here}${file}`) ? readFileSync(`${here}${file}`, 'utf8') : '';
  if (committed === found) return;
  const [old, now] = [rows(committed), rows(found)];
  const differing = [...new Set([...old.keys(), ...now.keys()])]
    .filter((row) => old.get(row) !== now.get(row))
    .map((row) => `${row}\n  committed: ${old.get(row)}\n  found:     ${now.get(row)}`);
  failures.push(`tests/interop/${file} says something else:\n${differing.join('\n')}`);
}

/** Lines by the heading that they are under and their first cell. */
function rows(text) {
  let heading = '';
  const lines = new Map();
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) heading = line;
    const cell = /^\| ([^|]*?) \|/.exec(line)?.[1] ?? `line ${lines.size}`;
    lines.set(`${heading}: ${cell}`, line);
  }
  return lines;
}

async function half(name, module, file) {
  if (!wanted(name)) return;
  const begin = Date.now();
  const result = await module[name]();
  const seconds = ((Date.now() - begin) / 1000).toFixed(1);
  mkdirSync(out, { recursive: true });
  writeFileSync(
    `${out}/${name}.json`,
    JSON.stringify({ versions: versions(), ...result }, null, 1),
  );
  const table = module.table(result, versions());
  console.log(`\n${table}\n${name}: ${seconds} s\n`);
  for (const problem of result.problems)
    failures.push(`${name}: ${JSON.stringify(problem, null, 1)}`);
  settle(file, table, result.problems.length === 0);
}

const install = !args.includes('--no-install');
await prepare({ install });
if (install && wanted('servers')) await real.install();
await half('conformance', suite, 'CONFORMANCE.md');
await half('clients', clients, 'CLIENTS.md');
await half('servers', real, 'SERVERS.md');

for (const failure of failures) console.error(`\nFAILED: ${failure}`);
process.exitCode = failures.length > 0 ? 1 : 0;
if (failures.length === 0) console.log('interop: all as committed');
