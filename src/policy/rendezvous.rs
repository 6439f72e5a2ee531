//! Weighted rendezvous hashing: a stable share of the devices for every hub.
//!
//! Each (device, hub) pair draws a number `u` in (0, 1) from SHA-256; the hub with the least `-log2(u) / weight` takes
//! the device. These costs are exponentially distributed with rate `weight`, so a hub wins in proportion to its weight;
//! and since a hub's cost depends on no other hub, adding or removing one moves only the devices it takes or had.
//!
//! Where a device lives must not depend on the machine that asks. Floating-point logarithms differ in their last bits
//! between platforms, so the logarithm is computed in integers and the quotients are compared by cross-multiplying.

use std::cmp::Ordering;

use aws_lc_rs::digest;

use crate::domain::{HubId, RegistrationId, limits};

/// Separates this use of SHA-256 from others, and this scheme from a later one. Changing it moves every hashed device.
const SCHEME: &[u8] = b"rehome rendezvous 1";
/// Binary digits after the point in a cost. 64 · 2^56 is below 2^63; times the greatest weight it is far below 2^128.
const FRACTION_BITS: u32 = 56;

/// What a hub bids for a device: less wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// `-log2(u)` with [`FRACTION_BITS`] binary digits.
    cost: u64,
    weight: u32,
}

impl Bid {
    /// The bid of one hub. The registration id counts without case, the weight as 1 to 1000.
    pub fn of(registration_id: &RegistrationId, hub: &HubId, weight: u32) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // Neither id can hold a zero byte, so no two pairs give the same text.
        for part in [SCHEME, registration_id.folded().as_bytes(), hub.as_str().as_bytes()] {
            context.update(part);
            context.update(&[0]);
        }
        let digest = context.finish();
        let draw = digest.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Self { cost: negative_log2(draw), weight: weight.clamp(1, limits::HUB_WEIGHT_MAX) }
    }
}

impl Ord for Bid {
    fn cmp(&self, other: &Self) -> Ordering {
        let scaled = |cost: u64, weight: u32| u128::from(cost) * u128::from(weight);
        scaled(self.cost, other.weight).cmp(&scaled(other.cost, self.weight)).then(other.weight.cmp(&self.weight))
    }
}

impl PartialOrd for Bid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `-log2(draw / 2^64)` with [`FRACTION_BITS`] binary digits; zero counts as one.
///
/// The digits of the logarithm come from squaring the mantissa: each time it passes 2, the next digit is 1.
fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let mut mantissa = draw << draw.leading_zeros();
    let mut log = u64::from(63 - draw.leading_zeros());
    for _ in 0..FRACTION_BITS {
        // The mantissa stands for 1 to 2 with 63 binary digits, its square for 1 to 4 with 126.
        let square = u128::from(mantissa) * u128::from(mantissa);
        let digit = square >> 127;
        mantissa = u64::try_from(square >> (63 + digit)).unwrap_or(u64::MAX);
        log = log << 1 | u64::from(digit == 1);
    }
    (64 << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hub(number: usize) -> HubId {
        HubId::parse(&format!("hub-{number}")).unwrap()
    }

    fn device(number: usize) -> RegistrationId {
        RegistrationId::parse(&format!("device-{number}")).unwrap()
    }

    /// The number of the hub that wins among `weights`.
    fn winner(device: &RegistrationId, weights: &[(usize, u32)]) -> usize {
        weights.iter().min_by_key(|(number, weight)| (Bid::of(device, &hub(*number), *weight), hub(*number))).unwrap().0
    }

    #[test]
    fn the_logarithm_is_right() {
        for (draw, expected) in [
            (0, 64.0),
            (1, 64.0),
            (2, 63.0),
            (3, 64.0 - 3_f64.log2()),
            (1 << 63, 1.0),
            (0xC000_0000_0000_0000, 1.0 - (0.75_f64 / 0.5).log2()),
            (u64::MAX, 0.0),
        ] {
            let actual = negative_log2(draw) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((actual - expected).abs() < 1e-12, "{draw}: {actual} is not {expected}");
        }
    }

    #[test]
    fn the_scheme_stands_still() {
        // Devices live by these numbers: a change of the scheme moves every hashed device of every installation.
        let weights = [(0, 1), (1, 1), (2, 1)];
        let winners: Vec<usize> = (0..16).map(|number| winner(&device(number), &weights)).collect();
        assert_eq!(winners, SCHEME_VECTOR);
    }

    /// Computed independently, with floating-point logarithms.
    const SCHEME_VECTOR: [usize; 16] = [2, 2, 2, 2, 1, 1, 1, 0, 1, 1, 2, 1, 2, 2, 1, 0];

    #[test]
    fn shares_follow_the_weights() {
        const DEVICES: usize = 4_000;
        let weights = [(0, 1), (1, 2), (2, 5), (3, 12)];
        let mut taken = [0_usize; 4];
        for number in 0..DEVICES {
            taken[winner(&device(number), &weights)] += 1;
        }
        for (number, weight) in weights {
            let expected = DEVICES * weight as usize / 20;
            // Four standard deviations of a share of 4000 devices are at most 127.
            assert!(taken[number].abs_diff(expected) < 127, "{number}: {} is far from {expected}", taken[number]);
        }
    }

    #[test]
    fn weights_outside_the_range_count_as_its_ends() {
        let weigh = |weight| Bid::of(&device(1), &hub(1), weight);
        assert_eq!((weigh(0), weigh(u32::MAX)), (weigh(1), weigh(1000)));
    }

    #[test]
    fn the_case_of_an_id_does_not_matter() {
        let (upper, lower) = (RegistrationId::parse("DEV-1").unwrap(), RegistrationId::parse("dev-1").unwrap());
        assert_eq!(Bid::of(&upper, &hub(1), 1), Bid::of(&lower, &hub(1), 1));
    }

    proptest! {
        #[test]
        fn the_order_of_hubs_does_not_matter(
            id in "[a-zA-Z0-9]{1,20}",
            weights in prop::collection::vec(1_u32..=1000, 1..12),
            turn in 0_usize..12,
        ) {
            let id = RegistrationId::parse(&id).unwrap();
            let hubs: Vec<(usize, u32)> = weights.into_iter().enumerate().collect();
            let mut turned = hubs.clone();
            turned.rotate_left(turn % hubs.len());
            turned.reverse();
            prop_assert_eq!(winner(&id, &hubs), winner(&id, &turned));
        }

        #[test]
        fn a_new_hub_moves_only_what_it_takes(
            id in "[a-z0-9]{1,20}",
            weights in prop::collection::vec(1_u32..=1000, 2..12),
        ) {
            let id = RegistrationId::parse(&id).unwrap();
            let hubs: Vec<(usize, u32)> = weights.into_iter().enumerate().collect();
            let (newest, before) = hubs.split_last().unwrap();
            let after = winner(&id, &hubs);
            prop_assert!(after == newest.0 || after == winner(&id, before));
        }

        #[test]
        fn more_weight_never_loses_a_device(
            id in "[a-z0-9]{1,20}",
            weights in prop::collection::vec(1_u32..=999, 1..12),
        ) {
            let id = RegistrationId::parse(&id).unwrap();
            let hubs: Vec<(usize, u32)> = weights.into_iter().enumerate().collect();
            let won = winner(&id, &hubs);
            let mut heavier = hubs.clone();
            heavier[won].1 += 1;
            prop_assert_eq!(winner(&id, &heavier), won);
        }
    }
}
