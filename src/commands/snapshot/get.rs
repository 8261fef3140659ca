//! `get`: a snapshot from the local sidecar, verified before it is in its place.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response, StatusCode};

use super::super::api::{Api, Options};
use super::super::sysexits;
use super::bar::Meter;
use super::target::Target;
use super::{Fault, say};
use crate::protocol::digest::{Digest, Hasher};
use crate::protocol::packet::RuntimeId;

/// Reads one.
pub(super) async fn run(
    options: &Options,
    environment: &BTreeMap<String, String>,
    source: Option<&str>,
    digest: Option<Digest>,
    out: &Path,
) -> Result<(), Fault> {
    let api = Api::find(options, environment)?;
    let mut query = Vec::new();
    if let Some(source) = source {
        let id = RuntimeId::new(source).ok_or_else(|| {
            Fault::new(sysexits::DATA_ERROR, format!("--source: {source:?} is not a runtime id"))
        })?;
        query.push(format!("source={id}"));
    }
    query.extend(digest.map(|digest| format!("digest={digest}")));
    let mut target = Target::open(out)?;
    let meter = Meter::new("get");
    let path = format!("/memory/snapshot?{}", query.join("&"));
    let pulling = meter.unless_stalled(pull(&api, &path, digest, &mut target, &meter));
    let (size, found) = match meter.drawn(pulling).await {
        Some(outcome) => outcome?,
        None => return Err(api.unavailable("nothing has moved for too long")),
    };
    let name = target.name().to_owned();
    target.keep()?;
    say(&format!("{name}: {size} bytes, {found}"));
    Ok(())
}

async fn pull(
    api: &Api,
    path: &str,
    wanted: Option<Digest>,
    target: &mut Target,
    meter: &Meter,
) -> Result<(u64, Digest), Fault> {
    let request = Request::get(path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| api.unavailable(&error.to_string()))?;
    let response = api.send(request).await?;
    if response.status() != StatusCode::OK {
        return Err(api.refused(response).await);
    }
    let promised = promised(&response).ok_or_else(|| {
        Fault::new(sysexits::DATA_ERROR, "the answer does not say its digest; nothing was written")
    })?;
    let mut body = response.into_body();
    meter.set_total(body.size_hint().exact().unwrap_or(0));
    let (mut hash, mut size) = (Hasher::default(), 0_u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| api.unavailable(&error.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        hash.update(&piece);
        target.write(&piece)?;
        meter.add(piece.len());
        size = size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    let found = hash.finish();
    let expected = wanted.unwrap_or(promised);
    if found != expected || found != promised {
        let text = format!("the bytes that came are {found}, not {expected}; nothing was written");
        return Err(Fault::new(sysexits::DATA_ERROR, text));
    }
    Ok((size, found))
}

/// The digest of the plain bytes.
fn promised(response: &Response<Incoming>) -> Option<Digest> {
    Digest::parse(response.headers().get("driftgate-digest")?.to_str().ok()?)
}
