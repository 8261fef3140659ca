//! The image's recipe, against what the sources need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::definition::path;

/// Files that the sources carry in themselves, as paths in the tree.
fn included(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            included(&file, found);
            continue;
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        for (at, name) in
            text.match_indices("include_str!(\"").chain(text.match_indices("include_bytes!(\""))
        {
            let named = text[at + name.len()..].split('"').next().unwrap();
            let named = file.parent().unwrap().join(named).canonicalize();
            let root = path("").canonicalize().unwrap();
            if let Ok(inside) = named.unwrap_or_default().strip_prefix(root) {
                found.insert(inside.to_str().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn the_recipe_copies_all_that_the_sources_include() {
    let mut found = BTreeSet::new();
    included(&path("src"), &mut found);
    assert!(found.contains("deploy/sidecar/container.yaml"), "{found:?}");
    let recipe = fs::read_to_string(path("deploy/Containerfile")).unwrap();
    let copied: Vec<&str> = recipe
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"))
        .flat_map(|line| line.split(' ').rev().skip(1))
        .collect();
    for copy in &copied {
        assert!(path(copy).exists(), "the recipe copies {copy}, which is not there");
    }
    let is_there = |file: &String| copied.iter().any(|copy| Path::new(file).starts_with(copy));
    let missing: Vec<_> = found.iter().filter(|file| !is_there(file)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "included and not copied");
}
