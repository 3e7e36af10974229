//! Tools that ask the client something while they run. Only in revisions with sessions: the
//! question goes out on the call's stream, and the answer comes in as a request of its own.

use rmcp::{
    ErrorData,
    model::{
        CallToolResult, ClientResult, ContentBlock, ElicitRequest, ElicitRequestParams,
        ServerRequest,
    },
};
use serde_json::{Value, json};

use crate::fixture::Context;

/// The question, and what the tool says about the answer.
pub(crate) fn form(tool: &str, message: &str) -> Option<(ElicitRequestParams, &'static str)> {
    let (message, schema, about) = match tool {
        "test_elicitation" => (message, login(), "User response"),
        "test_elicitation_sep1034_defaults" => {
            ("Please review and update the form fields", defaults(), "Elicitation completed")
        }
        "test_elicitation_sep1330_enums" => {
            ("Please select your preferences", enums(), "Elicitation completed")
        }
        _ => return None,
    };
    Some((elicitation(message, schema)?, about))
}

pub(crate) fn elicitation(message: &str, schema: Value) -> Option<ElicitRequestParams> {
    Some(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.into(),
        requested_schema: serde_json::from_value(schema).ok()?,
    })
}

pub(crate) async fn ask(
    context: &Context,
    (params, about): (ElicitRequestParams, &str),
) -> Result<CallToolResult, ErrorData> {
    let request = ServerRequest::ElicitRequest(ElicitRequest::new(params));
    let said = match context.peer.send_request(request).await {
        Ok(ClientResult::ElicitResult(answer)) => {
            let action = serde_json::to_value(answer.action).unwrap_or_default();
            let action = action.as_str().unwrap_or_default();
            let content = json!(answer.content);
            return Ok(CallToolResult::success(vec![ContentBlock::text(format!(
                "{about}: action={action}, content={content}"
            ))]));
        }
        Ok(_) => "the client answered something else".to_owned(),
        Err(error) => format!("elicitation failed: {error}"),
    };
    Ok(CallToolResult::error(vec![ContentBlock::text(said)]))
}

#[expect(deprecated, reason = "MCP retires sampling; the suite asks for it")]
pub(crate) async fn sample(context: &Context, prompt: &str) -> Result<CallToolResult, ErrorData> {
    use rmcp::model::{CreateMessageRequestParams, SamplingMessage};
    let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
    Ok(match context.peer.create_message(params).await {
        Ok(answer) => {
            let text = answer.message.content.first().and_then(|content| content.as_text());
            let text = text.map(|content| content.text.as_str()).unwrap_or_default();
            CallToolResult::success(vec![ContentBlock::text(format!("LLM response: {text}"))])
        }
        Err(error) => {
            CallToolResult::error(vec![ContentBlock::text(format!("sampling failed: {error}"))])
        }
    })
}

fn login() -> Value {
    json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" }
        },
        "required": ["username", "email"]
    })
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User age", "default": 30 },
            "score": { "type": "number", "description": "User score", "default": 95.5 },
            "status": {
                "type": "string",
                "description": "User status",
                "enum": ["active", "inactive", "pending"],
                "default": "active"
            },
            "verified": { "type": "boolean", "description": "Verification", "default": true }
        },
        "required": []
    })
}

fn enums() -> Value {
    let titled = |names: [(&str, &str); 3]| {
        json!(names.map(|(value, title)| json!({ "const": value, "title": title })))
    };
    let options = json!(["option1", "option2", "option3"]);
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": options },
            "titledSingle": {
                "type": "string",
                "oneOf": titled([
                    ("value1", "First Option"),
                    ("value2", "Second Option"),
                    ("value3", "Third Option"),
                ])
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"]
            },
            "untitledMulti": {
                "type": "array",
                "items": { "type": "string", "enum": options }
            },
            "titledMulti": {
                "type": "array",
                "items": {
                    "anyOf": titled([
                        ("value1", "First Choice"),
                        ("value2", "Second Choice"),
                        ("value3", "Third Choice"),
                    ])
                }
            }
        },
        "required": []
    })
}
