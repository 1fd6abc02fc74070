//! What is dumped, in which order, and what became of it.
//!
//! This part knows the image and the order of messages, and no protocol header
//! but the kernel dump header.

mod dumper;
mod info;
pub mod layout;
mod outcome;
mod source;
mod stream;

pub(crate) use dumper::{Dumper, Fill, Room, Step, stage};
pub use info::DumpInfo;
pub use outcome::{Failure, FailureKind, Gap, Gaps, Outcome, Reason, Verdict};
pub use source::{DumpSource, Extent, ReadFault, ReadRam, Stability, Transform, TransformError};
pub use stream::{ImageStream, StreamState};
