//! Addresses as existing SDKs write them: words in any case, some with a slash behind (reference/azure-sdk-wire.md). Ids
//! keep their letters.

use std::borrow::Cow;

/// Words an address may start with.
const COLLECTIONS: &[&str] = &["enrollments", "enrollmentGroups", "registrations", "devices", "twins"];
/// Words that may stand for an id.
const VERBS: &[&str] = &["query"];
/// Words behind an id.
const PARTS: &[&str] = &["attestationmechanism", "query", "register", "operations"];

/// The path with its words as the routes have them and without a slash at its end.
pub fn canonical(path: &str) -> String {
    let mut segments: Vec<Cow<'_, str>> = path.trim_end_matches('/').split('/').skip(1).map(Cow::from).collect();
    match segments.first().and_then(|first| word(COLLECTIONS, first)) {
        Some(collection) => {
            segments[0] = Cow::from(collection);
            replace(&mut segments, 1, VERBS);
            replace(&mut segments, 2, PARTS);
        }
        // A device's address starts with its scope.
        None => {
            replace(&mut segments, 1, &["registrations"]);
            replace(&mut segments, 3, PARTS);
        }
    }
    format!("/{}", segments.join("/"))
}

fn replace(segments: &mut [Cow<'_, str>], at: usize, words: &[&'static str]) {
    if let Some(segment) = segments.get_mut(at)
        && let Some(word) = word(words, segment)
    {
        *segment = Cow::from(word);
    }
}

fn word(words: &[&'static str], text: &str) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_in_any_case_and_ids_are_left_alone() {
        let check = |path: &str, expected: &str| assert_eq!(canonical(path), expected, "{path}");
        check("/0ne1/registrations/Dev-1/register", "/0ne1/registrations/Dev-1/register");
        check("/0ne1/Registrations/Dev-1/Register", "/0ne1/registrations/Dev-1/register");
        check("/0ne1/registrations/REGISTER/operations/5", "/0ne1/registrations/REGISTER/operations/5");
        check("/0ne1/registrations/Dev-1/", "/0ne1/registrations/Dev-1");
        check("/enrollments/", "/enrollments");
        check("/ENROLLMENTS/Query", "/enrollments/query");
        check("/enrollmentgroups/G1/AttestationMechanism", "/enrollmentGroups/G1/attestationmechanism");
        check("/Registrations/G1/query", "/registrations/G1/query");
        check("/twins/Enrollments", "/twins/Enrollments");
        check("/", "/");
        check("", "/");
    }
}
