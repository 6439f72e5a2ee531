//! Quotes of a TPM (swtpm), and each thing about them that can be wrong.

use super::super::quote::verify;
use super::super::{AttestationKey, PublicArea, Quote, QuoteFault};
use super::{index, policy, vector};
use crate::domain::{PcrIndex, PcrMode, PcrPolicy, PcrValue, limits};

const SCHEMES: [&str; 3] = ["ecdsa", "rsassa", "rsapss"];

fn nonce() -> Vec<u8> {
    (0..32).collect()
}

fn key(scheme: &str) -> AttestationKey {
    AttestationKey::validate(PublicArea::parse(&vector(&format!("ak-{scheme}.pub"))).unwrap()).unwrap()
}

fn quoted() -> Vec<(PcrIndex, PcrValue)> {
    let values = vector("quoted-pcrs.bin");
    let values = values.chunks(32).map(|value| PcrValue(value.try_into().unwrap()));
    [0, 7, 23].into_iter().map(index).zip(values).collect()
}

fn quote(scheme: &str) -> Quote {
    Quote {
        attest: vector(&format!("quote-{scheme}.attest")),
        signature: vector(&format!("quote-{scheme}.sig")),
        values: quoted(),
        key_proof: [0; 32],
    }
}

/// Every quoted register may hold what it holds, beside something else.
fn allowed() -> PcrPolicy {
    let values = quoted();
    let pairs: Vec<[[u8; 32]; 2]> = values.iter().map(|(_, value)| [[0xee; 32], value.0]).collect();
    let allowed: Vec<(u32, &[[u8; 32]])> =
        [0, 7, 23].into_iter().zip(pairs.iter().map(|pair| pair.as_slice())).collect();
    policy(PcrMode::Enforce, &allowed)
}

#[test]
fn quotes_of_a_tpm_verify_under_every_scheme() {
    for scheme in SCHEMES {
        assert_eq!(verify(&quote(scheme), &key(scheme), &nonce(), &allowed()), Ok(vec![]), "{scheme}");
    }
}

#[test]
fn registers_with_other_values_are_named() {
    let (zero, seven, twenty_three) = (quoted()[0].1.0, quoted()[1].1.0, quoted()[2].1.0);
    let check = |allowed: &[(u32, &[[u8; 32]])], expected: &[u32]| {
        let expected: Vec<PcrIndex> = expected.iter().map(|number| index(*number)).collect();
        let verdict = verify(&quote("ecdsa"), &key("ecdsa"), &nonce(), &policy(PcrMode::Audit, allowed));
        assert_eq!(verdict, Ok(expected));
    };
    check(&[(0, &[zero]), (7, &[seven]), (23, &[twenty_three])], &[]);
    check(&[(0, &[zero]), (7, &[[1; 32]]), (23, &[twenty_three])], &[7]);
    check(&[(0, &[[1; 32]]), (7, &[seven]), (23, &[[2; 32], [3; 32]])], &[0, 23]);
    // What one register may hold, another may not.
    check(&[(0, &[zero]), (7, &[twenty_three]), (23, &[seven])], &[7, 23]);
}

#[test]
fn each_thing_can_be_wrong() {
    let check = |change: &dyn Fn(&mut Quote), expected: QuoteFault| {
        for scheme in SCHEMES {
            let mut quote = quote(scheme);
            change(&mut quote);
            let verdict = verify(&quote, &key(scheme), &nonce(), &allowed());
            assert_eq!(verdict, Err(expected), "{scheme}");
        }
    };
    // The order of the values is theirs to choose.
    let mut turned = quote("ecdsa");
    turned.values.reverse();
    assert_eq!(verify(&turned, &key("ecdsa"), &nonce(), &allowed()), Ok(vec![]));

    check(&|quote| quote.attest.clear(), QuoteFault::Malformed);
    check(&|quote| quote.attest.truncate(quote.attest.len() - 1), QuoteFault::Malformed);
    check(&|quote| quote.attest.push(0), QuoteFault::Malformed);
    check(&|quote| quote.attest = vec![0; limits::TPM_QUOTE_BYTES_MAX + 1], QuoteFault::TooLarge);
    check(&|quote| quote.attest[0] = 0, QuoteFault::MagicWrong);
    check(&|quote| quote.attest[5] = 0x17, QuoteFault::Malformed);
    check(&|quote| quote.attest[44] ^= 1, QuoteFault::SignatureInvalid);
    check(&|quote| *quote.attest.last_mut().unwrap() ^= 1, QuoteFault::SignatureInvalid);
    check(&|quote| quote.signature.clear(), QuoteFault::SignatureMalformed);
    check(&|quote| quote.signature.push(0), QuoteFault::SignatureMalformed);
    check(&|quote| quote.signature.truncate(quote.signature.len() - 1), QuoteFault::SignatureMalformed);
    check(&|quote| quote.signature = vec![0; limits::TPM_QUOTE_BYTES_MAX + 1], QuoteFault::TooLarge);
    check(&|quote| *quote.signature.last_mut().unwrap() ^= 1, QuoteFault::SignatureInvalid);
    // Another hash than the key is bound to, and no signature at all.
    check(&|quote| quote.signature[3] = 0x0c, QuoteFault::SignatureMalformed);
    check(&|quote| quote.signature = vec![0x00, 0x10], QuoteFault::SignatureMalformed);
    check(&|quote| quote.values.truncate(quote.values.len() - 1), QuoteFault::ValuesIncomplete);
    check(&|quote| quote.values.clear(), QuoteFault::ValuesIncomplete);
    check(&|quote| quote.values.push(quote.values[0]), QuoteFault::ValuesIncomplete);
    check(&|quote| quote.values[1].0 = index(8), QuoteFault::ValuesIncomplete);
    check(&|quote| quote.values[1].1.0[0] ^= 1, QuoteFault::DigestWrong);
    // The allowed value in place of the one that was quoted.
    check(&|quote| quote.values[1].1 = PcrValue([0xee; 32]), QuoteFault::DigestWrong);
}

#[test]
fn a_quote_is_of_one_key_one_challenge_and_one_selection() {
    let own = |nonce: &[u8], policy: &PcrPolicy| verify(&quote("ecdsa"), &key("ecdsa"), nonce, policy);
    let mut other = nonce();
    other[31] ^= 1;
    assert_eq!(own(&other, &allowed()), Err(QuoteFault::NonceWrong));
    assert_eq!(own(&nonce()[..31], &allowed()), Err(QuoteFault::NonceWrong));
    assert_eq!(own(&[], &allowed()), Err(QuoteFault::NonceWrong));
    for numbers in [&[7][..], &[0, 7], &[0, 7, 22], &[0, 7, 22, 23], &[0, 1, 7, 23]] {
        let none: Vec<(u32, &[[u8; 32]])> = numbers.iter().map(|number| (*number, &[[0; 32]][..])).collect();
        let other = policy(PcrMode::Audit, &none);
        assert_eq!(own(&nonce(), &other), Err(QuoteFault::SelectionWrong), "{numbers:?}");
    }
    // Signed by one key, presented as another's; and of a scheme that the key does not have.
    let cross = |scheme: &str, key_of: &str| verify(&quote(scheme), &key(key_of), &nonce(), &allowed());
    assert_eq!(cross("rsassa", "rsapss"), Err(QuoteFault::SignatureMalformed));
    assert_eq!(cross("ecdsa", "rsassa"), Err(QuoteFault::SignatureMalformed));
    assert_eq!(cross("rsapss", "ecdsa"), Err(QuoteFault::SignatureMalformed));
}

/// What a TPM signs is not always about registers.
#[test]
fn other_attestations_are_no_quotes() {
    let certified = Quote { attest: vector("certify.attest"), signature: vector("certify.sig"), ..quote("ecdsa") };
    assert_eq!(verify(&certified, &key("ecdsa"), &nonce(), &allowed()), Err(QuoteFault::KindWrong));
}
