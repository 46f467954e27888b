//! Front matter: the YAML between two lines of `---` at the top of a card.
//!
//! It is edited by lines and not by a YAML library, so that comments, order and spelling of everything that is not ours survive.
//! Values are read where they are a word or a list of words; anything else (anchors, mappings, blocks of text) is left alone.

/// More of a list of words is no list of words.
const MOST: usize = 200;
/// A longer word is none.
const LONGEST: usize = 300;

/// A word or a list of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    One(String),
    Many(Vec<String>),
}

impl Value {
    pub fn into_list(self) -> Vec<String> {
        match self {
            Value::One(word) => vec![word],
            Value::Many(words) => words,
        }
    }

    fn is_sane(&self) -> bool {
        let words = match self {
            Value::One(word) => std::slice::from_ref(word),
            Value::Many(words) => words.as_slice(),
        };
        words.len() <= MOST
            && words.iter().all(|w| !w.is_empty() && w.chars().count() <= LONGEST && !w.contains(char::is_control))
    }

    fn yaml(&self, key: &str) -> String {
        match self {
            Value::One(word) => format!("{key}: {}\n", scalar(word)),
            Value::Many(words) => words.iter().fold(format!("{key}:\n"), |text, word| text + "- " + &scalar(word) + "\n"),
        }
    }
}

/// Lines with the key that they belong to; those before the first key have none.
#[derive(Debug, Default)]
pub struct Front {
    entries: Vec<(String, String)>,
}

impl Front {
    /// The front matter of a card, and the rest of it.
    pub fn split(card: &str) -> (Front, &str) {
        // White space in front is fine with the Hub, too (huggingface_hub, `REGEX_YAML_BLOCK`).
        let text = card.trim_start();
        let mut lines = text.split_inclusive('\n');
        if lines.next().map(str::trim_end) != Some("---") {
            return (Front::default(), card);
        }
        let before = card.len() - text.len();
        let (mut front, mut at) = (Front::default(), before + text.find('\n').map_or(text.len(), |end| end + 1));
        for line in lines {
            at += line.len();
            if line.trim_end() == "---" {
                return (front, &card[at..]);
            }
            let line = format!("{}\n", line.trim_end_matches(['\n', '\r']));
            match (key(&line), front.entries.last_mut()) {
                (Some(key), _) => front.entries.push((key.to_owned(), line)),
                (None, Some((_, text))) => text.push_str(&line),
                (None, None) => front.entries.push((String::new(), line)),
            }
        }
        // It never ends, so it never began.
        (Front::default(), card)
    }

    /// The first line that is neither a key nor belongs to one: front matter with it cannot be edited by lines.
    pub fn odd_line(&self) -> Option<&str> {
        let mut seen: Vec<&str> = Vec::new();
        for (key, text) in &self.entries {
            if !key.is_empty() && seen.contains(&key.as_str()) {
                return text.lines().next();
            }
            seen.push(key);
            let of_key = usize::from(!key.is_empty());
            let odd = |line: &&str| !line.starts_with([' ', '\t', '-', '#']) && !line.trim().is_empty() || *line == "---";
            if let Some(line) = text.lines().skip(of_key).find(odd) {
                return Some(line);
            }
        }
        None
    }

    /// With the lines of `---` around it.
    pub fn text(&self) -> String {
        format!("---\n{}---\n", self.entries.iter().map(|(_, text)| text.as_str()).collect::<String>())
    }

    /// What a key says, if it is a word or a list of words.
    pub fn value(&self, key: &str) -> Option<Value> {
        let (_, text) = self.entries.iter().find(|(known, _)| known == key)?;
        read(text.split_once(':')?.1).filter(Value::is_sane)
    }

    /// A key that is not there yet.
    pub fn add(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value.filter(|_| !self.entries.iter().any(|(known, _)| known == key)) {
            self.entries.push((key.to_owned(), value.yaml(key)));
        }
    }

    /// Words that a list does not hold yet.
    pub fn extend(&mut self, key: &str, words: &[String]) {
        let old = self.value(key).map(Value::into_list);
        let mut list = old.clone().unwrap_or_default();
        for word in words {
            if !list.contains(word) {
                list.push(word.clone());
            }
        }
        let text = Value::Many(list.clone()).yaml(key);
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, line)) if old.as_ref().is_some_and(|old| *old != list) || says_nothing(line) => *line = text,
            // It says that already, or what only its author understands.
            Some(_) => {}
            None => self.entries.push((key.to_owned(), text)),
        }
    }
}

/// `key:` and nothing behind it.
fn says_nothing(entry: &str) -> bool {
    entry.split_once(':').is_some_and(|(_, value)| value.lines().all(is_comment))
}

/// The key that a line begins with: plain or in quotes.
fn key(line: &str) -> Option<&str> {
    let (key, rest) = line.split_once(':')?;
    let key = key.trim_end();
    let quoted = |quote| key.strip_prefix(quote).and_then(|key| key.strip_suffix(quote));
    let key = quoted('"').or(quoted('\'')).unwrap_or(key);
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (plain && rest.starts_with([' ', '\n', '\t'])).then_some(key)
}

/// What follows a key's colon.
fn read(text: &str) -> Option<Value> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first = first.trim();
    if first.starts_with('[') {
        let all = format!("{first} {}", rest.replace('\n', " "));
        return flow(all.trim());
    }
    let rest: Vec<&str> = rest.lines().filter(|line| !is_comment(line)).collect();
    if first.is_empty() || first.starts_with('#') {
        let items = rest.iter().map(|line| word(line.trim_start().strip_prefix("- ")?.trim()));
        return items.collect::<Option<Vec<_>>>().filter(|list| !list.is_empty()).map(Value::Many);
    }
    if rest.is_empty() { word(first).map(Value::One) } else { None }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// `[a, "b, c"]`.
fn flow(text: &str) -> Option<Value> {
    let inner = text.strip_prefix('[')?;
    let (mut items, mut item, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = inner.chars();
    loop {
        let c = chars.next()?;
        match (c, quote) {
            (c, Some(open)) => {
                item.push(c);
                if c == '\\' && open == '"' {
                    item.push(chars.next()?);
                } else if c == open {
                    quote = None;
                }
            }
            ('\'' | '"', None) if item.trim().is_empty() => {
                quote = Some(c);
                item.push(c);
            }
            ('[' | '{' | '}' | '#', None) => return None,
            (',' | ']', None) => {
                if !item.trim().is_empty() {
                    items.push(word(item.trim())?);
                }
                item.clear();
                if c == ']' {
                    return is_comment(chars.as_str()).then_some(Value::Many(items));
                }
            }
            (c, None) => item.push(c),
        }
    }
}

/// A scalar: plain or in quotes, without anything that means more.
fn word(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('"') {
        let end = inner.char_indices().scan(false, |escaped, (at, c)| {
            let ends = c == '"' && !*escaped;
            *escaped = c == '\\' && !*escaped;
            Some((at, ends))
        });
        let end = end.filter(|(_, ends)| *ends).map(|(at, _)| at).next()?;
        // JSON's strings are a part of YAML's; what goes beyond is not a word of a card.
        return serde_json::from_str(&text[..end + 2]).ok().filter(|_| is_comment(&inner[end + 1..]));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        let (body, after) = inner.rsplit_once('\'')?;
        return (is_comment(after) && !body.replace("''", "").contains('\'')).then(|| body.replace("''", "'"));
    }
    let plain = text.split(" #").next().unwrap_or_default().trim();
    let means_more = plain.starts_with(['&', '*', '!', '|', '>', '%', '@', '`', '{', '}', '[', ']', ',', '?', '#']);
    let nothing = matches!(plain, "" | "~" | "null" | "Null" | "NULL" | "-");
    (!means_more && !nothing && !plain.contains(": ") && !plain.ends_with(':') && !plain.starts_with("- "))
        .then(|| plain.to_owned())
}

/// A word as YAML: plain where no reader of YAML 1.1 or 1.2 takes it for anything else.
fn scalar(word: &str) -> String {
    let special = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"].contains(&word.to_lowercase().as_str());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(plain) && !special {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            // What YAML takes for the end of a line, too.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text + "\""
}
