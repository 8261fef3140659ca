//! What a client takes: media types and codings with their weights (RFC 9110 section 12).
//!
//! An answer is one document in every media type. JSON-LD has the packet's `@context` beside the
//! rest; YAML is the same JSON value. Errors do not negotiate: they are always
//! `application/problem+json`.
//!
//! A route with an answer of its own calls [`AnswerType::of`] before it does anything, and
//! [`AnswerType::write`] with what it has to say. Bodies are read by `document.rs`.

use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
};
use serde::Serialize;

use super::coding::Coding;
use super::problem::{MEDIA_TYPES, Outcome, Problem};
use crate::protocol::packet::CONTEXT;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    JsonLd,
    Yaml,
}

/// The media types of documents, both ways; of equal ones the first is answered.
pub(super) const FORMS: [(&str, Form); 5] = [
    ("application/json", Form::Json),
    ("application/ld+json", Form::JsonLd),
    ("application/yaml", Form::Yaml),
    ("application/x-yaml", Form::Yaml),
    ("text/yaml", Form::Yaml),
];

impl Form {
    /// Of a media type without its parameters.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        let is_named = |(name, _): &&(&str, Self)| name.eq_ignore_ascii_case(media_type);
        FORMS.iter().find(is_named).map(|(_, form)| *form)
    }
}

/// How one answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerType {
    media_type: &'static str,
    form: Form,
    coding: Coding,
}

/// A document of linked data.
#[derive(Serialize)]
struct Linked<'a, T> {
    #[serde(rename = "@context")]
    context: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

impl AnswerType {
    /// What the client asks for; JSON when it does not say.
    ///
    /// # Errors
    /// [`Outcome::NotAcceptable`]. Asked before anything is done, so that no request takes effect
    /// that could not be answered.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let offered = FORMS.map(|(media_type, _)| media_type);
        let media_type = preferred(headers, &offered).ok_or_else(|| {
            let detail = format!("answers are one of: {MEDIA_TYPES}");
            Problem::new(Outcome::NotAcceptable, detail).of_field(ACCEPT.as_str())
        })?;
        let form = Form::of(media_type).unwrap_or(Form::Json);
        Ok(Self { media_type, form, coding: Coding::of_answer(headers)? })
    }

    /// Writes `value`, which has the form of an object, as a 200.
    ///
    /// # Errors
    /// [`Outcome::Unencodable`]: a bug of ours, no view has such a value.
    pub(super) async fn write(self, value: &(impl Serialize + Sync)) -> Result<Response, Problem> {
        let written = match self.form {
            Form::Json => serde_json::to_vec(value).ok(),
            Form::JsonLd => serde_json::to_vec(&Linked { context: CONTEXT, value }).ok(),
            // By way of a JSON value, for a packet inside is kept as JSON text.
            Form::Yaml => serde_json::to_value(value)
                .ok()
                .and_then(|value| serde_saphyr::to_string(&value).ok())
                .map(String::into_bytes),
        };
        let plain = written
            .ok_or_else(|| Problem::new(Outcome::Unencodable, "a value cannot be written"))?;
        let (coding, bytes) = self.coding.encode(plain).await?;
        let mut response = ([(CONTENT_TYPE, self.media_type)], bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, coding);
        }
        Ok(response)
    }
}

/// Whether the client says nothing in this header.
pub(super) fn is_absent(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().all(HeaderValue::is_empty)
}

/// Whether the client has what this entity tag names: weak comparison (RFC 9110 section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let values = headers.get_all(IF_NONE_MATCH);
    let mut tags = values.iter().filter_map(|value| value.to_str().ok());
    tags.any(|text| {
        text.split(',').map(str::trim).any(|tag| tag == "*" || opaque(tag) == opaque(etag))
    })
}

/// Which of the media types that there are `Accept` wants most, the first of equal ones; `None`
/// when it wants none of them.
pub(super) fn preferred<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    if is_absent(headers, &ACCEPT) {
        return offered.first().copied();
    }
    let wanted = |media_type: &&'a str| {
        let (kind, _) = media_type.split_once('/').unwrap_or_default();
        let weight = weight(headers, &ACCEPT, &["*/*", &format!("{kind}/*"), media_type]);
        Some((weight.filter(|weight| *weight > 0)?, *media_type))
    };
    // The last of equal ones is the largest.
    let (_, best) = offered.iter().rev().filter_map(wanted).max_by_key(|(weight, _)| *weight)?;
    Some(best)
}

/// How much a client wants something, in thousandths: as the last of `patterns`, from the widest
/// to the closest, that the header names says; `None` when it names none of them.
pub(super) fn weight(headers: &HeaderMap, name: &HeaderName, patterns: &[&str]) -> Option<u16> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let weigh = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next()?;
        let rank = patterns.iter().position(|pattern| pattern.eq_ignore_ascii_case(named))?;
        let given = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        Some((rank, given.map_or(Some(1000), thousandths)?))
    };
    texts.flat_map(|text| text.split(',')).filter_map(weigh).max().map(|(_, weight)| weight)
}

/// A weight of RFC 9110 section 12.4.2 (`0.875`) in thousandths; `None` when it is not one.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = matches!(whole, "0" | "1")
        && decimals.len() <= 3
        && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let number = format!("{whole}{decimals:0<3}").parse().ok()?;
    (is_weight && number <= 1000).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = AnswerType::of(&headers).ok().map(|answer| answer.media_type);
        assert_eq!(found, expected, "{accept}");
    }

    #[test]
    fn the_most_specific_range_and_the_highest_weight_decide() {
        let [json, json_ld] = ["application/json", "application/ld+json"].map(Some);
        let yaml = Some("application/yaml");
        check("", json);
        check("*/*", json);
        check("application/*;q=0.1", json);
        check("Application/JSON", json);
        check("application/ld+json", json_ld);
        check("application/json;q=0.5, application/ld+json;Q=0.9", json_ld);
        check("application/json;q=0, */*", json_ld);
        check("text/html, */*;q=0.8", json);
        check("application/yaml", yaml);
        check("application/json;q=0.2, application/yaml;q=0.3", yaml);
        check("text/*", Some("text/yaml"));
        check("application/x-yaml, text/html", Some("application/x-yaml"));
        check("text/html", None);
        check("application/problem+json", None);
        check("*/*;q=0", None);
        check("application/json;q=0.0", None);
        check("application/json;q=7", None);
        check(";;;,,,=", None);
    }
}
