// Programs of the run: installed, built, started, and ended with it.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const here = fileURLToPath(new URL('.', import.meta.url));
export const root = fileURLToPath(new URL('../..', import.meta.url));
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target');
export const out = `${target}/interop`;
export const examples = `${target}/debug/examples`;

/** The Node that the suite needs; the one that runs this may be older. */
export const node = `${here}node_modules/node/bin/node`;

/** Runs a program to its end; resolves to its exit code. */
export function run(command, args, { cwd = root, stdio = 'inherit', limit = 600_000 } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio });
    const timer = setTimeout(() => child.kill('SIGKILL'), limit);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (signal) reject(new Error(`${command} ${args.join(' ')}: ${signal} after ${limit} ms`));
      else resolve(code);
    });
  });
}

export async function must(command, args, options) {
  const code = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${code}`);
}

/** Installs what the lockfile pins, and builds the Rust side. */
export async function prepare({ install = true } = {}) {
  if (install) await must('npm', ['ci', '--no-audit', '--no-fund'], { cwd: here });
  const major = await said(node, ['--version']);
  if (Number(/^v(\d+)/.exec(major)?.[1]) < 22)
    throw new Error(`the suite needs Node 22, not ${major}`);
  const programs = ['interop_server', 'interop_client', 'reverse_proxy'];
  const names = programs.flatMap((program) => ['--example', program]);
  await must('cargo', ['build', '--locked', ...names]);
}

/** What a program writes to its standard output. */
export async function said(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  for await (const chunk of child.stdout) text += chunk;
  return text.trim();
}

/** The versions in the lockfile. */
export function versions() {
  const { packages } = JSON.parse(readFileSync(`${here}package-lock.json`, 'utf8'));
  const crate = /name = "rmcp"\nversion = "([^"]+)"/.exec(
    readFileSync(`${root}Cargo.lock`, 'utf8'),
  );
  return {
    conformance: packages['node_modules/@modelcontextprotocol/conformance'].version,
    sdk: packages['node_modules/@modelcontextprotocol/sdk'].version,
    client: packages['node_modules/@modelcontextprotocol/client'].version,
    rmcp: crate[1],
  };
}

/** Those that run; a program that does not end with its input must not outlive the run either. */
const running = new Set();
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** A program that is talked to by lines, and ends when its input does, or by a signal. */
export function talk(command, args, onLine, log) {
  const stdio = ['pipe', 'pipe', log ? 'pipe' : 'inherit'];
  const child = spawn(command, args, { cwd: root, stdio });
  running.add(child);
  child.once('close', () => running.delete(child));
  if (log) child.stderr.pipe(log, { end: false });
  createInterface({ input: child.stdout }).on('line', onLine);
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.stdin.on('error', () => {});
  return {
    child,
    ended,
    write: (line) => child.stdin.write(`${line}\n`),
    async stop(signal) {
      child.stdin.end();
      if (signal) child.kill(signal);
      const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Starts the server of the runs on a free port. */
export async function serve(layer, flags = []) {
  let listening;
  const address = new Promise((resolve) => (listening = resolve));
  const program = talk(`${examples}/interop_server`, ['--layer', layer, ...flags], (line) =>
    listening(/http:\S+/.exec(line)?.[0]),
  );
  const url = await Promise.race([address, program.ended.then(() => undefined)]);
  if (!url) throw new Error('the server did not start');
  const ask = async (path) => (await fetch(new URL(path, url))).json();
  return {
    url,
    stop: program.stop,
    traffic: () => ask('/traffic'),
    sessions: () => ask('/sessions'),
  };
}

/** As many at a time as `width`, in order. */
export async function inTurn(width, jobs) {
  const queue = jobs.map((job, at) => ({ job, at }));
  const results = [];
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) results[next.at] = await next.job();
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
