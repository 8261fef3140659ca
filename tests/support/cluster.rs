//! Three nats-servers that form one JetStream cluster.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::nats_server::NatsServer;
use super::observer::Observer;
use super::wait::until;

/// The servers `n0`, `n1` and `n2`.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<NatsServer>,
}

impl Cluster {
    /// Starts all three and waits until each is healthy, which it is only with the others.
    pub(crate) fn start() -> Self {
        // Free a moment ago, and nobody else is told about them.
        let holders = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = holders.map(|holder| holder.local_addr().expect("it is bound").port());
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
        let begin = |(index, port): (usize, &u16)| {
            NatsServer::begin_with(&format!(
                "server_name: n{index}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", \
                 no_advertise: true, routes: [{routes}] }}\nlame_duck_duration: 30s\n\
                 lame_duck_grace_period: 1s"
            ))
        };
        let servers: Vec<NatsServer> = ports.iter().enumerate().map(begin).collect();
        servers.iter().for_each(NatsServer::is_healthy);
        Self { servers }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Place of the server that leads a stream, waiting until there is one.
    pub(crate) async fn leader(&self, observer: &Observer, stream: &str) -> usize {
        let call = format!("STREAM.INFO.{stream}");
        until("a leader", async || {
            let info = observer.api(&call, &Value::Null).await;
            place(&info["cluster"]["leader"])
        })
        .await
    }

    /// Place of the server that leads a consumer.
    pub(crate) async fn consumer_leader(&self, observer: &Observer, runtime: &str) -> usize {
        let call = format!("CONSUMER.INFO.DRIFTGATE_STATE.driftgate-{runtime}");
        until("a consumer's leader", async || {
            place(&observer.api(&call, &json!(null)).await["cluster"]["leader"])
        })
        .await
    }

    /// Place of the server that the link of `runtime` is connected to.
    pub(crate) fn home_of(&self, runtime: &str) -> Option<usize> {
        self.servers.iter().position(|server| {
            server.is_running()
                && server.subscriptions_of(runtime).is_some_and(|some| !some.is_empty())
        })
    }
}

fn place(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix('n')?.parse().ok()
}
