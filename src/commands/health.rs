//! `driftgate health`: asks the probe of a running sidecar, for those who can only run a command.
//!
//! It needs one value of the configuration, the address of the admin listener. A mistake elsewhere
//! in the files is not its business: a sidecar that refused such a reload runs on and is well, and
//! a probe that failed for it would restart the runtime beside it.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::api::{self, Api};
use super::files::Files;
use super::sysexits::{self, Fault};
use crate::config::{Config, read_from_disk};

/// Longest wait for the whole answer: a probe's own timeout should be longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Exit code of a sidecar that is not well, or does not answer.
const UNHEALTHY: u8 = 1;

/// Arguments of `driftgate health`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate health --config driftgate.toml\n  \
                  kubectl exec POD --container driftgate -- /driftgate health --ready\n\n\
                  As a probe of a container:\n  \
                  livenessProbe: { exec: { command: [/driftgate, health] }, timeoutSeconds: 3 }\n\n\
                  Of the configuration it reads listen.admin alone, and with \
                  DRIFTGATE__LISTEN__ADMIN no file at all.\n\
                  Exits 0 when the sidecar is well, 1 when it is not or does not answer in 2 s, 78 \
                  when its address cannot be told.")]
pub struct Arguments {
    #[command(flatten)]
    config: Files,
    /// Address of the admin listener; wins over the configuration
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Asks /readyz, whether reports are accepted, in place of /livez
    #[arg(long)]
    ready: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// What was found out.
#[derive(Debug)]
struct Health {
    is_well: bool,
    /// What is wrong, where the probe says it in words.
    text: Option<String>,
    /// The answer of `/readyz`.
    readiness: Option<Value>,
}

/// Asks once and says what the sidecar answers.
///
/// # Errors
/// [`Fault`]: nobody knows where to ask, or the answer cannot be written.
pub async fn run(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
) -> Result<ExitCode, Fault> {
    let address = arguments.address(environment)?;
    let health = ask(&Api::at(address), arguments.probe()).await;
    let text = arguments.text(&health, address);
    let mut output = stdout();
    writeln!(output, "{text}")
        .and_then(|()| output.flush())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, error.to_string()))?;
    Ok(if health.is_well { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
}

async fn ask(api: &Api, probe: &'static str) -> Health {
    let asking = async {
        let request = Request::get(probe).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| api.unavailable(&error.to_string()))?;
        let response = api.send(request).await?;
        let status = response.status();
        Ok::<_, Fault>((status, api::document(response).await))
    };
    let late = |_| Err(api.unavailable("its answer takes too long"));
    let unwell = |text| Health { is_well: false, text: Some(text), readiness: None };
    match tokio::time::timeout(ANSWER_TIMEOUT, asking).await.unwrap_or_else(late) {
        Ok((status, body)) => {
            let readiness: Option<Value> = serde_json::from_slice(&body).ok();
            let is_well = status == StatusCode::OK;
            let words = String::from_utf8_lossy(&body).into_owned();
            let text = (!is_well && readiness.is_none()).then(|| format!("{status}: {words}"));
            Health { is_well, text, readiness }
        }
        Err(fault) => unwell(fault.to_string()),
    }
}

impl Arguments {
    fn probe(&self) -> &'static str {
        if self.ready { "/readyz" } else { "/livez" }
    }

    fn address(&self, environment: &BTreeMap<String, String>) -> Result<SocketAddr, Fault> {
        let wrong = |text: String| Fault::new(sysexits::CONFIG, text);
        let address = match self.admin {
            Some(address) => address,
            None => {
                Config::admin_address(&self.config.paths(environment), environment, &read_from_disk)
                    .map_err(|mistakes| wrong(mistakes.to_string()))?
            }
        };
        if address.port() == 0 {
            let text = "listen.admin: port 0 is any free one; name the address with --admin";
            return Err(wrong(text.to_owned()));
        }
        Ok(api::here(address))
    }

    fn text(&self, health: &Health, address: SocketAddr) -> String {
        let Health { is_well, text, readiness } = health;
        if self.json {
            let answer = json!({
                "healthy": is_well, "probe": self.probe(), "admin": address.to_string(),
                "text": text, "readiness": readiness,
            });
            return answer.to_string();
        }
        let word = if self.ready { "ready" } else { "alive" };
        let not = if *is_well { "" } else { "not " };
        let why = text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        let degraded = readiness.as_ref().and_then(|answer| answer.get("degraded")?.as_array());
        let lines = degraded.into_iter().flatten().filter_map(Value::as_str);
        let lines: String = lines.map(|line| format!("\ndegraded: {line}")).collect();
        format!("{not}{word}{why}{lines}")
    }
}
