//! What the fuzzer drives, over its corpora: each input, each of its truncations, and each with one
//! byte changed.

#[path = "../fuzz/entries.rs"]
mod entries;

use std::path::Path;

/// Places of one input at which it is cut and changed.
const PLACES: usize = 24;

#[test]
fn nothing_of_the_corpora_breaks_what_must_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut inputs = 0;
    for (name, entry) in entries::ALL {
        let folder = corpora.join(name);
        let files = folder.read_dir().unwrap_or_else(|error| panic!("{name}: {error}"));
        for file in files {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            entry(&bytes);
            let step = 1 + bytes.len() / PLACES;
            for at in (0..bytes.len()).step_by(step) {
                entry(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                entry(&changed);
            }
            inputs += 1;
        }
    }
    assert!(inputs >= 8, "{inputs} inputs");
}
