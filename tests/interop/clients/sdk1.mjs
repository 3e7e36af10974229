// The 1.x line of the TypeScript SDK.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { adapt, commands } from './adapter.mjs';

adapt(
  commands({
    makeClient: () => new Client({ name: 'interop-sdk-1', version: '0.1.0' }),
    makeTransport: (url) => new StreamableHTTPClientTransport(url),
    // Of this line, a call takes the schema of its result before its options.
    callTool: (client, params, options) => client.callTool(params, undefined, options),
    onLog: (client, log) =>
      client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) =>
        log(params.data),
      ),
  }),
);
