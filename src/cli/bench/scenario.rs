//! What can be measured, by name.

use std::fmt;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// A new connection with a full handshake, and a registration that changes nothing; proven by a group's authority.
    ColdGroup,
    /// As above, by an individual enrollment.
    ColdIndividual,
    /// As above, but the handshake resumes an earlier connection.
    Resumed,
    /// A registration that changes nothing, on a connection that is open.
    Warm,
    /// The device's own record, on a connection that is open.
    LookUp,
    /// The first registration of a device, on a connection that is open.
    First,
    /// A registration that moves the device and its twin to the other hub.
    MoveMigrate,
    /// A registration that moves the device to the other hub with the twin of its enrollment.
    MoveReset,
    /// A challenge to a TPM and its answer: a registration, by the software TPM.
    Tpm,
    /// Reported properties, by the device.
    TwinReport,
    /// Desired properties by a back end, until the device that watches has them.
    TwinPush,
    /// Registrations that change nothing, some of them cold, with moves and reports among them.
    Mix,
    /// Every device once, at a given rate, each on a new connection.
    StormStay,
    /// As above, and every device moves to the other hub.
    StormMove,
    /// As above, and the handshakes resume earlier connections.
    StormReturn,
    /// The server is killed and started again.
    Restart,
}

impl Scenario {
    pub const ALL: &'static [Scenario] = &[
        Scenario::First,
        Scenario::Warm,
        Scenario::LookUp,
        Scenario::ColdGroup,
        Scenario::ColdIndividual,
        Scenario::Resumed,
        Scenario::MoveMigrate,
        Scenario::MoveReset,
        Scenario::Tpm,
        Scenario::TwinReport,
        Scenario::TwinPush,
        Scenario::Mix,
        Scenario::StormStay,
        Scenario::StormMove,
        Scenario::StormReturn,
        Scenario::Restart,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::ColdGroup => "cold-group",
            Scenario::ColdIndividual => "cold-individual",
            Scenario::Resumed => "resumed",
            Scenario::Warm => "warm",
            Scenario::LookUp => "look-up",
            Scenario::First => "first",
            Scenario::MoveMigrate => "move-migrate",
            Scenario::MoveReset => "move-reset",
            Scenario::Tpm => "tpm",
            Scenario::TwinReport => "twin-report",
            Scenario::TwinPush => "twin-push",
            Scenario::Mix => "mix",
            Scenario::StormStay => "storm-stay",
            Scenario::StormMove => "storm-move",
            Scenario::StormReturn => "storm-return",
            Scenario::Restart => "restart",
        }
    }

    /// The scenarios that a word names: one, or all that begin with it and a dash.
    pub fn named(word: &str) -> Option<Vec<Scenario>> {
        let names = |scenario: &Scenario| {
            let rest = scenario.as_str().strip_prefix(word)?;
            (rest.is_empty() || rest.starts_with('-')).then_some(*scenario)
        };
        let named: Vec<Scenario> = Scenario::ALL.iter().filter_map(names).collect();
        (!word.is_empty() && !named.is_empty()).then_some(named)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a person may ask for on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice(pub Vec<Scenario>);

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Scenario::named(text).map(Choice).ok_or_else(|| {
            let all: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.as_str()).collect();
            format!("there is no such scenario; there are {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_named_one_by_one_or_together() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.as_str()), Some(vec![*scenario]));
        }
        assert_eq!(Scenario::named("cold"), Some(vec![Scenario::ColdGroup, Scenario::ColdIndividual]));
        assert_eq!(
            Scenario::named("storm"),
            Some(vec![Scenario::StormStay, Scenario::StormMove, Scenario::StormReturn])
        );
        for word in ["", "co", "cold-", "warm-", "everything"] {
            assert_eq!(Scenario::named(word), None, "{word:?}");
        }
    }
}
