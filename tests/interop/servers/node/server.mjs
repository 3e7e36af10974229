// An MCP server on the TypeScript SDK with Express, as its examples are: `server.mjs routes|no-get|any`.
//
//   routes  a POST, a GET and a DELETE route; a transport for each `initialize`
//   no-get  the same without the GET route: Express answers 404 and HTML
//   any     one route; a transport for every request without an id
//
// MCP is at `/mcp`, with one tool. `/sessions` counts the map of transports by id, which is all that there is
// of a session in these set-ups. It prints where it listens, and ends with its standard input.

import { randomUUID } from 'node:crypto';
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';

const sessions = new Map();

function makeServer() {
  const server = new McpServer({ name: 'interop', version: '0.1.0' });
  server.registerTool('test_simple_text', { description: 'Answers with a text' }, () => ({
    content: [{ type: 'text', text: 'This is a simple text response for testing.' }],
  }));
  return server;
}

async function open(req, res) {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await makeServer().connect(transport);
  await transport.handleRequest(req, res, req.body);
  if (!transport.sessionId) await transport.close();
}

function refuse(res, status, code, message) {
  res.status(status).json({ jsonrpc: '2.0', error: { code, message }, id: null });
}

const opens = {
  routes: (req) => isInitializeRequest(req.body),
  'no-get': (req) => isInitializeRequest(req.body),
  any: () => true,
};

function handler(mayOpen) {
  return async (req, res) => {
    const id = req.headers['mcp-session-id'];
    const transport = id && sessions.get(id);
    if (transport) await transport.handleRequest(req, res, req.body);
    else if (id) refuse(res, 404, -32001, 'Session not found');
    else if (mayOpen(req)) await open(req, res);
    else refuse(res, 400, -32000, 'Bad Request: No valid session ID provided');
  };
}

const setUp = process.argv[2];
const handle = handler(opens[setUp]);
const app = createMcpExpressApp();
if (setUp === 'any') {
  app.all('/mcp', handle);
} else {
  app.post('/mcp', handle);
  app.delete('/mcp', handle);
  if (setUp === 'routes')
    app.get(
      '/mcp',
      handler(() => false),
    );
}
app.get('/sessions', (_, res) => res.json({ sessions: sessions.size }));

const listening = app.listen(0, '127.0.0.1', () =>
  console.log(`listening on http://127.0.0.1:${listening.address().port}/mcp`),
);
process.stdin.resume().once('end', () => process.exit(0));
