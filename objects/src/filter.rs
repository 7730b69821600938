//! `--include` and `--exclude`, as `aws s3` has them: everything is in unless a pattern says otherwise, and the last one that matches wins.

/// A pattern over bytes: `*` is anything (also slashes), `?` any byte, `[abc]`, `[a-z]` and `[!abc]` one of (not) these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
}

impl Glob {
    pub fn new(pattern: &[u8]) -> Self {
        Self { pattern: pattern.to_vec() }
    }

    pub fn matches(&self, text: &[u8]) -> bool {
        let pattern = &self.pattern;
        let (mut at, mut position) = (0, 0);
        // Where to go on after the last star, should the rest not match.
        let mut retry: Option<(usize, usize)> = None;
        while position < text.len() {
            let step = match pattern.get(at) {
                Some(b'*') => {
                    retry = Some((at + 1, position));
                    at += 1;
                    continue;
                }
                Some(_) => one(&pattern[at..], text[position]),
                None => None,
            };
            match (step, retry) {
                (Some(len), _) => (at, position) = (at + len, position + 1),
                (None, Some((after_star, from))) => {
                    retry = Some((after_star, from + 1));
                    (at, position) = (after_star, from + 1);
                }
                (None, None) => return false,
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// Whether the first element of a pattern (not a star) matches a byte; how long the element is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => match class(pattern) {
            Some((len, negated, members)) => (contains(members, byte) != negated).then_some(len),
            // Without its end it stands for itself.
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// `[...]` at the beginning of a pattern: its length, whether it is negated, its members.
fn class(pattern: &[u8]) -> Option<(usize, bool, &[u8])> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A bracket at the beginning is a member.
    let end = pattern.iter().skip(start + 1).position(|byte| *byte == b']')? + start + 1;
    Some((end + 1, negated, &pattern[start..end]))
}

fn contains(members: &[u8], byte: u8) -> bool {
    let mut rest = members;
    while let Some(first) = rest.first() {
        match rest {
            [low, b'-', high, ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest = &rest[3..];
            }
            _ if *first == byte => return true,
            _ => rest = &rest[1..],
        }
    }
    false
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Include,
    Exclude,
}

/// The rules, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    rules: Vec<(Verdict, Glob)>,
}

impl Filter {
    pub fn new(rules: Vec<(Verdict, Glob)>) -> Self {
        Self { rules }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a file, by its path relative to where the command began, is in.
    pub fn takes(&self, relative: &[u8]) -> bool {
        let last = self.rules.iter().rev().find(|(_, glob)| glob.matches(relative));
        last.is_none_or(|(verdict, _)| *verdict == Verdict::Include)
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Glob, Verdict};

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(text.as_bytes())
    }

    #[test]
    fn globs_match_as_in_aws() {
        let yes = [
            ("*", ""),
            ("*", "a/b"),
            ("*.txt", "a/b.txt"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("a*b*c", "a-b-b-c"),
            ("[", "["),
            ("[]]", "]"),
            ("**x", "x"),
            ("[a-]", "-"),
        ];
        let no = [("*.txt", "b.txt2"), ("a?c", "ac"), ("[a-c]x", "dx"), ("[!a-c]x", "ax"), ("a*b", "a-c"), ("", "x"), ("abc", "ab")];
        yes.iter().for_each(|(pattern, text)| assert!(matches(pattern, text), "{pattern} {text}"));
        no.iter().for_each(|(pattern, text)| assert!(!matches(pattern, text), "{pattern} {text}"));
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        assert!(!matches(&"a*".repeat(40), &"a".repeat(4000)[..39]));
        assert!(!matches("*a*a*a*a*a*a*a*a*b", &"a".repeat(2000)));
    }

    #[test]
    fn the_last_rule_that_matches_wins() {
        let rule = |verdict, pattern: &str| (verdict, Glob::new(pattern.as_bytes()));
        let only_text = Filter::new(vec![rule(Verdict::Exclude, "*"), rule(Verdict::Include, "*.txt")]);
        assert!(only_text.takes(b"a/b.txt") && !only_text.takes(b"a/b.rs"));
        let nothing = Filter::new(vec![rule(Verdict::Include, "*.txt"), rule(Verdict::Exclude, "*")]);
        assert!(!nothing.takes(b"b.txt"));
        assert!(Filter::default().takes(b"anything"));
    }
}
