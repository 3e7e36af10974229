// A client program that does as it is told.

import { talk } from './processes.mjs';

export class Failed extends Error {
  constructor(error) {
    super(error.message);
    this.shape = error;
  }
}

export class Driven {
  #program;
  #options;
  #waiting = new Map();
  #next = 1;
  /** Whether it can terminate its session apart from closing. */
  terminates;

  constructor({ command, args, terminates }, options) {
    this.#options = options;
    this.terminates = terminates;
    this.#program = talk(command, args, (line) => {
      const { id, value, error } = JSON.parse(line);
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) reject(new Failed(error));
      else resolve(value);
    });
    this.#program.ended.then(() => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the client is gone'));
      this.#waiting.clear();
    });
  }

  #ask(name, args = {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#program.write(JSON.stringify({ id, name, args }));
    });
  }

  connect() {
    return this.#ask('connect', this.#options);
  }

  call(tool, args = {}, timeout = 8_000) {
    return this.#ask('call', { tool, args, timeout });
  }

  notified() {
    return this.#ask('notified');
  }

  errors() {
    return this.#ask('errors');
  }

  terminate() {
    return this.#ask('terminate');
  }

  close() {
    return this.#ask('close');
  }

  /** Stops the process where it is: its connections stay open. */
  freeze() {
    this.#program.child.kill('SIGSTOP');
  }

  kill() {
    this.#program.child.kill('SIGKILL');
    return this.#program.ended;
  }

  stop() {
    return this.#program.stop();
  }
}
