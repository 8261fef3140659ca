//! Reading source as far as the rules need it: what is code, which words and paths are in it, which
//! module a file is. No grammar: a lexer for comments and literals, and a reader of `a::{b, c::d}`.

use std::path::Path;

/// One file of the repository.
pub(crate) struct Page {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The text without comments and without what stands in literals; every line keeps its number.
    pub(crate) fn code(&self) -> String {
        blank(&self.text, |_| false)
    }

    /// The same without what is compiled for tests only.
    pub(crate) fn code_without_tests(&self) -> String {
        without_tests(&self.code())
    }

    /// The text without comments, literals and all.
    pub(crate) fn without_comments(&self) -> String {
        blank(&self.text, |piece| !piece.starts_with('/'))
    }

    /// The module that the file is, by its place: `src/a/b.rs` is `a`, `b`. A root is no module.
    pub(crate) fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        match path.strip_suffix(".rs").unwrap_or(path) {
            "lib" | "main" => Vec::new(),
            module => module.split('/').map(str::to_owned).collect(),
        }
    }
}

/// Every text file in `places`, which are files and folders of the repository. A place that does
/// not exist is none.
pub(crate) fn pages(places: &[&str]) -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    let mut open: Vec<_> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path)
            && let Ok(text) = String::from_utf8(bytes)
        {
            let path = path.strip_prefix(root).unwrap().display().to_string();
            pages.push(Page { path, text });
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    pages
}

/// Puts spaces in place of comments and literals, unless `keeps` says otherwise.
fn blank(text: &str, keeps: impl Fn(&str) -> bool) -> String {
    let mut code = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (length, is_code) = piece(rest);
        let (piece, after) = rest.split_at(length);
        if is_code || keeps(piece) {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|sign| if sign == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// Length of the piece that `rest` begins with, and whether it is code.
fn piece(rest: &str) -> (usize, bool) {
    let first = rest.chars().next().unwrap();
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if first == '"' {
        return (string(rest), false);
    }
    if first == '\'' {
        return character(rest).map_or((1, true), |length| (length, false));
    }
    match word(rest) {
        "" => (first.len_utf8(), true),
        prefix @ ("r" | "br" | "cr") => raw_string(&rest[prefix.len()..])
            .map_or((prefix.len(), true), |length| (prefix.len() + length, false)),
        word => (word.len(), true),
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        if rest[..at].ends_with("*/") && at > 3 {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
        if rest[at..].starts_with("/*") {
            depth += 1;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, sign) in rest.char_indices().skip(1) {
        match sign {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let text = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(hashes + 1 + text.find(&end).map_or(text.len(), |at| at + end.len()))
}

/// Length of a character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let mut signs = rest.char_indices().skip(1);
    if signs.next()?.1 == '\\' {
        return rest.get(3..)?.find('\'').map(|at| 3 + at + 1);
    }
    let (at, sign) = signs.next()?;
    (sign == '\'').then_some(at + 1)
}

/// The word that `rest` begins with, or nothing.
fn word(rest: &str) -> &str {
    let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_');
    &rest[..end.unwrap_or(rest.len())]
}

/// Puts spaces in place of what `#[cfg(test)]` stands before, in text that is code only.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, tests) = rest.split_at(at);
        let mut depth = 0;
        let end = tests.char_indices().find(|(_, sign)| {
            depth += match sign {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0 && matches!(sign, '}' | ';')
        });
        let (tests, after) = tests.split_at(end.map_or(tests.len(), |(at, _)| at + 1));
        kept.push_str(before);
        kept.extend(tests.chars().map(|sign| if sign == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    kept + rest
}

/// Every word of code, with its line.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().zip(1..).flat_map(|(line, number)| {
        let words = line.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
        words.filter(|word| !word.is_empty()).map(move |word| (number, word))
    })
}

/// Every path of code, with its line: `use a::{b, c::d};` holds `a::b` and `a::c::d`.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(sign) = rest.chars().next() {
        let before = rest;
        if sign.is_alphanumeric() || sign == '_' {
            let mut tree = Vec::new();
            rest = read_tree(rest, Vec::new(), &mut tree);
            found.extend(tree.into_iter().map(|path| (line, path)));
        } else {
            rest = &rest[sign.len_utf8()..];
        }
        line += before[..before.len() - rest.len()].matches('\n').count();
    }
    found
}

fn read_tree<'a>(rest: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut group) = rest.strip_prefix('{') {
        while !group.is_empty() && !group.starts_with('}') {
            group = read_tree(group, path.clone(), found);
            // `as name` and the comma.
            let end = group.find([',', '}']).unwrap_or(group.len());
            group = group[end..].trim_start_matches(',').trim_start();
        }
        return group.strip_prefix('}').unwrap_or(group);
    }
    let word = if rest.starts_with('*') { "*" } else { word(rest) };
    let after = &rest[word.len()..];
    path.push(word.to_owned());
    if let Some(next) = after.trim_start().strip_prefix("::") {
        let sign = next.trim_start().chars().next().unwrap_or(' ');
        if sign.is_alphanumeric() || "_{*".contains(sign) {
            return read_tree(next, path, found);
        }
    }
    found.push(path);
    after
}

/// Where a path leads from the top of the crate, if it leads into the crate.
pub(crate) fn resolve(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let ups = path.iter().take_while(|step| *step == "super").count();
    let (mut place, rest) = match first.as_str() {
        "crate" | "driftgate" if !rest.is_empty() => (Vec::new(), rest),
        "self" if !rest.is_empty() => (module.to_vec(), rest),
        "super" if path.len() > ups => {
            (module[..module.len().saturating_sub(ups)].to_vec(), &path[ups..])
        }
        _ => return None,
    };
    place.extend_from_slice(rest);
    Some(place)
}

/// Names of the `mod name;` lines, in order, with their line.
pub(crate) fn modules(code: &str) -> Vec<(usize, String)> {
    let ends = |line: &str| line.trim_end().ends_with(';');
    let lines = code.lines().zip(1..).filter(|(line, _)| ends(line));
    let named = lines.filter_map(|(line, number)| {
        let words: Vec<&str> = line.trim_end().trim_end_matches(';').split_whitespace().collect();
        let [visibility @ .., "mod", name] = words.as_slice() else { return None };
        let is_visibility = visibility.iter().all(|word| word.starts_with("pub"));
        is_visibility.then(|| (number, (*name).to_owned()))
    });
    named.collect()
}

#[test]
fn comments_and_literals_are_not_code() {
    let check = |text: &str, expected: &str| {
        let code = Page::new("src/x.rs", text).code();
        assert_eq!(code.chars().count(), text.chars().count());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
    };
    check("a // b\nc", "a c");
    check("/// b\n//! c\na", "a");
    check("a /* b /* c */ d */ e /**/ f", "a e f");
    check(r#"a("b \" // c", "\\") // d"#, "a( , )");
    check("a(r#\"b \" c\"#, br\"\\\", r#type)", "a( , , r#type)");
    check(r"a('b', '\'', '\u{41}', b'c', '/') /'d", "a( , , , b , ) /'d");
    check("fn a<'b>(c: &'b str, d: char) { d == '\"' }", "fn a<'b>(c: &'b str, d: char) { d == }");
}

#[test]
fn what_is_for_tests_only_can_be_left_out() {
    let page = Page::new("src/x.rs", "a\n#[cfg(test)]\nmod b {\n  fn c() { d }\n}\ne");
    assert_eq!(page.code_without_tests(), "a\n            \n       \n              \n \ne");
    let page = Page::new("src/x.rs", "#[cfg(test)]\nuse a::b;\nc");
    assert_eq!(page.code_without_tests().trim(), "c");
}

#[test]
fn a_path_is_read_out_of_its_group_and_led_back_to_the_crate() {
    let code = "use crate::{a::{self, b}, c as d, e::*};\nlet x = super::f::g::<H>(self::i());";
    let shown: Vec<_> = paths(code).iter().map(|(_, path)| path.join("::")).collect();
    let expected =
        "use crate::a::self crate::a::b crate::c crate::e::* let x super::f::g H self::i";
    assert_eq!(shown.join(" "), expected);
    let module = Page::new("src/p/q/r.rs", "").module();
    for (path, expected) in [
        ("crate::a::b", Some("a::b")),
        ("super::a", Some("p::q::a")),
        ("super::super::a", Some("p::a")),
        ("self::a", Some("p::q::r::a")),
        ("std::a", None),
        ("crate", None),
        ("super", None),
    ] {
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        assert_eq!(resolve(&path, &module).map(|place| place.join("::")).as_deref(), expected);
    }
}
