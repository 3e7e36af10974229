// The 2.x line of the TypeScript SDK.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { adapt, commands } from './adapter.mjs';

adapt(
  commands({
    makeClient: (modern) =>
      new Client(
        { name: 'interop-sdk-2', version: '0.1.0' },
        modern ? { versionNegotiation: { mode: 'auto' } } : undefined,
      ),
    makeTransport: (url) => new StreamableHTTPClientTransport(url),
    callTool: (client, params, options) => client.callTool(params, options),
    onLog: (client, log) =>
      client.setNotificationHandler('notifications/message', ({ params }) => log(params.data)),
  }),
);
