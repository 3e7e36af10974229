// How the run drives a client: one command a line in, one answer a line out.

import { createInterface } from 'node:readline';

const ofError = (error) => ({
  name: error.constructor.name,
  code: error.code ?? null,
  status: error.data?.status ?? error.status ?? null,
  message: String(error.message),
});

/** Serves `commands` until the input ends. */
export function adapt(commands) {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const { id, name, args } = JSON.parse(line);
    let answer;
    try {
      answer = { id, value: (await commands[name](args)) ?? null };
    } catch (error) {
      answer = { id, error: ofError(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  });
  lines.once('close', () => process.exit(0));
}

/**
 * The commands, over a line of the TypeScript SDK. What it reports through `onerror` is kept. A
 * client is used again for a second session, as a program would that does not start over.
 */
export function commands({ makeClient, makeTransport, callTool, onLog }) {
  let client;
  let transport;
  const [errors, notified] = [[], []];
  return {
    async connect({ url, modern }) {
      client ??= makeClient(modern);
      transport = makeTransport(new URL(url));
      client.onerror = (error) => errors.push(ofError(error));
      onLog(client, (data) => notified.push(data));
      await client.connect(transport);
      return { session: transport.sessionId !== undefined, version: transport.protocolVersion };
    },
    async call({ tool, args, timeout }) {
      const result = await callTool(client, { name: tool, arguments: args }, { timeout });
      return result.content[0].text;
    },
    async terminate() {
      await transport.terminateSession();
    },
    async close() {
      await client.close();
    },
    notified: () => notified.splice(0),
    errors: () => errors.splice(0),
  };
}
