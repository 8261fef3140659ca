//! What the fuzzer drives, over its corpora: each input, each of its truncations, and each with one
//! byte changed.

#[path = "../fuzz/entries.rs"]
mod entries;

use std::path::Path;

/// Places of one input at which it is cut and changed.
const PLACES: usize = 24;

#[test]
fn nothing_of_the_corpora_breaks_what_must_hold() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let (mut inputs, mut kinds) = (0, 0);
    for target in fuzz.join("targets").read_dir().unwrap() {
        let name = target.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let entry = |bytes: &[u8]| entries::run(&name, bytes);
        let folder = fuzz.join("corpus").join(&name);
        let files = folder.read_dir().unwrap_or_else(|error| panic!("{name}: {error}"));
        kinds += 1;
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
    assert!(kinds == 8 && inputs >= 8, "{inputs} inputs of {kinds} kinds");
}
