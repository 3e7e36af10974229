//! Resources, prompts and completions.

use rmcp::{
    ErrorData,
    model::{
        CacheScope, CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock,
        GetPromptRequestParams, GetPromptResponse, GetPromptResult, ImageContent,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        Prompt, PromptArgument, PromptMessage, ReadResourceResponse, ReadResourceResult, Reference,
        Resource, ResourceContents, ResourceTemplate, Role,
    },
};
use serde_json::json;

use crate::inputs;

/// A PNG of one red pixel.
pub(crate) const PNG: &str = concat!(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8",
    "/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="
);
/// A WAV of no length.
pub(crate) const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

const TTL_MS: u64 = 60_000;

/// What says for how long it may be kept.
pub(crate) trait Cacheable: Sized {
    fn hinted(self) -> Self;
}

macro_rules! cacheable {
    ($($result:ty),*) => {$(
        impl Cacheable for $result {
            fn hinted(self) -> Self {
                self.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public)
            }
        }
    )*};
}
cacheable!(
    ListToolsResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult
);

pub(crate) fn cached<T: Cacheable>(result: T) -> T {
    result.hinted()
}

pub(crate) fn text(uri: &str, mime: &str, text: impl Into<String>) -> ResourceContents {
    ResourceContents::TextResourceContents {
        uri: uri.into(),
        mime_type: Some(mime.into()),
        text: text.into(),
        meta: None,
    }
}

pub(crate) fn resources() -> ListResourcesResult {
    cached(ListResourcesResult::with_all_items(vec![
        Resource::new("test://static-text", "Static text")
            .with_description("A text that does not change")
            .with_mime_type("text/plain"),
        Resource::new("test://static-binary", "Static binary")
            .with_description("An image that does not change")
            .with_mime_type("image/png"),
    ]))
}

pub(crate) fn templates() -> ListResourceTemplatesResult {
    cached(ListResourceTemplatesResult::with_all_items(vec![
        ResourceTemplate::new("test://template/{id}/data", "By id")
            .with_description("A text with the id in it")
            .with_mime_type("application/json"),
    ]))
}

pub(crate) fn read(uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
    let contents = match (uri, id) {
        (_, Some(id)) => {
            let body =
                json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text(uri, "application/json", body.to_string())
        }
        ("test://static-text", _) => {
            text(uri, "text/plain", "This is the content of the static text resource.")
        }
        ("test://static-binary", _) => ResourceContents::BlobResourceContents {
            uri: uri.into(),
            mime_type: Some("image/png".into()),
            blob: PNG.into(),
            meta: None,
        },
        _ => {
            let about = json!({ "uri": uri });
            return Err(ErrorData::resource_not_found("there is no such resource", Some(about)));
        }
    };
    Ok(cached(ReadResourceResult::new(vec![contents])).into())
}

pub(crate) fn prompts() -> ListPromptsResult {
    let argument = |name: &str| {
        PromptArgument::new(name)
            .with_description(format!("{name} of the test"))
            .with_required(true)
    };
    let arguments = vec![argument("arg1"), argument("arg2")];
    cached(ListPromptsResult::with_all_items(vec![
        Prompt::new("test_simple_prompt", Some("Takes nothing"), None),
        Prompt::new("test_prompt_with_arguments", Some("Says its arguments"), Some(arguments)),
        Prompt::new("test_prompt_with_embedded_resource", Some("Has a resource in it"), None),
        Prompt::new("test_prompt_with_image", Some("Has an image in it"), None),
        Prompt::new(inputs::PROMPT, Some("Asks back"), None),
    ]))
}

pub(crate) fn prompt(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let arguments = request.arguments.as_ref();
        let value = arguments.and_then(|all| all.get(name)).and_then(|value| value.as_str());
        value.unwrap_or_default().to_owned()
    };
    let said = |text: &str| PromptMessage::new_text(Role::User, text);
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![said("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => vec![said(&format!(
            "Prompt with arguments: arg1='{}', arg2='{}'",
            argument("arg1"),
            argument("arg2"),
        ))],
        "test_prompt_with_embedded_resource" => {
            let uri = match argument("resourceUri") {
                none if none.is_empty() => "test://static-text".to_owned(),
                uri => uri,
            };
            let resource = text(&uri, "text/plain", "Embedded resource content for testing.");
            vec![
                PromptMessage::new(Role::User, ContentBlock::resource(resource)),
                said("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => vec![
            PromptMessage::new(
                Role::User,
                ContentBlock::Image(ImageContent::new(PNG, "image/png")),
            ),
            said("Please analyze the image above."),
        ],
        _ => return Err(ErrorData::invalid_params("there is no such prompt", None)),
    };
    Ok(GetPromptResult::new(messages).with_description("A prompt of the tests").into())
}

pub(crate) fn complete(request: &CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
    let begun = &request.argument.value;
    let known = match &request.r#ref {
        Reference::Prompt(_) => vec!["paris", "park", "party"],
        _ => vec!["1", "2", "3"],
    };
    let values = known.into_iter().filter(|value| value.starts_with(begun.as_str()));
    let values = CompletionInfo::new(values.map(str::to_owned).collect());
    Ok(CompleteResult::new(values.map_err(|error| ErrorData::internal_error(error, None))?))
}
