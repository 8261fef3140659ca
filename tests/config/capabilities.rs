//! The file that `runtime.capabilities` names.

use driftgate::config::Config;

use crate::settings::{LEAST, accepted, files, variables};

#[test]
fn a_capability_file_with_mistakes_or_about_another_runtime_is_refused_whole() {
    let load = |text: &str| {
        let read_file = files(&[("/driftgate.toml", LEAST), ("/c.yml", text)]);
        let named = variables(&[("runtime.capabilities", "/c.yml")]);
        Config::load(&["/driftgate.toml".into()], &named, &read_file)
    };
    let own = accepted(LEAST, &[]).runtime.id;
    load(&format!("runtime_id: {own}\n")).expect("ours");
    let foreign = load("runtime_id: somebody-else\n").expect_err("another's").to_string();
    assert!(foreign.contains("about another runtime"), "{foreign}");
    let both = load("runtime_id: a.b\ncolour: red\n").expect_err("two mistakes").to_string();
    assert!(both.contains("/runtime_id") && both.contains("/colour"), "{both}");
}
