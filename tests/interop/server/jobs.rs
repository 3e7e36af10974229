//! Tools that become tasks (an extension of 2026-07-28), if the client can have them.

use std::time::Duration;

use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
        CreateTaskResult, InputRequiredResult,
    },
    task_manager::{TaskContext, TaskExit, TaskOptions},
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    fixture::{Context, Fixture},
    inputs::{answered, field, form, want},
};

/// Name, what it does, whether it can be a task, whether it must be.
pub(crate) const ALL: [(&str, &str, bool, bool); 7] = [
    ("greet", "Greets at once, never as a task", false, false),
    ("slow_compute", "Works for some seconds", true, false),
    ("failing_job", "Ends in an error of the tool", true, true),
    ("protocol_error_job", "Ends in an error of the protocol", true, false),
    ("confirm_delete", "Asks one question", true, true),
    ("multi_input", "Asks two questions at once", true, true),
    ("test_tool_with_task", "Asks first, then works", true, true),
];

pub(crate) fn is_one(name: &str) -> bool {
    ALL.iter().any(|(job, ..)| *job == name)
}

type Outcome = Result<CallToolResult, TaskExit>;

pub(crate) async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let can = context.client_capabilities().is_some_and(|can| can.supports_tasks());
    let job = ALL.iter().find(|(job, ..)| *job == request.name);
    let (may, must) = job.map_or((false, false), |(_, _, may, must)| (*may, *must));
    if must && !can {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    let name = answered(request.input_responses.as_ref(), "user_name");
    if request.name == "test_tool_with_task" && name.is_none() {
        let wanted = want("user_name", form("What is your name?", "name", "string")?);
        return Ok(InputRequiredResult::from_input_requests(wanted).into());
    }
    if may && can {
        let spawn = |task: TaskContext| -> futures_util::future::BoxFuture<'static, Outcome> {
            Box::pin(work(request, Some(task)))
        };
        return Ok(CreateTaskResult::new(fixture.tasks.spawn(TaskOptions::default(), spawn)).into());
    }
    match work(request, None).await {
        Ok(result) => Ok(result.into()),
        Err(TaskExit::Error(error)) => Err(error),
        Err(TaskExit::Cancelled) => Err(ErrorData::internal_error("cancelled", None)),
    }
}

async fn work(request: CallToolRequestParams, task: Option<TaskContext>) -> Outcome {
    let arguments = request.arguments.unwrap_or_default();
    let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or("world");
    let ask = async |key: &str, field: &str, kind: &str| match &task {
        Some(task) => {
            let question = form("Please answer", field, kind).map_err(TaskExit::Error)?;
            task.request_input(key, question).await
        }
        None => Err(TaskExit::Cancelled),
    };
    let said = match request.name.as_ref() {
        "greet" => format!("Hello, {}!", text("name")),
        "slow_compute" => {
            let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0);
            let time = sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            match &task {
                Some(task) => tokio::select! {
                    () = task.cancelled() => return Err(TaskExit::Cancelled),
                    () = time => {}
                },
                None => time.await,
            }
            format!("computed for {seconds} s")
        }
        "failing_job" => {
            sleep(Duration::from_secs(1)).await;
            let said = vec![ContentBlock::text("this tool always fails")];
            return Ok(CallToolResult::error(said));
        }
        "protocol_error_job" => {
            sleep(Duration::from_millis(200)).await;
            return Err(TaskExit::Error(ErrorData::internal_error("this always fails", None)));
        }
        "confirm_delete" => {
            let answer = ask("confirm", "confirm", "boolean").await?;
            format!("confirmed: {}", answer["content"]["confirm"])
        }
        "multi_input" => {
            let (a, b) =
                tokio::join!(ask("input-a", "value", "string"), ask("input-b", "value", "string"));
            format!("a: {}, b: {}", field(&a?, "value"), field(&b?, "value"))
        }
        _ => {
            sleep(Duration::from_millis(200)).await;
            let name = answered(request.input_responses.as_ref(), "user_name");
            format!("Hello, {}!", name.map_or("nobody", |answer| field(answer, "name")))
        }
    };
    Ok(CallToolResult::success(vec![ContentBlock::text(said)]))
}
