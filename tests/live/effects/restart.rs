//! Keys that take effect at a start: that a reload names them is shown for every row by the tests
//! of the configuration, what each does by the test that stands beside it here.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use async_nats::jetstream;
use futures_util::StreamExt as _;

use super::{named, tests_exist};
use crate::support::jwt::Account;
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// Each row that takes a restart, and a test in which it differs from its default.
const SHOWN_BY: &[(&str, &str)] = &[
    ("runtime.id", "two_sidecars_show_each_other_what_they_sent"),
    ("runtime.attractor_type", "two_sidecars_show_each_other_what_they_sent"),
    ("runtime.profile", "the_page_on_profiles_shows_one_that_reads_its_example_as_native_evidence"),
    ("nats.url", "a_retiring_server_is_left_for_another"),
    ("nats.prefix", "names_of_ones_own_carry_everything"),
    ("nats.creds_file", "a_wrong_proof_is_refused_and_a_right_one_taken"),
    ("nats.nkey_file", "a_wrong_proof_is_refused_and_a_right_one_taken"),
    ("nats.token_file", "a_wrong_proof_is_refused_and_a_right_one_taken"),
    ("nats.provision", "without_provisioning_what_is_absent_is_said_and_stays_absent"),
    ("nats.replicas", "a_durability_that_the_broker_cannot_give_is_said"),
    ("nats.durability", "a_durability_that_the_broker_cannot_give_is_said"),
    ("nats.stream_out", "names_of_ones_own_carry_everything"),
    ("nats.stream_in", "names_of_ones_own_carry_everything"),
    ("nats.stream_quarantine", "names_of_ones_own_carry_everything"),
    ("nats.domain", "what_is_written_is_enough_in_a_domain"),
    ("nats.inbox_prefix", "names_of_ones_own_carry_everything"),
    (
        "nats.connect_timeout",
        "a_broker_that_greets_only_within_tls_is_reached_where_tls_comes_first",
    ),
    ("nats.ping_interval", "p10_a_half_open_connection_is_noticed_by_its_pings"),
    ("nats.window", "p8_a_packet_under_way_when_the_connection_ends_comes_again_at_once"),
    (
        "nats.ack_timeout",
        "publishes_without_an_answer_are_said_and_no_longer_said_once_they_are_answered",
    ),
    (
        "nats.tls.ca_file",
        "a_broker_is_believed_by_its_authority_and_believes_us_by_our_certificate",
    ),
    (
        "nats.tls.cert_file",
        "a_broker_is_believed_by_its_authority_and_believes_us_by_our_certificate",
    ),
    (
        "nats.tls.key_file",
        "a_broker_is_believed_by_its_authority_and_believes_us_by_our_certificate",
    ),
    ("nats.tls.required", "a_broker_without_tls_is_refused_where_it_is_required"),
    ("nats.tls.first", "a_broker_that_greets_only_within_tls_is_reached_where_tls_comes_first"),
    ("listen.api", "a_taken_address_is_named_with_its_key"),
    ("listen.admin", "health_says_what_the_probes_say_and_ends_accordingly"),
    ("listen.console", "the_page_is_for_everybody_and_holds_no_data"),
    ("listen.socket_uids", "only_our_own_uid_root_and_listed_uids_are_let_in"),
    ("listen.token_file", "the_token_is_asked_for_before_anything_else_is_told"),
    ("listen.operator_token_file", "the_runtime_can_isolate_and_cannot_lift_the_hold"),
    ("listen.allowed_origins", "a_page_of_a_foreign_origin_gets_nothing_and_does_nothing"),
    ("listen.allowed_hosts", "only_an_exact_loopback_host_is_let_in"),
    (
        "listen.admin_hosts",
        "the_admin_listener_is_called_by_address_or_by_a_name_that_is_configured",
    ),
    ("listen.body_bytes_max", "a_declared_length_over_the_limit_is_refused_before_it_is_sent"),
    ("listen.connections_max", "one_connection_too_many_is_told_so_at_once"),
    ("listen.header_timeout", "a_slow_head_is_cut_off_however_it_trickles"),
    ("listen.reply_timeout", "a_slow_body_is_given_up"),
    ("console.fleet", "each_form_says_the_same"),
    ("ingest.http", "reports_over_http_can_be_turned_off_alone"),
    ("ingest.tail.path", "a_followed_file_reports_like_the_runtime_itself"),
    ("ingest.tail.interval", "a_line_waits_for_its_newline"),
    (
        "ingest.tail.line_bytes_max",
        "a_line_that_is_too_long_is_reported_before_it_ends_and_skipped_to_its_newline",
    ),
    ("containment.mode", "in_shadow_presence_says_so_and_a_bucket_of_others_loosens_nothing"),
    (
        "containment.hold_file",
        "the_hold_file_isolates_while_it_is_there_and_its_hold_survives_a_kill",
    ),
    ("snapshot.spool", "what_was_accepted_is_there_in_the_next_life"),
    ("snapshot.level", "a_delta_costs_what_changed_at_every_level"),
    ("snapshot.bytes_max", "bad_pushes_are_refused_and_leave_nothing"),
    ("snapshot.spool_bytes_max", "a_full_spool_refuses_and_loses_nothing_that_waits"),
    (
        "snapshot.cache_bytes_max",
        "every_snapshot_of_a_long_run_is_stored_at_the_cost_of_its_change_and_restored",
    ),
    (
        "snapshot.keep_full",
        "every_snapshot_of_a_long_run_is_stored_at_the_cost_of_its_change_and_restored",
    ),
    ("snapshot.keep_for", "nothing_is_built_on_a_base_that_was_taken_away_or_altered"),
    ("snapshot.stored_bytes_max", "two_odd_pushes_erase_no_memory_and_too_many_bytes_are_refused"),
    ("deliver.url", "p8_a_delivery_is_acknowledged_after_the_runtime_took_it"),
    (
        "deliver.timeout",
        "p4_an_isolation_ends_the_request_under_way_and_what_waits_is_delivered_later",
    ),
    ("audit.file", "the_chain_goes_on_across_restarts"),
    ("audit.bytes_max", "files_are_rotated_by_size_and_only_so_many_are_kept"),
    ("audit.files_max", "files_are_rotated_by_size_and_only_so_many_are_kept"),
    ("log.format", "the_log_is_for_people_where_that_is_asked_for"),
];

#[test]
fn every_row_that_takes_a_restart_names_what_shows_its_effect() {
    assert_eq!(named(SHOWN_BY), super::rows(driftgate::config::Effect::Restart));
    tests_exist(SHOWN_BY);
}

#[tokio::test]
async fn names_of_ones_own_carry_everything() {
    let server = NatsServer::start();
    let own = "[nats]\nprefix = \"acme.drift\"\nstream_out = \"ACME\"\nstream_in = \"ACME\"\n\
               stream_quarantine = \"ACME_REFUSED\"\ninbox_prefix = \"_INBOX.acme\"\n";
    let plan = |runtime: &str, peer: &str| Plan::new(runtime, &[peer], &server.url()).with(own);
    let planner = Sidecar::connected(plan("planner", "critic")).await;
    let critic = Sidecar::connected(plan("critic", "planner")).await;
    critic.stores().await;
    planner.stores().await;
    until("the planner's packet", async || critic.shown("planner").await).await;

    let client = async_nats::connect(server.url()).await.unwrap();
    let broker = jetstream::new(client.clone());
    let names: Vec<_> = broker.stream_names().map(Result::unwrap).collect().await;
    assert!(names.iter().any(|name| name == "ACME"), "{names:?}");
    assert!(!names.iter().any(|name| name == "DRIFTGATE_STATE"), "{names:?}");
    let stream = broker.get_stream("ACME").await.unwrap();
    stream.get_last_raw_message_by_subject("acme.drift.state.planner.critic").await.unwrap();

    // What cannot be read is kept under the name of one's own, too.
    client.publish("acme.drift.state.nobody.critic", "{}".into()).await.unwrap();
    client.flush().await.unwrap();
    until("the refused packet", async || {
        let kept = broker.get_stream("ACME_REFUSED").await.unwrap();
        (kept.get_info().await.unwrap().state.messages > 0).then_some(())
    })
    .await;
    let subjects = server.subscriptions_of("planner").expect("its connection");
    let is_inbox = |subject: &String| subject.starts_with("_INBOX.acme.");
    assert!(subjects.iter().any(is_inbox), "{subjects:?}");
}

#[tokio::test]
async fn a_wrong_proof_is_refused_and_a_right_one_taken() {
    let (pair, account) = (nkeys::KeyPair::new_user(), Account::new());
    let nkey = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", pair.public_key());
    let other = nkeys::KeyPair::new_user();
    let token = "authorization { token: right }".to_owned();
    let proofs = [
        ("token_file", token, "right".to_owned(), "wrong".to_owned()),
        ("nkey_file", nkey, pair.seed().unwrap(), other.seed().unwrap()),
        ("creds_file", account.lines(), account.credentials(), Account::new().credentials()),
    ];
    for (key, lines, right, wrong) in proofs {
        let server = NatsServer::start_with(&lines);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proof");
        let write = |text: &str| {
            std::fs::write(&file, text).unwrap();
            crate::support::sidecar::private(&file);
        };
        write(&wrong);
        let plan = Plan::new("planner", &["critic"], &server.url());
        let sidecar = Sidecar::start(plan.with(&format!("[nats]\n{key} = {file:?}\n"))).await;
        let said =
            super::said(&sidecar, "broker_unreachable", "the server refused our credentials");
        said.await;
        // Read again at each attempt.
        write(&right);
        sidecar.is_connected().await;
        sidecar.stores().await;
    }
}

#[tokio::test]
async fn the_log_is_for_people_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new("planner", &["critic"], "nats://127.0.0.1:1");
    let mut files = plan.with("[log]\nformat = \"text\"").files_in(folder.path()).to_vec();
    files.insert(1, "--config".into());
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["run", "--config"])
        .args(&files)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let read = log.read_line(&mut line);
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    assert!(line.contains("INFO started, gate blocked until the first good report"), "{line}");
    assert!(line.contains("runtime_id=planner"), "{line}");
}
