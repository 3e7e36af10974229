//! rmcp's own client, driven by commands on standard input: one a line in, one answer a line out.

#![expect(deprecated, reason = "MCP retires log notifications; nothing is as simple to send")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use rmcp::{
    ClientHandler, RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, LoggingMessageNotificationParam, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RunningService},
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Clone, Default)]
struct Handler {
    notified: Arc<Mutex<Vec<Value>>>,
}

impl ClientHandler for Handler {
    async fn on_logging_message(
        &self,
        message: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).push(message.data);
    }
}

#[derive(Deserialize)]
struct Command {
    id: u64,
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Deserialize)]
struct Connect {
    url: String,
    #[serde(default)]
    modern: bool,
    /// Whether the client opens another session by itself when one is lost; it does by default.
    reinit: Option<bool>,
}

#[derive(Deserialize)]
struct Call {
    tool: String,
    #[serde(default)]
    args: serde_json::Map<String, Value>,
    timeout: u64,
}

#[derive(Default)]
struct Program {
    handler: Handler,
    client: Option<RunningService<RoleClient, Handler>>,
}

impl Program {
    async fn run(&mut self, name: &str, args: Value) -> anyhow::Result<Value> {
        match name {
            "connect" => self.connect(serde_json::from_value(args)?).await,
            "call" => self.call(serde_json::from_value(args)?).await,
            "close" => {
                // `cancel` is all that there is: it tells the server, and ends the client.
                let client = self.client.take().context("not connected")?;
                client.cancel().await?;
                Ok(Value::Null)
            }
            "notified" => {
                let mut kept = self.handler.notified.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Value::Array(std::mem::take(&mut *kept)))
            }
            "errors" => Ok(json!([])),
            _ => anyhow::bail!("there is no command {name}"),
        }
    }

    async fn connect(&mut self, connect: Connect) -> anyhow::Result<Value> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(connect.url);
        if let Some(reinit) = connect.reinit {
            config = config.reinit_on_expired_session(reinit);
        }
        let transport = StreamableHttpClientTransport::with_client(reqwest::Client::new(), config);
        let handler = self.handler.clone();
        let client = if connect.modern {
            let lifecycle = ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
                legacy_version: Some(ProtocolVersion::V_2025_11_25),
            };
            handler.serve_with_lifecycle(transport, lifecycle).await?
        } else {
            handler.serve(transport).await?
        };
        let version = client.peer_info().map(|info| info.protocol_version.to_string());
        self.client = Some(client);
        Ok(json!({ "version": version }))
    }

    async fn call(&self, call: Call) -> anyhow::Result<Value> {
        let client = self.client.as_ref().context("not connected")?;
        let params = CallToolRequestParams::new(call.tool).with_arguments(call.args);
        let limit = Duration::from_millis(call.timeout);
        let result = tokio::time::timeout(limit, client.call_tool(params)).await??;
        let text = result.content.first().and_then(|content| content.as_text());
        Ok(json!(text.map(|content| &content.text)))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut program = Program::default();
    while let Some(line) = lines.next_line().await? {
        let Command { id, name, args } = serde_json::from_str(&line)?;
        let answer = match program.run(&name, args).await {
            Ok(value) => json!({ "id": id, "value": value }),
            Err(error) => {
                let message = format!("{error:#}");
                json!({ "id": id, "error": { "name": "rmcp", "message": message } })
            }
        };
        println!("{answer}");
    }
    Ok(())
}
