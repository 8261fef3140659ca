//! The JSON Schema of the reports that a profile reads, made from the profile.
//!
//! It follows [`Parsed::read`](super::Parsed): one line for each field that is read there.

use serde_json::{Map, Value, json};

use super::super::packet::AttractorType;
use super::super::packet::TEXT_BYTES_MAX;
use super::super::schema::{coherence, fraction, index, or_null, text, whole};
use super::pointer::{Pointer, Pointers};
use super::spec::{
    IdSource, KindSource, PartSource, Profile, RetentionSource, STATUS_WORDS, Words,
};

impl Profile {
    /// The schema (2020-12) of a report. What it cannot say: that a key is nearly a known one, that
    /// a list of pointers is tried in order, and what two cycles are to each other.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut root = json!({"type": "object", "properties": {}});
        for (pointers, schema) in self.fields() {
            for pointer in pointers.iter() {
                put(&mut root, pointer, or_null(schema.clone()));
            }
        }
        for (pointer, known) in &self.closed_objects {
            if let Some(object) = object_at(&mut root, pointer.as_str()) {
                object.insert("propertyNames".to_owned(), json!({"enum": known}));
            }
        }
        if let (Some(root), Some(rules)) = (root.as_object_mut(), self.index_rules()) {
            root.insert("anyOf".to_owned(), rules);
        }
        root
    }

    /// Everything that is read, and what may stand there.
    fn fields<'a>(&'a self) -> Vec<(&'a Pointers, Value)> {
        let string = || json!({"type": "string"});
        let flag = || json!({"type": "boolean"});
        let mut fields = Vec::new();
        let mut add = |pointers: Option<&'a Pointers>, schema: Value| {
            fields.extend(pointers.map(|pointers| (pointers, schema)));
        };
        add(self.cycle.as_ref(), whole());
        add(self.id_from(), text(TEXT_BYTES_MAX));
        if let Some(KindSource::Reported(words)) = &self.kind {
            add(Some(&words.from), vocabulary(words, AttractorType::WORDS));
        }
        if let Some(words) = &self.status {
            add(Some(&words.from), vocabulary(words, STATUS_WORDS));
        }
        add(self.phase.as_ref().map(|words| &words.from), string());
        for from in [&self.stability, &self.psi, &self.psd, &self.ci, &self.er, &self.cc] {
            add(from.as_ref(), fraction());
        }
        if let Some(parts) = &self.parts {
            for part in [&parts.sdi, &parts.sv, &parts.pd] {
                add(part.reported(), fraction());
            }
            if let PartSource::SymbolicVariance(from) = &parts.sv {
                add(Some(from), fraction());
            }
            add(parts.scr.reported(), coherence());
        }
        add(self.di.as_ref(), index());
        match &self.retention {
            Some(RetentionSource::Reported(from)) => add(Some(from), fraction()),
            Some(RetentionSource::MotifOverlap(from)) => {
                add(Some(from), json!({"type": "array"}));
            }
            None => {}
        }
        for from in [&self.phase_lock, &self.recenter_active] {
            add(from.as_ref(), flag());
        }
        add(self.evidence.reply.as_ref(), string());
        add(self.evidence.generation.as_ref(), json!({"type": ["number", "string"]}));
        fields
    }

    fn id_from(&self) -> Option<&Pointers> {
        match &self.id {
            Some(IdSource::Reported(from) | IdSource::Uuid(from)) => Some(from),
            Some(IdSource::Constant(_)) | None => None,
        }
    }

    /// Where a profile reads a whole index: all parts and what a packet needs, or none of the parts
    /// and the index alone. `None` where anything may be missing.
    fn index_rules(&self) -> Option<Value> {
        let di = needed(self.di.as_ref()?, true);
        let Some(parts) = self.parts.as_ref().filter(|parts| parts.are_native()) else {
            return Some(json!([di]));
        };
        let parts = [&parts.sdi, &parts.sv, &parts.pd, &parts.scr].map(PartSource::reported);
        let packet =
            [self.id_from(), self.stability.as_ref(), self.phase.as_ref().map(|words| &words.from)];
        let whole: Vec<_> =
            parts.into_iter().chain(packet).flatten().map(|from| needed(from, true)).collect();
        let absent = parts.into_iter().flatten().map(|from| needed(from, false));
        let bare: Vec<_> = absent.chain([di]).collect();
        Some(json!([{"allOf": whole}, {"allOf": bare}]))
    }
}

/// That one of the pointers leads to something that is not null, or that none does.
fn needed(from: &Pointers, is_there: bool) -> Value {
    let there = |pointer: &Pointer| {
        let steps = pointer.as_str().rsplit('/').filter(|step| !step.is_empty());
        steps.fold(json!({"not": {"type": "null"}}), |below, step| {
            json!({"type": "object", "required": [unescaped(step)], "properties": {unescaped(step): below}})
        })
    };
    let any = json!({"anyOf": from.iter().map(there).collect::<Vec<_>>()});
    if is_there { any } else { json!({"not": any}) }
}

/// Any word, or those of the specification and of the profile, in upper or lower case.
fn vocabulary<T>(words: &Words<T>, own: &str) -> Value {
    if words.otherwise.is_some() {
        return json!({"type": "string"});
    }
    let any_case = |word: &str| -> String {
        let letter = |letter: char| match letter {
            'a'..='z' => format!("[{letter}{}]", letter.to_ascii_uppercase()),
            '0'..='9' | '_' | ' ' => letter.to_string(),
            other => format!("\\u{:04x}", u32::from(other)),
        };
        word.chars().map(letter).collect()
    };
    let all = own.split(", ").chain(words.map.keys().map(String::as_str));
    let all: Vec<String> = all.map(any_case).collect();
    json!({"type": "string", "pattern": format!("^({})$", all.join("|"))})
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The schema of the object at `pointer`, made where there is none.
fn object_at<'a>(root: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    let mut at = root;
    for step in pointer.split('/').skip(1) {
        let properties = at.as_object_mut()?.entry("properties").or_insert_with(|| json!({}));
        at = properties
            .as_object_mut()?
            .entry(unescaped(step))
            .or_insert_with(|| json!({"type": ["object", "null"], "properties": {}}));
    }
    at.as_object_mut()
}

fn put(root: &mut Value, pointer: &Pointer, schema: Value) {
    let parent = pointer.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    let properties = object_at(root, parent).and_then(|parent| parent.get_mut("properties"));
    if let Some(properties) = properties.and_then(Value::as_object_mut) {
        properties.insert(unescaped(pointer.last()), schema);
    }
}
