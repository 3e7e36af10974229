//! Finding a header.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Up to so many names are compared in less time than it takes to hash one.
const FEW: usize = 16;

/// The values of a header, in their order.
pub(super) fn values<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    let few = headers.keys_len() <= FEW;
    let compared = few.then(|| headers.iter().filter(move |(known, _)| *known == name));
    let hashed = (!few).then(|| headers.get_all(name));
    let compared = compared.into_iter().flatten().map(|(_, value)| value);
    compared.chain(hashed.into_iter().flatten())
}

/// Whether there is such a header.
pub(crate) fn is_there(headers: &HeaderMap, name: &HeaderName) -> bool {
    values(headers, name).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("mcp-session-id");

    #[test]
    fn values_are_found_in_their_order_among_few_headers_and_among_many() {
        for others in [0, FEW - 1, FEW, 3 * FEW] {
            let mut headers = HeaderMap::new();
            for n in 0..others {
                let name: HeaderName = format!("x-{n}").parse().unwrap();
                headers.append(name, HeaderValue::from_static("another"));
            }
            assert!(!is_there(&headers, &NAME), "{others}");
            for value in ["one", "two"] {
                headers.append(NAME, HeaderValue::from_static(value));
            }
            assert!(values(&headers, &NAME).eq(["one", "two"]), "{others}");
            assert!(is_there(&headers, &NAME));
        }
    }
}
