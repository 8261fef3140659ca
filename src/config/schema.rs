//! The rows as a JSON Schema (2020-12), by which an editor checks a file while it is written.
//!
//! It asks for numbers, truth values and texts as such, though the reader also takes a number in
//! quotes, as the environment has it. Nothing outside a list of tables is required: it may stand in
//! another file or in the environment.

use serde_json::{Map, Value, json};

use super::document::{SectionRows, reference};
use super::key::{Absent, Form, Row};
use crate::protocol::schema::or_null;

/// The schema of a configuration file, TOML or YAML.
#[must_use]
pub fn schema() -> Value {
    let mut root = table("", &Map::new(), &[]);
    for SectionRows { path, about, rows } in reference() {
        let list = path.strip_suffix("[]");
        let is_required = |row: &&Row| list.is_some() && matches!(row.absent, Absent::Mistake(..));
        let required: Vec<_> =
            rows.iter().filter(is_required).map(|row| row.key().to_owned()).collect();
        let properties = rows.iter().map(|row| (row.key().to_owned(), property(row))).collect();
        let section = table(&about, &properties, &required);
        match list {
            None => put(&mut root, path, section),
            Some(list) => {
                put(&mut root, list, json!({"type": ["array", "null"], "items": section}));
            }
        }
    }
    root
}

fn table(about: &str, properties: &Map<String, Value>, required: &[String]) -> Value {
    json!({
        "type": ["object", "null"], "description": about, "properties": properties,
        "required": required, "additionalProperties": false})
}

/// Puts `schema` at `path`, whose tables are made before what is in them.
fn put(root: &mut Value, path: &str, schema: Value) {
    let mut at = Some(root);
    for step in path.split('.') {
        let properties = at.and_then(|at| at.get_mut("properties")?.as_object_mut());
        at = properties.map(|properties| properties.entry(step).or_insert(Value::Null));
    }
    if let Some(at) = at {
        *at = schema;
    }
}

fn property(row: &Row) -> Value {
    let Row { meaning, values, shape, absent, form, effect, .. } = row;
    let mut property = or_null(shape.clone());
    let remark = format!("{meaning} Values: {values}. Effect: {}.", effect.word());
    let (name, value) = match *absent {
        Absent::Default(value) => ("default", of_toml(*form, value)),
        Absent::Nothing(_, value) | Absent::Mistake(_, value) => {
            ("examples", json!([of_toml(*form, value)]))
        }
    };
    let more: Map<String, Value> =
        [("description".to_owned(), json!(remark)), (name.to_owned(), value)].into_iter().collect();
    if let Some(property) = property.as_object_mut() {
        property.extend(more);
    }
    property
}

/// A value of the documents.
fn of_toml(form: Form, value: &str) -> Value {
    let text = format!("value = {}", form.toml(value));
    let table: Option<Value> = toml::from_str(&text).ok();
    table.and_then(|mut table| Some(table.get_mut("value")?.take())).unwrap_or_default()
}
