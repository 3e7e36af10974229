//! Which paths are managed.

/// Patterns of the paths that the layer manages, checked when they are set.
#[derive(Debug)]
pub(super) struct Paths(Box<[Pattern]>);

#[derive(Debug)]
enum Pattern {
    /// Without parameters, and without a slash at its end.
    Plain(Box<str>),
    /// `None` for a parameter.
    Segments(Box<[Option<Box<str>>]>),
}

impl Paths {
    /// Of patterns that [`check`] has let through.
    pub(super) fn new(patterns: &[Box<str>]) -> Self {
        Self(patterns.iter().map(|pattern| Pattern::of(pattern)).collect())
    }

    #[inline]
    pub(super) fn cover(&self, path: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.covers(path))
    }
}

impl Pattern {
    fn of(pattern: &str) -> Self {
        // What a catch-all stands for lies below the rest.
        let pattern = match pattern.rfind("/{*") {
            Some(at) => &pattern[..at],
            None => pattern,
        };
        let pattern = pattern.trim_end_matches('/');
        if !pattern.contains('{') {
            return Self::Plain(pattern.into());
        }
        let segment = |segment: &str| (!segment.starts_with('{')).then(|| segment.into());
        Self::Segments(pattern.split('/').skip(1).map(segment).collect())
    }

    /// Whether `path` matches or lies below: what reaches the server must not pass unseen, and `nest_service` hands
    /// it both.
    #[inline]
    fn covers(&self, path: &str) -> bool {
        match self {
            Self::Plain(plain) => path
                .strip_prefix(&**plain)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Segments(segments) => match_segments(segments, path),
        }
    }
}

#[inline(never)]
fn match_segments(segments: &[Option<Box<str>>], path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    segments.iter().all(|segment| {
        parts.next().is_some_and(|part| match segment {
            Some(literal) => part == &**literal,
            // As in axum's router, a parameter is never empty.
            None => !part.is_empty(),
        })
    })
}

/// What is wrong with a pattern: why no request would ever match it.
pub(super) fn check(pattern: &str) -> Result<(), &'static str> {
    if !pattern.starts_with('/') {
        return Err("it must start with `/`");
    }
    if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("other characters than visible ASCII come percent-encoded");
    }
    if pattern.contains(['?', '#']) {
        return Err("a query or a fragment is not part of a path");
    }
    let segments: Vec<_> = pattern.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match inner {
            Some("" | "*") => return Err("a parameter needs a name"),
            Some(name) if name.contains(['{', '}']) => return Err("braces do not nest"),
            Some(name) if name.starts_with('*') && at + 1 < segments.len() => {
                return Err("a catch-all is the last segment");
            }
            Some(_) => {}
            None if segment.contains(['{', '}']) => {
                return Err("a parameter is a whole segment: `/{tenant}/mcp`");
            }
            None if segment.starts_with([':', '*']) => {
                return Err("a parameter is written `{name}`, a catch-all `{*name}`");
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        assert_eq!(check(pattern), Ok(()), "{pattern}");
        Paths::new(&[pattern.into()]).cover(path)
    }

    #[test]
    fn a_path_covers_itself_and_what_lies_below() {
        for path in ["/mcp", "/mcp/", "/mcp/x", "/mcp//"] {
            assert!(covers("/mcp", path) && covers("/mcp/", path), "{path}");
        }
        for path in ["/", "/mc", "/mcpx", "/health", "/a/mcp"] {
            assert!(!covers("/mcp", path), "{path}");
        }
        assert!(covers("/", "/anything"));
        assert!(Paths::new(&[]).cover("/anything"));
    }

    #[test]
    fn a_parameter_stands_for_one_segment_and_a_catch_all_for_the_rest() {
        for path in ["/a/mcp", "/b/mcp/", "/%20/mcp/x"] {
            assert!(covers("/{tenant}/mcp", path), "{path}");
        }
        for path in ["/mcp", "//mcp", "/a/b/mcp", "/a", "/a/mcpx", "a/mcp"] {
            assert!(!covers("/{tenant}/mcp", path), "{path}");
        }
        for path in ["/mcp", "/mcp/", "/mcp/a/b"] {
            assert!(covers("/mcp/{*rest}", path), "{path}");
        }
        assert!(covers("/{a}/{*rest}", "/x/y") && !covers("/{a}/{*rest}", "/"));
    }

    #[test]
    fn a_pattern_that_cannot_match_is_told_from_one_that_can() {
        for bad in [
            "",
            "mcp",
            "/a b",
            "/é",
            "/mcp?x=1",
            "/mcp#x",
            "/{}/mcp",
            "/{*}",
            "/{a{b}}",
            "/{*a}/b",
            "/x{a}",
            "/{a}x",
            "/:tenant/mcp",
            "/*rest",
            "http://host/mcp",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["/", "/mcp", "/mcp/", "/{tenant}/mcp", "/{*all}", "/a.b-c_d~%20"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
