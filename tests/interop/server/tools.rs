//! Tools that answer by themselves, and those that the real clients are tried with.

#![expect(deprecated, reason = "MCP retires log notifications; the suite asks for them")]

use std::time::Duration;

use http::request::Parts;
use rmcp::{
    ErrorData, Peer, RoleServer,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ContentBlock, JsonObject,
        LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, Tool,
    },
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    content::{PNG, WAV, text},
    fixture::{Context, Fixture},
    inputs, jobs, questions,
};

/// Takes nothing, or nothing that must be said.
const PLAIN: [(&str, &str); 16] = [
    ("test_simple_text", "Says a text"),
    ("test_image_content", "Shows an image"),
    ("test_audio_content", "Plays a sound"),
    ("test_embedded_resource", "Has a resource in it"),
    ("test_multiple_content_types", "Has some of each"),
    ("test_tool_with_logging", "Logs while it works"),
    ("test_error_handling", "Always fails"),
    ("test_tool_with_progress", "Reports progress"),
    ("test_elicitation_sep1034_defaults", "Asks by a form with defaults"),
    ("test_elicitation_sep1330_enums", "Asks by a form with enums"),
    ("test_reconnection", "Closes its stream and answers on another"),
    ("test_trigger_tool_change", "Tells listeners that tools have changed"),
    ("test_trigger_prompt_change", "Tells listeners that prompts have changed"),
    ("test_missing_capability", "Needs a client that can sample"),
    ("test_logging_tool", "Logs if the request asks for it"),
    ("notify", "Logs on the session's own stream a moment later"),
];

fn object(schema: Value) -> JsonObject {
    match schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    }
}

fn takes(properties: &Value, required: &[&str]) -> JsonObject {
    object(json!({ "type": "object", "properties": properties, "required": required }))
}

pub(crate) fn all() -> Vec<Tool> {
    let string = json!({ "type": "string" });
    let nothing = || takes(&json!({}), &[]);
    let mut tools: Vec<Tool> =
        PLAIN.iter().map(|(name, about)| Tool::new(*name, *about, nothing())).collect();
    tools.extend(inputs::NAMES.map(|name| Tool::new(name, "Asks back", nothing())));
    tools.extend(jobs::ALL.map(|(name, about, ..)| Tool::new(name, about, nothing())));
    tools.extend([
        Tool::new("test_sampling", "Samples", takes(&json!({ "prompt": string }), &["prompt"])),
        Tool::new(
            "test_elicitation",
            "Asks by a form",
            takes(&json!({ "message": string }), &["message"]),
        ),
        Tool::new(
            "test_custom_header",
            "Has a header for an argument",
            takes(&json!({ "value": { "type": "string", "x-mcp-header": "Value" } }), &["value"]),
        ),
        Tool::new("sleep", "Works silently", takes(&json!({ "ms": { "type": "integer" } }), &[])),
        Tool::new("json_schema_2020_12_tool", "Has a schema of many words", many_words()),
    ]);
    tools
}

fn many_words() -> JsonObject {
    object(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } }
            }
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" }
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": {
            "properties": { "contactMethod": { "const": "phone" } },
            "required": ["contactMethod"]
        },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false
    }))
}

pub(crate) async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: Context,
) -> Result<CallToolResult, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let word = |name: &str| arguments.get(name).and_then(Value::as_str);
    let message = word("message").unwrap_or("Please answer");
    if let Some(form) = questions::form(&request.name, message) {
        return questions::ask(&context, form).await;
    }
    let image = || ContentBlock::image(PNG, "image/png");
    let said = |text: &str| vec![ContentBlock::text(text)];
    Ok(CallToolResult::success(match request.name.as_ref() {
        "test_simple_text" => said("This is a simple text response for testing."),
        "test_image_content" => vec![image()],
        "test_audio_content" => {
            vec![ContentBlock::Audio(rmcp::model::AudioContent::new(WAV, "audio/wav"))]
        }
        "test_embedded_resource" => vec![ContentBlock::resource(text(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        ))],
        "test_multiple_content_types" => vec![
            ContentBlock::text("Multiple content types test:"),
            image(),
            ContentBlock::resource(text(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            )),
        ],
        "test_error_handling" => {
            let why = said("This tool intentionally returns an error for testing");
            return Ok(CallToolResult::error(why));
        }
        "test_sampling" => {
            return questions::sample(&context, word("prompt").unwrap_or("Hello")).await;
        }
        "test_custom_header" => said(word("value").unwrap_or_default()),
        "test_tool_with_logging" => {
            for step in ["started", "processing data", "completed"] {
                log(&context.peer, LoggingLevel::Info, &format!("Tool execution {step}")).await;
                sleep(Duration::from_millis(50)).await;
            }
            said("logged")
        }
        "test_logging_tool" => {
            if let Some(level) = context.meta.log_level() {
                log(&context.peer, level, "as was asked for").await;
            }
            said("logged if asked to")
        }
        "test_tool_with_progress" => {
            let token = context.meta.get_progress_token();
            for step in [0.0, 50.0, 100.0] {
                if let Some(token) = token.clone() {
                    let progress = ProgressNotificationParam::new(token, step).with_total(100.0);
                    drop(context.peer.notify_progress(progress).await);
                }
                sleep(Duration::from_millis(50)).await;
            }
            said("done")
        }
        "test_reconnection" => {
            close_streams(fixture, &context).await?;
            sleep(Duration::from_millis(200)).await;
            said("Reconnection test completed successfully.")
        }
        "test_trigger_tool_change" => {
            for listener in fixture.listeners().await {
                drop(listener.notify_tool_list_changed().await);
            }
            said("told")
        }
        "test_trigger_prompt_change" => {
            for listener in fixture.listeners().await {
                drop(listener.notify_prompt_list_changed().await);
            }
            said("told")
        }
        "test_missing_capability" => {
            if context.meta.client_capabilities().unwrap_or_default().sampling.is_none() {
                let needed = ClientCapabilities::builder().enable_sampling().build();
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            said("the client can sample")
        }
        "json_schema_2020_12_tool" => said("understood"),
        "sleep" => {
            let ms = arguments.get("ms").and_then(Value::as_u64).unwrap_or(0);
            sleep(Duration::from_millis(ms)).await;
            said("slept")
        }
        "notify" => {
            let peer = context.peer.clone();
            // Outside of the call: it goes to the stream that is nobody's answer.
            tokio::spawn(async move {
                sleep(Duration::from_millis(50)).await;
                log(&peer, LoggingLevel::Info, "notified").await;
            });
            said("soon")
        }
        _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
    }))
}

async fn log(peer: &Peer<RoleServer>, level: LoggingLevel, text: &str) {
    let message = LoggingMessageNotificationParam::new(level, json!(text)).with_logger("interop");
    drop(peer.notify_logging_message(message).await);
}

/// Closes the streams of this session's calls, this one's among them. rmcp numbers them, and does
/// not tell a tool the number.
async fn close_streams(fixture: &Fixture, context: &Context) -> Result<(), ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let id = parts.and_then(|parts| parts.headers.get("mcp-session-id")?.to_str().ok());
    let sessions = fixture.manager.sessions.read().await;
    let handle = id.and_then(|id| sessions.get(id)).cloned();
    drop(sessions);
    let handle = handle.ok_or_else(|| ErrorData::invalid_request("there is no session", None))?;
    for number in 0..64 {
        drop(handle.close_sse_stream(number, None).await);
    }
    Ok(())
}
