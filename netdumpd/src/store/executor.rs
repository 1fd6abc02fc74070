//! Carries out the core's actions that concern files, at once.

use std::collections::VecDeque;

use debugnet_core::time::Instant;

use super::Store;
use super::batch::{Done, carry_out};
use crate::core::{Action, Core};

/// Takes actions from a [`Core`], carries out those for a [`Store`], reports
/// the results back, and hands the others on.
///
/// Payloads that lie one behind the other become one write. It waits for the
/// store: the daemon's loop, which must not, has threads for it.
#[derive(Debug, Default)]
pub struct Executor {
    actions: VecDeque<Action>,
    done: Vec<Done>,
    ready: VecDeque<Action>,
}

impl Executor {
    /// Works until there is something for the caller, or nothing to do.
    ///
    /// The caller carries out `Bind`, `Reply`, `Handle`, `Release` and
    /// `Notice`. `Open`, `Finish` and `Close` are already done when they are
    /// returned, for information; one that failed is not returned (the core
    /// has been told, and what follows from it comes next).
    pub fn next<S: Store + ?Sized>(
        &mut self,
        core: &mut Core,
        store: &mut S,
        now: Instant,
    ) -> Option<Action> {
        // Every turn takes all actions from the core.
        loop {
            if let Some(action) = self.ready.pop_front() {
                return Some(action);
            }
            self.actions.extend(std::iter::from_fn(|| core.poll_action()));
            if self.actions.is_empty() {
                return None;
            }
            carry_out(store, &mut self.actions, &mut self.done);
            let told = self.done.drain(..).filter_map(|done| done.tell(core, now));
            self.ready.extend(told);
        }
    }
}
