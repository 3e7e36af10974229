// A client of a server that is visited: it calls for as long as it is there, and leaves in one of three ways.

import { Driven, Failed } from './driven.mjs';
import { sleep } from './processes.mjs';

/** What a client of each kind does in the end. */
export const TERMINATES = 'terminates';
const FREEZES = 'freezes';
const KILLED = 'is killed';
export const ENDS = [TERMINATES, FREEZES, KILLED];

/** As long as nobody may be idle, each client calls its tool this often. */
const BETWEEN_CALLS = 500;
/** What it has not done by then, it never does. */
const PATIENCE = 20_000;
const LEGACY = /^20(24|25)-/;

function message(error) {
  const text = String(error.message).replaceAll(/\s+/g, ' ').replaceAll('|', '\\|');
  return text.replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1').slice(0, 300);
}

function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    const failed = new Failed({ message: `${what}: nothing within ${PATIENCE} ms` });
    timer = setTimeout(() => reject(failed), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A client that calls until it is told to stop. */
export class Caller {
  #kind;
  #options;
  #driven;
  #calling;
  #done = false;
  failure;
  version;

  constructor(kind, url) {
    this.#kind = kind;
    this.#options = { ...kind.options, url };
  }

  /** Before anything is timed: a Python takes seconds to start. */
  async start() {
    this.#driven = new Driven(this.#kind, this.#options);
    await this.#driven.errors();
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

  /** Whether what it speaks has sessions. */
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
    return this.#driven?.kill();
  }
}
