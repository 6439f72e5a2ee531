//! What the build makes of `proto/`. The nesting is the packages', since generated code refers to its neighbours by it.
#![allow(
    clippy::pedantic,
    clippy::all,
    missing_debug_implementations,
    reason = "generated code is judged by its generator"
)]

pub mod rehome {
    pub mod device {
        pub mod v1 {
            tonic::include_proto!("rehome.device.v1");
        }
    }
    pub mod hub {
        pub mod v1 {
            tonic::include_proto!("rehome.hub.v1");
        }
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("rehome.admin.v1");
        }
    }
}
