//! Tools that ask the client something in revisions without sessions: they answer with what they
//! want to know, and the client calls again with the answers.

use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
        GetPromptRequestParams, GetPromptResponse, GetPromptResult, InputRequest, InputRequests,
        InputRequiredResult, InputResponses, PromptMessage, Role,
    },
};
use serde_json::{Value, json};

use crate::{
    fixture::{Context, Fixture},
    questions::elicitation,
};

pub(crate) const PROMPT: &str = "test_input_required_result_prompt";

pub(crate) const NAMES: [&str; 9] = [
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_tampered_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_capabilities",
    "test_streaming_elicitation",
];

/// A form with one required field.
pub(crate) fn form(message: &str, field: &str, kind: &str) -> Result<InputRequest, ErrorData> {
    let schema = json!({
        "type": "object",
        "properties": { field: { "type": kind } },
        "required": [field]
    });
    let params = elicitation(message, schema)
        .ok_or_else(|| ErrorData::internal_error("the form has no valid schema", None))?;
    Ok(InputRequest::Elicitation(ElicitRequest::new(params)))
}

#[expect(deprecated, reason = "MCP retires sampling; the suite asks for it")]
fn sampling(prompt: &str) -> InputRequest {
    use rmcp::model::{CreateMessageRequest, CreateMessageRequestParams, SamplingMessage};
    let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
    InputRequest::CreateMessage(CreateMessageRequest::new(params))
}

#[expect(deprecated, reason = "MCP retires roots; the suite asks for them")]
fn roots() -> InputRequest {
    InputRequest::ListRoots(rmcp::model::ListRootsRequest::default())
}

fn name() -> Result<InputRequest, ErrorData> {
    form("What is your name?", "name", "string")
}

/// Answers are objects; anything else is as good as none, and is asked for again.
pub(crate) fn answered<'a>(responses: Option<&'a InputResponses>, key: &str) -> Option<&'a Value> {
    responses?.get(key).filter(|answer| answer.is_object())
}

pub(crate) fn field<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer["content"][name].as_str().unwrap_or("nothing")
}

fn done(said: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(said.into())]).into()
}

pub(crate) fn want(key: &str, request: InputRequest) -> InputRequests {
    InputRequests::from([(key.to_owned(), request)])
}

pub(crate) fn call(
    fixture: &Fixture,
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let responses = request.input_responses.as_ref();
    let state = request.request_state.as_deref();
    let ask = |wanted, round| -> CallToolResponse {
        let state: Option<u32> = round;
        InputRequiredResult::new(Some(wanted), state.map(|round| fixture.seal(round))).into()
    };
    Ok(match request.name.as_ref() {
        "test_input_required_result_elicitation" => match answered(responses, "user_name") {
            Some(answer) => done(format!("Hello, {}!", field(answer, "name"))),
            None => ask(want("user_name", name()?), None),
        },
        "test_input_required_result_sampling" => match answered(responses, "capital_question") {
            Some(answer) => done(format!("Sampling response: {}", answer["content"]["text"])),
            None => ask(want("capital_question", sampling("What is the capital of France?")), None),
        },
        "test_input_required_result_list_roots" => match answered(responses, "client_roots") {
            Some(answer) => done(format!("Client roots: {}", answer["roots"])),
            None => ask(want("client_roots", roots()), None),
        },
        "test_input_required_result_request_state"
        | "test_input_required_result_tampered_state" => match state {
            Some(state) => {
                fixture.unseal(state)?;
                done("Confirmed: state-ok")
            }
            None => ask(want("confirm", form("Please confirm", "ok", "boolean")?), Some(0)),
        },
        "test_input_required_result_multiple_inputs" => {
            if let Some(state) = state {
                fixture.unseal(state)?;
            }
            let keys = ["user_name", "greeting", "client_roots"];
            if state.is_some() && keys.iter().all(|key| answered(responses, key).is_some()) {
                done("All inputs received")
            } else {
                let wanted = [name()?, sampling("Generate a greeting"), roots()];
                ask(keys.map(str::to_owned).into_iter().zip(wanted).collect(), Some(0))
            }
        }
        "test_input_required_result_multi_round" => {
            match state.map_or(Ok(0), |state| fixture.unseal(state))? {
                0 => ask(want("step1", form("Step 1: your name?", "name", "string")?), Some(1)),
                1 => ask(want("step2", form("Step 2: your color?", "color", "string")?), Some(2)),
                _ => done("All rounds done"),
            }
        }
        "test_input_required_result_capabilities" => {
            let can = context.meta.client_capabilities().unwrap_or_default();
            let mut wanted = InputRequests::new();
            if can.elicitation.is_some() {
                wanted.insert("user_name".to_owned(), name()?);
            }
            if can.sampling.is_some() {
                wanted.insert("greeting".to_owned(), sampling("Generate a greeting"));
            }
            if can.roots.is_some() {
                wanted.insert("client_roots".to_owned(), roots());
            }
            if responses.is_some() || wanted.is_empty() {
                done("Nothing more to ask")
            } else {
                ask(wanted, None)
            }
        }
        _ => ask(want("value", form("Provide a value", "value", "string")?), None),
    })
}

pub(crate) fn prompt(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let Some(answer) = answered(request.input_responses.as_ref(), "user_context") else {
        let question = form("What context should the prompt use?", "context", "string")?;
        let wanted = want("user_context", question);
        return Ok(InputRequiredResult::from_input_requests(wanted).into());
    };
    let said = format!("Prompt with context: {}", field(answer, "context"));
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, said)]).into())
}
