//! What is written out of the rows: both documents, and the schema against its reader.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use driftgate::config::{Config, Form, example, manual, reference};

use super::{ALTERNATIVES, LEAST, WHOLE, WHOLE_YAML, documented, files, uncommented};

/// `make documents` sets the variable and so writes them.
#[test]
fn the_documents_are_what_the_rows_say() {
    for (path, written) in
        [("config/driftgate.toml", example()), ("docs/configuration.md", manual())]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
            fs::write(&path, &written).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        let differs = found.lines().zip(written.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{}: run `make documents`", path.display());
        assert_eq!(found.len(), written.len(), "{}: run `make documents`", path.display());
    }
}

/// An editor's view: TOML and YAML as JSON.
fn valid(validator: &jsonschema::Validator, text: &str) -> Result<(), String> {
    let value: serde_json::Value = toml::from_str(text).unwrap();
    validator.validate(&value).map_err(|error| format!("{} {error}", error.instance_path()))
}

#[test]
fn the_schema_takes_what_the_reader_takes_and_refuses_what_it_refuses() {
    let schema = driftgate::http::describe::Name::Config.schema().unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for text in [LEAST, WHOLE, &documented(), &uncommented("creds_file")] {
        valid(&validator, text).unwrap();
    }
    let yaml = serde_saphyr::from_str::<serde_json::Value>(WHOLE_YAML).unwrap();
    assert!(validator.is_valid(&yaml));
    for (key, text, needs) in ALTERNATIVES {
        for (key, text) in needs.iter().chain([&(*key, *text)]) {
            // Bare where it can be, as a file has it.
            let is_bare = text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok();
            let value = if is_bare { (*text).to_owned() } else { format!("{text:?}") };
            let written = format!("{key} = {value}");
            valid(&validator, &written).unwrap_or_else(|why| panic!("{written}: {why}"));
        }
    }
    let mut refused = 0;
    for row in reference().into_iter().flat_map(|section| section.rows) {
        let (table, key) = row.path.rsplit_once('.').unwrap();
        let header = match table.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{table}]"),
        };
        for value in ["-1", "1e9", "{ x = 1 }", "[[1]]", "\"\"", "\"@ @\"", "99999999999999"] {
            let mut text = format!("{header}\n{key} = {value}\n");
            let needed = match table {
                "peers[]" => "id",
                "integrity.keys[]" => "id file",
                _ => "",
            };
            for needed in needed.split_whitespace().filter(|needed| *needed != key) {
                text += &format!("{needed} = \"k1\"\n");
            }
            let read_file = files(&[("/one.toml", &text)]);
            let loaded = Config::load(&["/one.toml".into()], &BTreeMap::new(), &read_file);
            let name = row.path.replace("[]", "[0]");
            let is_about = |mistake: &str| mistake.contains(&name);
            let mistakes = loaded.err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
            let read = !mistakes.lines().any(is_about);
            let is_valid = valid(&validator, &text).is_ok();
            refused += usize::from(!is_valid);
            // The reader takes a number for a text here and there, and an empty list's text.
            let is_known = value.parse::<f64>().is_ok() && row.form == Form::Quoted;
            assert!(
                is_valid || !read || is_known || value == "\"\"",
                "{text}: only the schema refuses it"
            );
        }
        let stranger = format!("{header}\nqqqqqqq = 1\n");
        assert!(valid(&validator, &stranger).is_err(), "{stranger}");
    }
    assert!(refused > 200, "{refused}");
}
