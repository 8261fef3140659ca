//! The console's listener. It is a convenience: where it cannot be had, that is said, and all else
//! runs.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tally::Tally;
use crate::config::{Config, Fleet};
use crate::driver::Handle;
use crate::http::listener::{Bound, Listener};
use crate::http::settings::{ApiSettings, ConsoleSettings, Limits};
use crate::http::{self, server};
use crate::telemetry::Condition;

/// Connections of the console: some pages, each with a stream and a few questions.
const CONNECTIONS_MAX: usize = 128;

/// Binds and serves it until the flag turns true; `None` where there is none.
pub(super) async fn start(
    config: &Config,
    api: &ApiSettings,
    handle: &Handle,
    tally: &Arc<Tally>,
    end: watch::Receiver<bool>,
) -> Option<(SocketAddr, JoinHandle<server::Stopped>)> {
    let wanted = config.listen.console?;
    let bound = match Listener::tcp(wanted).await.and_then(|listener| {
        let bound = listener.bound()?;
        Ok((listener, bound))
    }) {
        Ok(bound) => bound,
        Err(error) => {
            let text = format!("listen.console {wanted}: {error}");
            handle.conditions().begin(Condition::ConsoleUnbound, text);
            return None;
        }
    };
    let (listener, bound) = bound;
    let Bound::Tcp(address) = bound else { return None };
    let names = config.listen.allowed_hosts.iter();
    let settings = ConsoleSettings {
        token: api.operator_token.clone(),
        is_open: config.open_console,
        hosts: names.map(|host| host.split(':').next().unwrap_or_default().to_owned()).collect(),
        shows_all: config.console.fleet == Fleet::All,
    };
    let observer = tally.counting();
    let metrics = tally.metrics(handle);
    let router = http::console_router(handle.clone(), &settings, &bound, metrics, observer.clone());
    let limits = Limits {
        connections_max: config.listen.connections_max.min(CONNECTIONS_MAX),
        ..api.limits
    };
    let serving = server::serve(listener, router, limits, observer, super::ended(end));
    Some((address, tokio::spawn(serving)))
}
