//! Holds `proto/` to the naming rules of buf's standard lint that a compiler does not check.

use std::collections::HashSet;

use prost::Message as _;
use prost_types::{EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

fn ours() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(super::FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package().starts_with("rehome.")).collect()
}

/// `HubState` as `HUB_STATE`.
fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    for (place, letter) in name.char_indices() {
        if place > 0 && letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn enum_faults(this: &EnumDescriptorProto) -> Vec<String> {
    let prefix = format!("{}_", upper_snake(this.name()));
    let mut faults = Vec::new();
    for value in &this.value {
        if !value.name().starts_with(&prefix) {
            faults.push(format!("{} does not start with {prefix}", value.name()));
        }
        if value.number() == 0 && value.name() != format!("{prefix}UNSPECIFIED") {
            faults.push(format!("{} is zero and not {prefix}UNSPECIFIED", value.name()));
        }
    }
    faults
}

#[test]
fn every_file_lies_where_its_package_says() {
    let files = ours();
    assert_eq!(files.len(), 12);
    for file in files {
        let folder = file.name().rsplit_once('/').map(|(folder, _)| folder.replace('/', "."));
        assert_eq!(folder.as_deref(), Some(file.package()), "{}", file.name());
        assert!(file.package().ends_with(".v1"), "{}", file.name());
    }
}

#[test]
fn enums_and_fields_are_named_by_the_rules() {
    for file in ours() {
        let enums = file.enum_type.iter().chain(file.message_type.iter().flat_map(|message| &message.enum_type));
        let faults: Vec<String> = enums.flat_map(enum_faults).collect();
        assert_eq!(faults, Vec::<String>::new(), "{}", file.name());
        for message in &file.message_type {
            let wrong = message.field.iter().find(|field| !is_lower_snake(field.name()));
            assert_eq!(wrong.map(|field| field.name()), None, "{}", message.name());
        }
    }
}

#[test]
fn every_call_has_messages_of_its_own() {
    let mut seen = HashSet::new();
    for file in ours() {
        for service in &file.service {
            assert!(service.name().ends_with("Service"), "{}", service.name());
            for method in &service.method {
                for (kind, message) in [("Request", method.input_type()), ("Response", method.output_type())] {
                    let plain = format!(".{}.{}{kind}", file.package(), method.name());
                    let full = format!(".{}.{}{}{kind}", file.package(), service.name(), method.name());
                    assert!(message == plain || message == full, "{} takes or gives {message}", method.name());
                    assert!(seen.insert(message.to_owned()), "{message} is used twice");
                }
            }
        }
    }
    assert!(seen.len() > 80, "{}", seen.len());
}

#[test]
fn a_rule_that_is_broken_is_found() {
    let value = |name: &str, number| prost_types::EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    };
    let this = EnumDescriptorProto {
        name: Some("HubState".to_owned()),
        value: vec![value("HUB_STATE_NONE", 0), value("ACTIVE", 1)],
        ..EnumDescriptorProto::default()
    };
    assert_eq!(enum_faults(&this).len(), 2);
}
