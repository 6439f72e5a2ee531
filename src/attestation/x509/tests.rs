//! Chains made at test time under a fixed clock, each with its verdict.
