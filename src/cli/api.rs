//! The messages of the API under the names the command line calls them by.

pub use crate::client::admin::v1 as admin;
pub use crate::client::device::v1 as device;
pub use crate::client::hub::v1 as hub;
