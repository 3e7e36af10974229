//! rmcp's own client.

use anyhow::{Context as _, bail, ensure};
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, ProtocolVersion,
    },
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::Value;

pub(crate) type Client = RunningService<RoleClient, ClientConfig>;

/// Opens a session at `url`.
pub(crate) async fn connect(http: reqwest::Client, url: &str) -> anyhow::Result<Client> {
    // `serve` begins with `initialize`, and this is the last revision that has it. (From
    // 2026-07-28 on there are no sessions; `serve_with_lifecycle` would ask for that first.)
    let config =
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("quickstart", "1.0"))
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
    let transport = StreamableHttpClientTransport::with_client(
        http,
        StreamableHttpClientTransportConfig::with_uri(url),
    );
    config.serve(transport).await.context("the client could not connect")
}

/// Calls a tool, and returns the text it answers.
pub(crate) async fn call(client: &Client, tool: &str, arguments: Value) -> anyhow::Result<String> {
    let Value::Object(arguments) = arguments else {
        bail!("the arguments of a tool are an object");
    };
    let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    let result = client.call_tool(params).await.with_context(|| format!("calling {tool}"))?;
    let text = result.content.first().and_then(|content| content.as_text());
    let text = text.with_context(|| format!("{tool} answered no text"))?.text.clone();
    ensure!(result.is_error != Some(true), "{tool} failed: {text}");
    Ok(text)
}
